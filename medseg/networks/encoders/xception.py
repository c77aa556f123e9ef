"""Aligned Xception in any dimension, whose output stride can be changed after training.

Every block is three separable 3x3 convolutions beside a bridge; a block that halves the grid does
so in its third convolution, where the original had a max-pooling. A block that keeps the grid
instead still has the previous rate itself, and all later ones the next: then the finer map, every
second cell of it taken, is the coarser map exactly, and the same weights serve both.

Source: Chollet, CVPR 2017, arXiv:1610.02357, as changed by Chen et al., ECCV 2018,
arXiv:1802.02611, in the form of their released code.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from medseg.networks.encoders.base import ENCODERS, Encoder, OutputStride, check_output_stride
from medseg.networks.layers import CONV, Norm, Step, init_he, make_norm
from medseg.networks.topology import kernels_from_strides

_PUBLISHED_WIDTH = 64


class Xception(Encoder):
    """An aligned Xception without its classifier.

    The map of a grid is what its last block makes of it before it is halved: the second of that
    block's convolutions, as the decoder of DeepLab V3+ reads it.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        middle: Number of the middle blocks; they lie on the grid of a 16th.
        deep_entry: Whether a block that keeps the grid follows each of the first two that halve it,
            as in Xception-71.
        width: Channels that leave the stem; all others are in proportion.
        norm: Norm after every convolution.
        strides: One stride per axis for each of the five halvings; 2 by default. An axis that is
            not halved yet has kernels of 1.
    """

    aligned_corners = True

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        middle: int,
        deep_entry: bool = False,
        width: int = _PUBLISHED_WIDTH,
        norm: Norm = "auto",
        strides: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.halvings = tuple(tuple(s) for s in strides or ((2,) * spatial_dims,) * 5)
        kernels = kernels_from_strides(self.halvings)
        half, wide = _scaled(32, width), _scaled(64, width)
        self.stem = nn.Sequential()
        for before, after in ((in_channels, half), (half, wide)):
            self.stem.append(_conv(spatial_dims, before, after, kernels[0], norm))
            self.stem.append(make_norm(spatial_dims, after, norm))
            self.stem.append(nn.ReLU(inplace=True))
        self.plan = _plan(middle, deep_entry)
        self.blocks = nn.ModuleList()
        maps = []
        enters, kernel = wide, kernels[0]
        for block in self.plan:
            halves = block.halving is not None
            kernel = kernel if block.halving is None else kernels[block.halving]
            leaves = [_scaled(n, width) for n in block.leaves]
            self.blocks.append(_Bridged(spatial_dims, enters, leaves, kernel, norm, halves=halves))
            if halves:
                maps.append(leaves[1])
            enters = leaves[-1]
        self.exit = nn.Sequential()
        for published in (1536, 1536, 2048):
            after = _scaled(published, width)
            for part in _separable(spatial_dims, enters, after, kernel, norm):
                self.exit.extend([*part, nn.ReLU(inplace=True)])
            enters = after
        self.channels = (*maps, enters)
        init_he(self)
        self.set_output_stride(32)

    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Halve down to ``output_stride``; see :class:`Encoder`."""
        check_output_stride(output_stride)
        one = tuple(1 for _ in self.halvings[0])
        first: Any = self.stem[0]
        first.stride = self.halvings[0]
        grid, rate = self.halvings[0], one
        self.grids = [grid]
        for plan, block in zip(self.plan, _blocks(self.blocks), strict=True):
            halving = one if plan.halving is None else self.halvings[plan.halving]
            halved = tuple(g * h for g, h in zip(grid, halving, strict=True))
            keeps = max(halved) > output_stride
            block.set_grid(stride=one if keeps else halving, rate=rate)
            if keeps:
                rate = tuple(r * h for r, h in zip(rate, halving, strict=True))
            else:
                grid = halved
            if plan.halving is not None:
                self.grids.append(grid)
        for conv in self._exit_convs():
            _dilate(conv, rate)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the last features of each grid, finest first."""
        features = self.stem(image)
        maps = []
        for plan, block in zip(self.plan, _blocks(self.blocks), strict=True):
            before, features = block(features)
            if plan.halving is not None:
                maps.append(before)
        return [*maps, self.exit(features)]

    def steps(self, axis: int) -> list[Step]:
        """Return the layers along one axis, for the receptive field."""
        convs: list[Any] = [layer for layer in self.stem if hasattr(layer, "kernel_size")]
        convs += [conv for block in _blocks(self.blocks) for conv in block.spatial]
        convs += self._exit_convs()
        return [
            Step(c.kernel_size[axis], stride=c.stride[axis], dilation=c.dilation[axis])
            for c in convs
        ]

    def _exit_convs(self) -> list[Any]:
        """Return the convolutions of the last, unbridged block that have a rate."""
        return list(self.exit)[::6]


class _BlockPlan(NamedTuple):
    leaves: tuple[int, int, int]  # channels after each convolution, at the published width
    halving: int | None = None  # which of the five halvings the block does


def _plan(middle: int, deep_entry: bool) -> list[_BlockPlan]:
    """Return the bridged blocks after the stem."""
    plan = [_BlockPlan((128,) * 3, halving=1)]
    if deep_entry:
        plan.append(_BlockPlan((256,) * 3))
    plan.append(_BlockPlan((256,) * 3, halving=2))
    if deep_entry:
        plan.append(_BlockPlan((728,) * 3))
    plan.append(_BlockPlan((728,) * 3, halving=3))
    plan += [_BlockPlan((728,) * 3)] * middle
    plan.append(_BlockPlan((728, 1024, 1024), halving=4))
    return plan


class _Bridged(nn.Module):
    """Three times ReLU and a separable convolution, beside a bridge.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels that enter.
        leaves: Channels after each convolution.
        kernel: Kernel of the convolutions in each channel, per axis.
        norm: Norm after every convolution.
        halves: Whether the block may halve the grid; its bridge is then a convolution, too.
    """

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        leaves: Sequence[int],
        kernel: tuple[int, ...],
        norm: Norm,
        *,
        halves: bool,
    ) -> None:
        super().__init__()
        one = (1,) * spatial_dims
        parts = []
        for before, after in zip((enters, *leaves), leaves, strict=False):
            each, across = _separable(spatial_dims, before, after, kernel, norm)
            # Not in place: the bridge reads the same features.
            parts.append(nn.Sequential(nn.ReLU(), *each, *across))
        self.early = nn.Sequential(*parts[:-1])
        self.last = parts[-1]
        self.spatial: list[Any] = [part[1] for part in parts]
        self.bridge = nn.Sequential()
        if halves or enters != leaves[-1]:
            self.bridge.append(_conv(spatial_dims, enters, leaves[-1], one, norm))
            self.bridge.append(make_norm(spatial_dims, leaves[-1], norm))

    def set_grid(self, *, stride: tuple[int, ...], rate: tuple[int, ...]) -> None:
        """Set the stride of the last convolution and of the bridge, and the dilation of all."""
        for conv in self.spatial:
            _dilate(conv, rate)
        for part in (self.spatial[-1], *self.bridge):
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                part.stride = stride

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features before the last convolution, and those that leave the block."""
        early = self.early(features)
        return early, self.last(early) + self.bridge(features)


