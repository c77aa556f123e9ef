"""The sliding-window classifier, and the network that it is all along.

A small network of convolutions and poolings sees one patch and tells the class of the voxel in its
middle; sliding it over the image segments the image, with one pass per voxel. Neighbouring patches
share most of their work. Doing that once, on the whole image, gives the same logits: poolings move
by one voxel instead of two, and every later kernel is spread by two (dilated, "à trous").

Sources: Ciresan, Giusti, Gambardella & Schmidhuber, NIPS 2012, pages 2843-2851, for sliding
windows; Giusti et al., ICIP 2013, arXiv:1302.1700, and Li, Zhao & Wang, arXiv:1412.4526, for
computing them all at once.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import CONV, init_he, mirror, spatial_size
from medseg.networks.topology import strides_from_spacing

_CONVOLVE: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}
_MAX_POOL: dict[int, Callable[..., Tensor]] = {2: F.max_pool2d, 3: F.max_pool3d}


@NETWORKS.register("patch_classifier")
class PatchClassifier(Network):
    """A classifier of patches that labels every voxel by the patch around it.

    :meth:`forward` computes all patches at once, :meth:`predict_naive` one after the other; their
    logits agree to rounding, in training as well, except for what dropout draws. So it trains like
    any other network. It sees the patch and nothing else.

    For that, no norm may look beyond one voxel: a group or batch norm would see other voxels in a
    patch than in an image. ``position`` normalises the channels of each voxel by themselves.

    A patch keeps ``(n - kernel + 1) / 2`` of its n voxels at each level. The kernel is 3 or 4,
    whichever leaves an even number to pool; the last layer takes all that is left. The networks of
    2012 had larger kernels and patches.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        patch_size: Side of the patch in voxels, odd: along the finest axis if it is one number, and
            as long along the others; or one per axis.
        channels: Channels of each level: a convolution and a pooling.
        fc: Features of the layer that sees all that is left of the patch.
        norm: ``none``, or ``position``: of each voxel over its channels.
        dropout: Share of the last features dropped while training.
        checkpoint: Whether training keeps the inputs of the levels only, and computes what is
            between them again for the gradient: more time, less memory.
        spacing: Distance of neighbouring voxels per axis: thick slices are pooled late, or never.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits. Images are
        mirrored beyond their edges, to and fro where they are smaller than half a patch.

    Raises:
        ValueError: The patch is even, has other axes, or is too small for its poolings.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: int | Sequence[int] = 33,
        channels: Sequence[int] = (32, 32, 64),
        fc: int = 128,
        norm: Literal["none", "position"] = "none",
        dropout: float = 0.0,
        checkpoint: bool = False,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        lengths = tuple(spacing or (1.0,) * spatial_dims)
        if not channels:
            raise ValueError("channels has a number for each level, got none")
        strides = strides_from_spacing(spatial_dims, lengths, len(channels))
        self.patch_size = _patch(patch_size, lengths)
        axes = [
            _axis(n, [stride[axis] for stride in strides]) for axis, n in enumerate(self.patch_size)
        ]
        if not all(max(pooled) == 2 for pooled in zip(*(axis[1] for axis in axes), strict=True)):
            raise ValueError(
                f"a patch of {self.patch_size} voxels is too small for {len(channels)} poolings: "
                f"its finest axis needs {_smallest_patch(len(channels))}"
            )
        self.strides = list(zip(*(axis[1] for axis in axes), strict=True))
        self.checkpoint = checkpoint

        conv = CONV[spatial_dims]
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.rates = [(1,) * spatial_dims]  # of each level's convolution, and of the last layer's
        before = in_channels
        for level, wide in enumerate(channels):
            kernel = tuple(axis[0][level] for axis in axes)
            self.convs.append(conv(before, wide, kernel, dilation=self.rates[-1]))
            self.norms.append(PositionNorm(wide) if norm == "position" else nn.Identity())
            self.rates.append(
                tuple(r * s for r, s in zip(self.rates[-1], self.strides[level], strict=True))
            )
            before = wide
        rest = tuple(axis[2] for axis in axes)
        self.fc = conv(before, fc, rest, dilation=self.rates[-1])
        self.drop = nn.Dropout(dropout)
        self.head = conv(fc, out_channels, 1)
        init_he(self)

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Patches of 47 x 47 pixels, or of 19 x 19 x 19 voxels."""
        if spatial_dims == 2:
            return {"patch_size": 47}
        return {"patch_size": 19, "channels": (16, 32), "fc": 64}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid, all patches computed at once."""
        features = self._mirrored(image)
        for level in range(len(self.convs)):
            if self.training and self.checkpoint:
                features = recompute(self._level, features, level, use_reentrant=False)
            else:
                features = self._level(features, level)
        logits: Tensor = self.head(self.drop(torch.relu(self.fc(features))))
        return logits

    def predict_naive(self, image: Tensor, *, passes: int = 256) -> Tensor:
        """Return the same logits by one pass of :meth:`classify` per voxel, without gradient.

        Args:
            image: (batch, in_channels, *spatial).
            passes: Patches in memory at a time.
        """
        dims, size = self.spatial_dims, spatial_size(image)
        windows = self._mirrored(image)
        for axis, n in enumerate(self.patch_size, start=2):
            windows = windows.unfold(axis, n, 1)
        windows = windows.movedim(1, dims + 1)  # (batch, *spatial, in_channels, *patch), a view
        shape = (image.shape[0], *size)
        places = torch.arange(prod(shape), device=image.device)
        with torch.no_grad():
            classes = [
                self.classify(windows[torch.unravel_index(chosen, shape)])
                for chosen in torch.split(places, passes)
            ]
        return torch.cat(classes).reshape(*shape, self.out_channels).movedim(-1, 1)

    def classify(self, patches: Tensor) -> Tensor:
        """Return the logits of the voxels in the middle of patches.

        Args:
            patches: (n, in_channels, *patch_size).

        Returns:
            (n, out_channels).
        """
        convolve, pool = _CONVOLVE[self.spatial_dims], _MAX_POOL[self.spatial_dims]
        features = patches
        for conv, norm, stride in zip(self.convs, self.norms, self.strides, strict=True):
            features = convolve(features, conv.weight, conv.bias)
            features = torch.relu(pool(norm(features), stride))
        features = torch.relu(convolve(features, self.fc.weight, self.fc.bias))
        logits: Tensor = self.head(self.drop(features))
        return logits.flatten(1)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the patch: no output voxel sees more, or less."""
        return self.patch_size

    def _mirrored(self, image: Tensor) -> Tensor:
        return mirror(image, [(n // 2, n // 2) for n in self.patch_size])

    def _level(self, features: Tensor, level: int) -> Tensor:
        """Return one level of all patches: pooling by one voxel, over what lies ``rates`` apart."""
        features = self.norms[level](self.convs[level](features))
        apart = zip(self.strides[level], self.rates[level], strict=True)
        for axis, (stride, rate) in enumerate(apart, start=2):
            if stride == 2:
                n = features.shape[axis] - rate
                # Not a dilated max-pooling: that keeps a 64-bit index for each number.
                features = torch.maximum(
                    features.narrow(axis, 0, n), features.narrow(axis, rate, n)
                )
        return torch.relu(features)


class PositionNorm(nn.Module):
    """Normalises the channels of each voxel to mean 0 and variance 1, then scales and shifts them.

    Shape:
        (batch, channels, *spatial), kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features."""
        normed: Tensor = self.norm(features.movedim(1, -1))
        return normed.movedim(-1, 1)


def _patch(patch_size: int | Sequence[int], lengths: Sequence[float]) -> tuple[int, ...]:
    """Return the patch per axis: of odd sides, as near as these can be to equally long ones."""
    if isinstance(patch_size, int):
        shares = [min(lengths) / length for length in lengths]
        sides = [patch_size if s == 1 else 2 * round((patch_size * s - 1) / 2) + 1 for s in shares]
    else:
        sides = list(patch_size)
    if len(sides) != len(lengths) or any(n < 1 or n % 2 == 0 for n in sides):
        raise ValueError(
            f"patch_size is an odd number of voxels, or {len(lengths)} of them, so that one voxel "
            f"is in the middle; got {patch_size}"
        )
    return tuple(sides)


def _axis(n: int, strides: Sequence[int]) -> tuple[list[int], list[int], int]:
    """Return the kernels, the strides and what is left of a patch of ``n`` voxels along an axis.

    An axis that is not pooled has kernels of 1, and is not pooled with fewer than 4 voxels left.
    """
    kernels, steps = [], []
    for stride in strides:
        pooled = stride == 2 and n >= 4
        kernels.append((4 if n % 2 else 3) if pooled else 1)
        steps.append(2 if pooled else 1)
        n = (n - kernels[-1] + 1) // steps[-1]
    return kernels, steps, n


def _smallest_patch(poolings: int) -> int:
    """Return the least odd side that lasts: one cell is left after the last pooling."""
    cells = 1
    for _ in range(poolings - 1):
        cells = 2 * cells + 2
    return 2 * cells + 3
