"""The classic U-Net.

A path of max-poolings sees ever larger surroundings on ever coarser grids; a path of
up-convolutions returns to the full grid, and is handed at each level the features that were there
on the way down.

Source: Ronneberger, Fischer & Brox, MICCAI 2015, arXiv:1505.04597; in 3D Cicek et al., MICCAI 2016,
arXiv:1606.06650.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import (
    CONV,
    MAX_POOL,
    UP_CONV,
    Norm,
    Step,
    crop_centre,
    crop_end,
    init_he,
    make_norm,
    mirror,
    pad_end,
    receptive_field,
    spatial_size,
    whole_cells,
)
from medseg.networks.topology import kernels_from_strides, strides_from_spacing


@NETWORKS.register("unet")
class UNetClassic(Network):
    """The U-Net of 2015, in 2D and 3D, with padded or valid convolutions.

    Differs from the paper by default: padded convolutions, a norm that trains with a batch of one,
    and fewer channels. :meth:`paper` is the published one.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, finest first; one pooling less than levels.
        padding: ``same`` pads every convolution with zeros. ``valid`` never does: the image is
            mirrored beyond its edges instead, so that overlapping tiles agree exactly.
        up: ``deconv`` learns the way up; ``linear`` interpolates, then mixes channels.
        norm: ``auto`` is a group norm; ``none`` as in the paper of 2015.
        dropout: Share of features dropped at the two deepest levels while training.
        doubling: Which convolution of a level doubles the channels: the first (2015), or the
            second (3D, 2016), whose up-convolutions then keep their channels.
        strides: One stride per axis, for each pooling; 2 by default. An axis that is not
            pooled yet has kernels of 1.
        spacing: Distance of neighbouring voxels per axis: gives the strides if these are not set.
        deep_supervision: Whether training returns the logits of the coarser levels, too.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: Fewer than two levels, strides that don't fit them, or deep supervision of
            valid convolutions, whose levels lie on grids of their own.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        padding: Literal["same", "valid"] = "same",
        up: Literal["deconv", "linear"] = "deconv",
        norm: Norm = "auto",
        dropout: float = 0.0,
        doubling: Literal["first", "second"] = "first",
        strides: Sequence[Sequence[int]] | None = None,
        spacing: Sequence[float] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        if len(channels) < 2:
            raise ValueError(f"a U-Net has two levels or more, got channels {tuple(channels)}")
        if deep_supervision and padding == "valid":
            raise ValueError('deep_supervision needs padding "same"')
        self.padding = padding
        self.deep_supervision = deep_supervision
        self.strides = _strides(spatial_dims, len(channels) - 1, strides, spacing)
        self.kernels = kernels_from_strides(self.strides)
        self.output_stride = tuple(prod(axis) for axis in zip(*self.strides, strict=True))

        conv = CONV[spatial_dims]
        before = [in_channels, *channels]
        self.down = nn.ModuleList()
        for level, (wide, kernel) in enumerate(zip(channels, self.kernels, strict=True)):
            first = wide if doubling == "first" else max(wide // 2, 1)
            drop = dropout if level >= len(channels) - 2 else 0.0
            block = _DoubleConv(spatial_dims, before[level], first, wide, kernel, padding, norm)
            self.down.append(nn.Sequential(block, nn.Dropout(drop)))
        self.pools = nn.ModuleList(MAX_POOL[spatial_dims](s) for s in self.strides)
        self.ups = nn.ModuleList()
        self.merge = nn.ModuleList()
        for level in reversed(range(len(channels) - 1)):
            wide, deep = channels[level], channels[level + 1]
            raised = wide if doubling == "first" else deep
            self.ups.append(_make_up(spatial_dims, deep, raised, self.strides[level], up))
            self.merge.append(
                _DoubleConv(
                    spatial_dims, wide + raised, wide, wide, self.kernels[level], padding, norm
                )
            )
        self.head = conv(channels[0], out_channels, 1)
        supervised = channels[1:-1] if deep_supervision else ()
        self.coarse_heads = nn.ModuleList(conv(wide, out_channels, 1) for wide in supervised)
        init_he(self)

    @classmethod
    def paper(cls, in_channels: int = 1, out_channels: int = 2, *, spatial_dims: int = 2) -> Self:
        """Return the published network: 31,030,658 parameters in 2D for 1 channel, 2 classes.

        In 3D 19,069,955 for 3 channels, 3 classes, by its authors' count, which leaves out the
        biases of the up-convolutions and the norms.
        """
        if spatial_dims == 3:
            return cls(
                3,
                in_channels,
                out_channels,
                channels=(64, 128, 256, 512),
                padding="valid",
                norm="batch",
                doubling="second",
            )
        return cls(
            spatial_dims,
            in_channels,
            out_channels,
            channels=(64, 128, 256, 512, 1024),
            padding="valid",
            norm="none",
            dropout=0.5,
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Four levels of 16 to 128 channels with group norm."""
        return {"channels": (16, 32, 64, 128)}

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits on the image's own grid; a list while training with deep supervision."""
        size = spatial_size(image)
        if self.padding == "valid":
            return crop_end(self.forward_valid(mirror(image, self.valid_margins(size))), size)
        coarse, fine = self._logits(pad_end(image, whole_cells(size, self.output_stride)))
        logits = crop_end(fine, size)
        if not (self.training and self.deep_supervision):
            return logits
        outputs = [logits]
        for level, aux in enumerate(reversed(coarse), start=1):
            stride = [prod(axis) for axis in zip(*self.strides[:level], strict=True)]
            outputs.append(crop_end(aux, [ceil(n / s) for n, s in zip(size, stride, strict=True)]))
        return outputs

    def forward_valid(self, image: Tensor) -> Tensor:
        """Return the logits of the inner voxels that valid convolutions reach, e.g. 572 -> 388.

        Raises:
            ValueError: ``padding`` is not ``valid``, or a level of this image cannot be halved.
        """
        if self.padding != "valid":
            raise ValueError('only a U-Net with padding "valid" has inner voxels')
        size = spatial_size(image)
        if any(not self._fits(n, axis) for axis, n in enumerate(size)):
            usable = [self._sizes(1, axis)[0] for axis in range(self.spatial_dims)]
            raise ValueError(
                f"image of {size} voxels: valid convolutions need {usable} voxels, and from there "
                f"on steps of {list(self.output_stride)}"
            )
        return self._logits(image)[1]

    def valid_margins(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """Return how far to mirror an image beyond each axis so that the output covers it."""
        margins = []
        for axis, n in enumerate(size):
            enters, leaves = self._sizes(n, axis)
            before = (enters - leaves) // 2
            margins.append((before, enters - before - n))
        return margins

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        fields = []
        for axis in range(self.spatial_dims):
            convs = [[Step(k[axis])] * 2 for k in self.kernels]
            steps = []
            for level, s in enumerate(self.strides):
                steps += [*convs[level], Step(s[axis], stride=s[axis])]
            steps += convs[-1]
            for level, s in reversed(list(enumerate(self.strides))):
                steps += [Step(up=s[axis]), *convs[level]]
            fields.append(receptive_field(steps))
        return tuple(fields)

    def _logits(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the supervised levels, coarsest first, and those of the finest."""
        features = self.down[0](image)
        kept = []
        for pool, down in zip(self.pools, list(self.down)[1:], strict=True):
            kept.append(features)
            features = down(pool(features))
        coarse = []
        deepest = len(self.ups) - 1
        for step, (up, merge) in enumerate(zip(self.ups, self.merge, strict=True)):
            raised = up(features)
            skip = crop_centre(kept.pop(), spatial_size(raised))
            features = merge(torch.cat([skip, raised], dim=1))
            if self.training and self.deep_supervision and step < deepest:
                coarse.append(self.coarse_heads[deepest - 1 - step](features))
        return coarse, self.head(features)

    def _sizes(self, n: int, axis: int) -> tuple[int, int]:
        """Return the voxels that enter and leave so that at least ``n`` leave, along an axis."""
        losses = [2 * (kernel[axis] - 1) for kernel in self.kernels]
        steps = [stride[axis] for stride in self.strides]
        cells = n
        for loss, step in zip(losses, steps, strict=False):
            cells = ceil((cells + loss) / step)
        leaves, enters = cells, cells + losses[-1]
        for loss, step in reversed(list(zip(losses, steps, strict=False))):
            leaves, enters = leaves * step - loss, enters * step + loss
        return enters, leaves

    def _fits(self, n: int, axis: int) -> bool:
        smallest = self._sizes(1, axis)[0]
        return n >= smallest and (n - smallest) % self.output_stride[axis] == 0


class _DoubleConv(nn.Sequential):
    """Twice: convolution, norm, ReLU."""

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        middle: int,
        leaves: int,
        kernel: Sequence[int],
        padding: str,
        norm: Norm,
    ) -> None:
        conv = CONV[spatial_dims]
        pad = tuple(k // 2 if padding == "same" else 0 for k in kernel)
        layers: list[nn.Module] = []
        for before, after in ((enters, middle), (middle, leaves)):
            layers += [
                conv(before, after, tuple(kernel), padding=pad),
                make_norm(spatial_dims, after, norm),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


def _make_up(
    spatial_dims: int, enters: int, leaves: int, stride: tuple[int, ...], up: str
) -> nn.Module:
    if up == "deconv":
        return UP_CONV[spatial_dims](enters, leaves, stride, stride=stride)
    mode = "bilinear" if spatial_dims == 2 else "trilinear"
    scale = tuple(float(s) for s in stride)
    return nn.Sequential(
        nn.Upsample(scale_factor=scale, mode=mode, align_corners=False),
        CONV[spatial_dims](enters, leaves, 1),
    )


def _strides(
    spatial_dims: int,
    poolings: int,
    strides: Sequence[Sequence[int]] | None,
    spacing: Sequence[float] | None,
) -> tuple[tuple[int, ...], ...]:
    if strides is None:
        return strides_from_spacing(spatial_dims, spacing, poolings)
    if len(strides) != poolings or any(len(s) != spatial_dims for s in strides):
        raise ValueError(
            f"strides are {poolings} (one less than channels) of {spatial_dims} numbers each, "
            f"got {[list(s) for s in strides]}"
        )
    return tuple(tuple(s) for s in strides)
