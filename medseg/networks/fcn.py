"""Fully convolutional networks: FCN-32s, 16s, 8s, and 4s.

A classifier, its fully connected layers made convolutions, gives scores on a coarse grid. They are
enlarged step by step, and at each step the scores of an earlier, finer map are added.

Source: Long, Shelhamer & Darrell, CVPR 2015, arXiv:1411.4038. 4s is the next step of the same kind.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.encoders import ENCODERS, Encoder
from medseg.networks.layers import CONV, Norm, Step, conv_norm, receptive_field, spatial_size
from medseg.networks.topology import strides_from_spacing
from medseg.networks.upsample import BilinearUpsample

Variant = Literal["32s", "16s", "8s", "4s"]

# The poolings whose maps are scored and added, coarsest first.
_SKIPS: dict[str, tuple[int, ...]] = {"32s": (), "16s": (4,), "8s": (4, 3), "4s": (4, 3, 2)}
_MARGIN = 99  # the published first convolution is padded by 100; ours has 1 of them


@NETWORKS.register("fcn")
class FCN(Network):
    """FCN with a VGG encoder, in 2D and 3D.

    A finer variant takes over a coarser one's weights with ``load_state_dict(..., strict=False)``,
    and then starts as that: the layers that it adds are zero. The scores are then enlarged in one
    step more, which rounds the interpolation's kinks.

    Differs from the paper by default: images are padded to whole cells at the far end instead of by
    100 voxels all around; a norm that trains with a batch of one; a smaller classifier; one
    upsampling kernel a class, without those between classes; poolings that follow from spacing and
    patch. :meth:`paper` is the published one.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        variant: Stride of the finest map that is scored: 32s scores the classifier's alone.
        encoder: ``vgg11`` or ``vgg16``.
        encoder_width: Channels of the encoder's first stage; its last has 8 times as many.
        fc_kernel: Kernel of the classifier's first layer: 7 as published.
        fc_channels: Channels of the classifier's two layers: 4096 as published.
        learn_upsampling: Whether the enlargements by 2 are learned, from linear interpolation on;
            the last enlargement never is.
        at_once: Whether the finer maps are scaled by 0.01, 0.0001, ... before they are scored, to
            train all of the network at once instead of one variant after the other.
        paper_padding: Whether the image is padded by 100 zeros all around and the classifier is
            not padded, as published: memory and time for nothing, above all in 3D.
        norm: Norm after every convolution; ``auto`` is a group norm, ``none`` as in the paper.
        dropout: Share of the classifier's features dropped while training.
        patch_voxels: The training patch: an axis is not halved to less than two cells of it.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: ``fc_kernel`` is even, or more than the 7 that the paper's padding allows.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        variant: Variant = "8s",
        encoder: Literal["vgg11", "vgg16"] = "vgg16",
        encoder_width: int = 64,
        fc_kernel: int = 3,
        fc_channels: int = 1024,
        learn_upsampling: bool = False,
        at_once: bool = False,
        paper_padding: bool = False,
        norm: Norm = "auto",
        dropout: float = 0.5,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        if fc_kernel % 2 == 0 or (paper_padding and fc_kernel > 7):
            raise ValueError(f"fc_kernel is odd, and at most 7 with paper_padding; got {fc_kernel}")
        self.paper_padding = paper_padding
        self.fc_kernel = fc_kernel
        self.encoder: Encoder = ENCODERS[encoder](
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=_halvings(spatial_dims, spacing, patch_voxels),
            pool_kernel=2,
        )
        self.output_stride = self.encoder.grids[-1]
        wide = self.encoder.channels
        fc6 = conv_norm(spatial_dims, wide[-1], fc_channels, fc_kernel, norm)
        if paper_padding:
            fc6[0].padding = (0,) * spatial_dims  # type: ignore[assignment]
        self.classifier = nn.Sequential(
            fc6,
            nn.Dropout(dropout),
            conv_norm(spatial_dims, fc_channels, fc_channels, 1, norm),
            nn.Dropout(dropout),
        )
        self.score = _zero_scores(spatial_dims, fc_channels, out_channels)
        self.skipped = _SKIPS[variant]
        self.factors = {n: 0.01 ** (5 - n) if at_once else 1.0 for n in self.skipped}
        edges: Literal["none", "repeat"] = "none" if paper_padding else "repeat"
        self.skips = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for n in self.skipped:
            self.skips[f"pool{n}"] = _zero_scores(spatial_dims, wide[n - 1], out_channels)
            self.ups[f"pool{n}"] = BilinearUpsample(
                spatial_dims,
                out_channels,
                self.encoder.halvings[n],
                learnable=learn_upsampling,
                edges=edges,
            )
        self.finest = self.encoder.grids[min(self.skipped, default=5) - 1]
        self.last = BilinearUpsample(spatial_dims, out_channels, self.finest, edges=edges)

    @classmethod
    def paper(
        cls, in_channels: int = 3, out_channels: int = 21, *, variant: Variant = "8s"
    ) -> Self:
        """Return the published 2D network.

        For 3 channels and 21 classes: 134,346,581 (32s), 134,357,354 (16s) and 134,362,751 (8s)
        weights. Its upsampling, fixed here as in the authors' release, is stored there with zeros
        between the classes: 1,806,336, 458,640 and 127,008 numbers, of which ours are a 21st.
        """
        return cls(
            2,
            in_channels,
            out_channels,
            variant=variant,
            fc_kernel=7,
            fc_channels=4096,
            paper_padding=True,
            norm="none",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """FCN-8s (3D: 4s, four halvings, a VGG-11) of a quarter of the width."""
        shared = {"encoder_width": 16, "fc_channels": 256, "dropout": 0.1}
        if spatial_dims == 2:
            return shared
        return {**shared, "variant": "4s", "encoder": "vgg11", "patch_voxels": (32, 32, 32)}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        if self.paper_padding:
            padded = F.pad(image, (_MARGIN, _MARGIN) * self.spatial_dims)
        else:
            padded = self.encoder.pad(image)
        maps = self.encoder(padded)
        logits: Tensor = self.score(self.classifier(maps[-1]))
        offsets = self.crop_offsets()
        for n in self.skipped:
            logits = self.ups[f"pool{n}"](logits)
            skip = self.skips[f"pool{n}"](self.factors[n] * maps[n - 1])
            logits = logits + _crop(skip, offsets[f"pool{n}"], spatial_size(logits))
        return _crop(self.last(logits), offsets["image"], spatial_size(image))

    def crop_offsets(self) -> dict[str, list[int]]:
        """Return how many cells of each skip, and voxels of the logits, lie before those used.

        All zero without the paper's padding.
        """
        names = [*(f"pool{n}" for n in self.skipped), "image"]
        offsets: dict[str, list[int]] = {name: [] for name in names}
        grids = [self.encoder.grids[n - 1] for n in self.skipped]
        for axis, coarse in enumerate(self.output_stride):
            # How many voxels before the image the scores begin; their cells' first voxels count.
            before = _MARGIN - self.fc_kernel // 2 * coarse
            for name, grid in zip(names, [*grids, (1,) * self.spatial_dims], strict=True):
                fine = grid[axis]
                before += coarse // fine // 2 * fine
                beyond = before if name == "image" else (_MARGIN - before) // fine
                offsets[name].append(beyond if self.paper_padding else 0)
                coarse = fine
        return offsets

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        fields = []
        scales = [*(self.encoder.halvings[n] for n in self.skipped), self.finest]
        for axis in range(self.spatial_dims):
            steps = [*self.encoder.steps(axis), Step(self.fc_kernel)]
            for scale in scales:
                if scale[axis] > 1:
                    # A tent of 2s taps: s copies, blurred by s + 1 taps.
                    steps += [Step(up=scale[axis]), Step(scale[axis] + 1)]
            fields.append(receptive_field(steps))
        return tuple(fields)


def _halvings(
    spatial_dims: int, spacing: Sequence[float] | None, patch_voxels: Sequence[int] | None
) -> tuple[tuple[int, ...], ...]:
    """Return five strides per axis: a thick axis is halved late, and none to less than two cells"""
    halvings = strides_from_spacing(spatial_dims, spacing, 5)
    if patch_voxels is None:
        return halvings
    cells = [float(n) for n in patch_voxels]
    kept = []
    for halving in halvings:
        kept.append(tuple(s if n >= 2 * s else 1 for s, n in zip(halving, cells, strict=True)))
        cells = [n / s for n, s in zip(cells, kept[-1], strict=True)]
    return tuple(kept)


def _zero_scores(spatial_dims: int, enters: int, out_channels: int) -> nn.Module:
    score = CONV[spatial_dims](enters, out_channels, 1)
    for weights in score.parameters():
        nn.init.zeros_(weights)
    return score


def _crop(features: Tensor, offset: Sequence[int], size: Sequence[int]) -> Tensor:
    for axis, (first, n) in enumerate(zip(offset, size, strict=True), start=2):
        features = features.narrow(axis, first, n)
    return features