def _blocks(blocks: nn.ModuleList) -> list[_Bridged]:
    return [block for block in blocks if isinstance(block, _Bridged)]


def _separable(
    spatial_dims: int, enters: int, leaves: int, kernel: tuple[int, ...], norm: Norm
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the convolution in each channel and the one across channels, with their norms."""
    one = (1,) * spatial_dims
    each = _conv(spatial_dims, enters, enters, kernel, norm, groups=enters)
    across = _conv(spatial_dims, enters, leaves, one, norm)
    return (
        [each, make_norm(spatial_dims, enters, norm)],
        [across, make_norm(spatial_dims, leaves, norm)],
    )


def _dilate(conv: Any, rate: tuple[int, ...]) -> None:
    conv.dilation = rate
    conv.padding = tuple(k // 2 * r for k, r in zip(conv.kernel_size, rate, strict=True))


def _scaled(channels: int, width: int) -> int:
    """Return the published channels in proportion to the width, as a multiple of 8."""
    return max(1, round(channels * width / _PUBLISHED_WIDTH / 8)) * 8


def _conv(
    spatial_dims: int,
    enters: int,
    leaves: int,
    kernel: tuple[int, ...],
    norm: Norm,
    groups: int = 1,
) -> nn.Module:
    padding = tuple(k // 2 for k in kernel)
    bias = norm == "none"
    return CONV[spatial_dims](enters, leaves, kernel, padding=padding, groups=groups, bias=bias)


for _name, _middle, _deep_entry, _width in (
    ("xception_s", 4, False, 32),
    ("xception65", 16, False, 64),
    ("xception71", 16, True, 64),
):
    ENCODERS.register(_name)(
        partial(Xception, middle=_middle, deep_entry=_deep_entry, width=_width)
    )
