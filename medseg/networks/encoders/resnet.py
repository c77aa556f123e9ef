"""Residual encoders in any dimension, whose output stride can be changed after training.

A stage that would halve the grid can keep it and dilate its kernels instead. Its first block still
has the previous stage's rate: then the finer map, every second cell of it taken, is the coarser
map exactly, and the same weights serve both.

Source: He et al., CVPR 2016, arXiv:1512.03385; stride in the 3x3 convolution of a bottleneck, as in
torchvision. Dilation: Chen et al., arXiv:1706.05587.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medseg.networks.encoders.base import ENCODERS, Encoder, OutputStride, check_output_stride
from medseg.networks.layers import CONV, MAX_POOL, Norm, Step, init_he, make_norm
from medseg.networks.topology import kernels_from_strides


class ResNet(Encoder):
    """A residual network without its classifier.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        blocks: Number of residual blocks of each of the four stages.
        bottleneck: Whether a block is 1x1, 3x3, 1x1 convolutions with four times the channels,
            instead of two 3x3.
        width: Channels of the stem, and of the first stage's 3x3 convolutions; the other stages'
            have 2, 4 and 8 times as many.
        norm: Norm after every convolution.
        strides: One stride per axis for each of the five halvings; 2 by default. An axis that is
            not halved yet has kernels of 1.
        multi_grid: Factors of the dilations of the last stage's blocks.
        deep_stem: Whether three 3x3 convolutions, the last of twice the width, stand for the 7x7.

    Raises:
        ValueError: No factor in ``multi_grid``, or one below 1.
    """

    aligned_corners = True

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        bottleneck: bool,
        width: int = 64,
        norm: Norm = "auto",
        strides: Sequence[Sequence[int]] | None = None,
        multi_grid: Sequence[int] = (1, 1, 1),
        deep_stem: bool = False,
    ) -> None:
        super().__init__()
        self.halvings = tuple(tuple(s) for s in strides or ((2,) * spatial_dims,) * 5)
        self.multi_grid = tuple(multi_grid)
        if min(self.multi_grid, default=0) < 1:
            raise ValueError(
                f"multi_grid is one or more factors of 1 and up, got {list(self.multi_grid)}"
            )
        kernels = kernels_from_strides(self.halvings)
        pool_kernel = tuple(3 if s > 1 else 1 for s in self.halvings[1])
        wide = tuple(7 if k > 1 else 1 for k in kernels[0])
        one = (1,) * spatial_dims
        plan = [(width, wide, self.halvings[0])]
        if deep_stem:
            plan = [(width, kernels[0], self.halvings[0])]
            plan += [(width, kernels[0], one), (2 * width, kernels[0], one)]
        self.stem = nn.Sequential()
        enters = in_channels
        for leaves, kernel, stride in plan:
            self.stem.append(_conv(spatial_dims, enters, leaves, kernel, stride, norm))
            self.stem.append(make_norm(spatial_dims, leaves, norm))
            self.stem.append(nn.ReLU(inplace=True))
            enters = leaves
        self.pool = MAX_POOL[spatial_dims](
            pool_kernel, stride=self.halvings[1], padding=tuple(k // 2 for k in pool_kernel)
        )
        self.stages = nn.ModuleList()
        stem_channels = enters
        expansion = 4 if bottleneck else 1
        for number, count in enumerate(blocks):
            inner = width * 2**number
            stage = nn.ModuleList()
            for _ in range(count):
                stage.append(
                    _Block(
                        spatial_dims, enters, inner, inner * expansion, kernels[number + 1], norm
                    )
                )
                enters = inner * expansion
            self.stages.append(stage)
        self.channels = (stem_channels, *(width * 2**n * expansion for n in range(len(blocks))))
        init_he(self)
        self.set_output_stride(32)

    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Halve down to ``output_stride``; see :class:`Encoder`."""
        check_output_stride(output_stride)
        axes = range(len(self.halvings[0]))
        self.grids = [self.halvings[0]]
        grid = tuple(a * b for a, b in zip(*self.halvings[:2], strict=True))
        rate = tuple(1 for _ in axes)
        for number, stage in enumerate(self.stages):
            halving = self.halvings[number + 1] if number else tuple(1 for _ in axes)
            halved = tuple(g * h for g, h in zip(grid, halving, strict=True))
            keeps = max(halved) > output_stride
            before = rate
            if keeps:
                rate = tuple(r * h for r, h in zip(rate, halving, strict=True))
            else:
                grid = halved
            for place, block in enumerate(_blocks(stage)):
                factor = 1
                if number == len(self.stages) - 1:
                    factor = self.multi_grid[place % len(self.multi_grid)]
                first = place == 0
                block.set_grid(
                    stride=halving if first and not keeps else tuple(1 for _ in axes),
                    entry=tuple(factor * r for r in (before if first else rate)),
                    rate=tuple(factor * r for r in rate),
                )
            self.grids.append(grid)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of the stem and of the four stages, finest first."""
        features = self.stem(image)
        maps = [features]
        features = self.pool(features)
        for stage in self.stages:
            for block in _blocks(stage):
                features = block(features)
            maps.append(features)
        return maps

    def steps(self, axis: int) -> list[Step]:
        """Return the layers along one axis, for the receptive field."""
        convs: list[Any] = [layer for layer in self.stem if hasattr(layer, "kernel_size")]
        steps = [Step(c.kernel_size[axis], stride=c.stride[axis]) for c in convs]
        pool = self.halvings[1][axis]
        steps.append(Step(3 if pool > 1 else 1, stride=pool))
        for stage in self.stages:
            for block in _blocks(stage):
                steps += [
                    Step(c.kernel_size[axis], stride=c.stride[axis], dilation=c.dilation[axis])
                    for c in block.spatial
                ]
        return steps


class _Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck if it has other channels inside."""

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        inner: int,
        leaves: int,
        kernel: tuple[int, ...],
        norm: Norm,
    ) -> None:
        super().__init__()
        one = (1,) * spatial_dims
        plan = [(enters, inner, kernel), (inner, leaves, kernel)]
        if inner != leaves:
            plan = [(enters, inner, one), (inner, inner, kernel), (inner, leaves, one)]
        layers: list[nn.Module] = []
        self.spatial: list[Any] = []  # the convolutions that have a stride or a rate
        for before, after, size in plan:
            conv = _conv(spatial_dims, before, after, size, one, norm)
            layers += [conv, make_norm(spatial_dims, after, norm), nn.ReLU(inplace=True)]
            if size is kernel:
                self.spatial.append(conv)
        self.body = nn.Sequential(*layers[:-1])
        # Strides change only where channels do, too.
        self.bridge = nn.Sequential()
        if enters != leaves:
            self.bridge.append(_conv(spatial_dims, enters, leaves, one, one, norm))
            self.bridge.append(make_norm(spatial_dims, leaves, norm))

    def set_grid(
        self, *, stride: tuple[int, ...], entry: tuple[int, ...], rate: tuple[int, ...]
    ) -> None:
        """Set the stride, the first convolution's dilation and that of those after it."""
        for place, conv in enumerate(self.spatial):
            conv.stride = stride if place == 0 else tuple(1 for _ in stride)
            conv.dilation = entry if place == 0 else rate
            conv.padding = tuple(
                k // 2 * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True)
            )
        for part in self.bridge:
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                part.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Return the features with what the block adds to them."""
        return torch.relu(self.body(features) + self.bridge(features))


def _blocks(stage: nn.Module) -> list[_Block]:
    return [block for block in stage.children() if isinstance(block, _Block)]


def _conv(
    spatial_dims: int,
    enters: int,
    leaves: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    norm: Norm,
) -> nn.Module:
    padding = tuple(k // 2 for k in kernel)
    bias = norm == "none"
    return CONV[spatial_dims](enters, leaves, kernel, stride=stride, padding=padding, bias=bias)


for _name, _counts, _is_bottleneck in (
    ("resnet10", (1, 1, 1, 1), False),
    ("resnet18", (2, 2, 2, 2), False),
    ("resnet34", (3, 4, 6, 3), False),
    ("resnet50", (3, 4, 6, 3), True),
    ("resnet101", (3, 4, 23, 3), True),
    ("resnet152", (3, 8, 36, 3), True),
):
    ENCODERS.register(_name)(partial(ResNet, blocks=_counts, bottleneck=_is_bottleneck))
