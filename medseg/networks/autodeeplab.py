"""Auto-DeepLab: the network that a search over cells and over resolutions found.

Every layer is the same small cell; the layers walk through the resolutions 1/4 to 1/32 along a
path that was searched, too. The search itself is in ``autodeeplab_search.py``.

Source: Liu et al., CVPR 2019, arXiv:1901.02985; what its text leaves open, as in the authors'
TensorFlow code (``research/deeplab/core/nas_network.py`` and ``nas_cell.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.networks.aspp import ASPP, context_rates
from medseg.networks.base import NETWORKS, Network
from medseg.networks.deeplabv3 import make_head
from medseg.networks.layers import (
    CONV,
    MAX_POOL,
    ByDimension,
    Norm,
    Step,
    conv_norm,
    crop_end,
    init_he,
    make_norm,
    pad_end,
    reach_back,
    resize_linear,
    spatial_size,
)
from medseg.networks.topology import kernels_from_strides, strides_from_spacing

Operation = Literal["sep3", "sep5", "atr3", "atr5", "avg3", "max3", "skip"]
Blocks = Sequence[Sequence[tuple[Operation, int]]]
OPERATIONS: tuple[Operation, ...] = ("sep3", "sep5", "atr3", "atr5", "avg3", "max3", "skip")
LEVELS = 4  # 1/4, 1/8, 1/16 and 1/32
_RATE = 2  # of the atrous operations
_AVG_POOL: ByDimension = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_POOLS = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


@dataclass(frozen=True)
class Genotype:
    """What a search finds: settings of :class:`AutoDeepLab`.

    Attributes:
        levels: The level of each layer: 0 for 1/4 of the resolution, up to 3 for 1/32.
        cell: Of each block, its two operations, each with the state that it reads: 0 is the layer
            before, 1 the layer before that, 2 the cell's first block, and so on. A block reads two
            different states.

    Raises:
        ValueError: The levels are no path of neighbours, or the blocks no cell.
    """

    levels: Sequence[int]
    cell: Blocks

    def __post_init__(self) -> None:
        for layer, (before, level) in enumerate(pairwise((0, *self.levels))):
            if not 0 <= level < LEVELS or abs(level - before) > 1:
                raise ValueError(
                    f"levels[{layer}] is {level} after {before}: levels are 0 to {LEVELS - 1}, "
                    f"start at 0 or 1, and change by one at most"
                )
        if not self.levels or not self.cell:
            raise ValueError("levels need a layer and cell a block, got none")
        for index, block in enumerate(self.cell):
            known = all(name in OPERATIONS and 0 <= state < index + 2 for name, state in block)
            if not known or len(block) != 2 or block[0][1] == block[1][1]:
                raise ValueError(
                    f"cell[{index}] is {list(block)}: a block has two operations out of "
                    f"{', '.join(OPERATIONS)}, on two different states of 0 to {index + 1}"
                )


CITYSCAPES_2019 = Genotype(
    levels=(0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1),
    cell=(
        (("atr5", 1), ("sep3", 0)),
        (("sep3", 1), ("atr3", 0)),
        (("sep3", 3), ("sep3", 1)),
        (("sep5", 4), ("sep5", 2)),
        (("sep5", 3), ("atr5", 5)),
    ),
)


@NETWORKS.register("autodeeplab")
class AutoDeepLab(Network):
    """The found network of Auto-DeepLab, or that of another genotype, in 2D and 3D.

    Differs from the paper: a norm that trains with a batch of one; context rates that shrink with
    the patch; a prefix of the path, an early map at stride 2 and a narrower stem on request; a 1x1
    convolution at every entry of a cell, also where the channels would fit without.

    The image pooling sees the whole input: tiles of an image, unlike the whole, give other logits.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        levels: The level of each layer, as in :class:`Genotype`; the published ones by default.
        cell: The blocks of every cell, as in :class:`Genotype`; the published ones by default.
        depth: Layers of the path to build, from its start; None for all.
        filter_multiplier: Channels of each block at 1/4 of the resolution, doubled with each level;
            20, 32 and 48 are published. A cell leaves one such group for each block.
        stem_channels: Channels of the stem's first two convolutions; the third has twice as many.
        aspp_rates: Dilations of the context branches. ``auto`` are 6, 12 and 18 at stride 16 on a
            map of 33 cells, and in proportion on that of ``patch_voxels``.
        aspp_channels: Channels of each context branch.
        image_pooling: Whether a context branch averages the whole image.
        low_level_channels: Channels that the decoder keeps of the early map.
        decoder_channels: Channels of the decoder's two convolutions.
        decoder_stride: Stride of the early map: 4 (the last layer before the path leaves 1/4) as
            published, or 2 (the stem) for small structures.
        norm: Norm after every convolution; ``auto`` is a group norm, ``batch`` that of the paper.
        dropout: Share of features dropped after the context while training.
        drop_path: Largest share of operations dropped while training: it grows with the layer, to
            this in the last one, and with the steps trained. 0 drops none.
        drop_path_steps: Training steps until ``drop_path`` is reached.
        patch_voxels: The training patch, for ``aspp_rates``.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late, and kernels
            are flat along it until then.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: The levels are no path of neighbours, the blocks no cell, the path has fewer
            layers than ``depth``, or ``drop_path`` is no share below 1.
    """

    trained_steps: Tensor

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        levels: Sequence[int] = CITYSCAPES_2019.levels,
        cell: Blocks = CITYSCAPES_2019.cell,
        depth: int | None = None,
        filter_multiplier: int = 8,
        stem_channels: int = 64,
        aspp_rates: Literal["auto"] | Sequence[int] = "auto",
        aspp_channels: int = 256,
        image_pooling: bool = True,
        low_level_channels: int = 48,
        decoder_channels: int = 256,
        decoder_stride: Literal[2, 4] = 4,
        norm: Norm = "auto",
        dropout: float = 0.1,
        drop_path: float = 0.0,
        drop_path_steps: int = 10_000,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.genotype = Genotype(levels, cell)
        if depth is not None and not 1 <= depth <= len(levels):
            raise ValueError(f"depth is 1 to the {len(levels)} layers of the path, got {depth}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is a share below 1, got {drop_path}")
        self.levels = tuple(levels[:depth])
        self.drop_path, self.drop_path_steps = drop_path, drop_path_steps
        if drop_path:
            self.register_buffer("trained_steps", torch.zeros((), dtype=torch.long))

        halvings = strides_from_spacing(spatial_dims, spacing, LEVELS + 1)
        kernels = kernels_from_strides(halvings)
        self.grids = grids_from_halvings(halvings)
        self.output_stride = self.grids[max(self.levels) + 2]
        self.stem = stem(spatial_dims, in_channels, stem_channels, halvings, norm)
        # Of the stem's two maps and each layer's: channels, and which of ``grids``.
        self.channels = [stem_channels, 2 * stem_channels]
        self.places = [1, 2, *(level + 2 for level in self.levels)]
        self.cells = nn.ModuleList()
        for layer, level in enumerate(self.levels):
            width = filter_multiplier * 2**level
            down = self.places[layer + 2] > self.places[layer + 1]
            built = Cell(
                spatial_dims,
                (self.channels[-1], self.channels[-2]),
                width,
                cell,
                kernel=kernels[level + 2],
                stride=halvings[level + 1] if down else (1,) * spatial_dims,
                norm=norm,
            )
            self.cells.append(built)
            self.channels.append(width * len(cell))

        leaves = next((i for i, level in enumerate(self.levels) if level), len(self.levels))
        self.low_level = 0 if decoder_stride == 2 else leaves + 1
        coarse = self.grids[self.places[-1]]
        self.aspp = ASPP(
            spatial_dims,
            self.channels[-1],
            aspp_channels,
            rates=context_rates(aspp_rates, 2 ** self.places[-1], coarse, patch_voxels),
            built_for=coarse,
            image_pooling=image_pooling,
            separable=False,
            norm=norm,
            dropout=dropout,
        )
        self.reduce = conv_norm(
            spatial_dims, self.channels[self.low_level], low_level_channels, 1, norm
        )
        self.decoder = nn.Sequential(
            conv_norm(spatial_dims, low_level_channels + aspp_channels, decoder_channels, 3, norm),
            conv_norm(spatial_dims, decoder_channels, decoder_channels, 3, norm),
        )
        init_he(self)
        self.head = make_head(spatial_dims, decoder_channels, out_channels)

    @classmethod
    def paper(
        cls, in_channels: int = 3, out_channels: int = 19, *, size: Literal["S", "M", "L"] = "S"
    ) -> Self:
        """Return the published 2D network, trained on crops of 769 voxels.

        For 3 channels and the 19 classes of Cityscapes, S has 10,147,427 parameters, M 21,622,451
        and L 44,424,691.

        The context rates at its stride 8, 12, 24 and 36, are our reading: the search has 96 over
        the stride, and DeepLab doubles its rates at stride 8.
        """
        width = {"S": 20, "M": 32, "L": 48}[size]
        return cls(2, in_channels, out_channels, filter_multiplier=width, norm="batch")

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """The first six layers, 8 (3D: 4) channels a block, and a decoder at stride 2."""
        width, patch = {2: (8, 192), 3: (4, 64)}[spatial_dims]
        return {
            "depth": 6,
            "filter_multiplier": width,
            "stem_channels": 2 * width,
            "aspp_channels": 8 * width,
            "low_level_channels": 2 * width,
            "decoder_channels": 8 * width,
            "decoder_stride": 2,
            "patch_voxels": (patch,) * spatial_dims,
        }

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        padded = pad_to_corners(image, self.output_stride)
        sizes = [cells_of(spatial_size(padded), grid) for grid in self.grids]
        maps = [self.stem[0](padded)]
        maps.append(self.stem[1](maps[0]))
        dropped = self._dropped()
        for layer, cell in enumerate(self.cells):
            size = sizes[self._entry(layer)]
            keep = 1 - dropped * (layer + 1) / len(self.cells)
            maps.append(cell(maps[-1], maps[-2], size, keep))
        context = self.aspp(maps[-1].relu())
        fine = self.reduce(maps[self.low_level])
        context = onto(context, spatial_size(fine))
        logits = self.head(self.decoder(torch.cat([fine, context], dim=1)))
        return crop_end(onto(logits, spatial_size(padded)), spatial_size(image))

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis, the image pooling aside."""
        fields = []
        for axis in range(self.spatial_dims):
            widest = 0
            for position in range(self.output_stride[axis]):
                first, last = self._seen(axis, position)
                widest = max(widest, last - first + 1)
            fields.append(widest)
        return tuple(fields)

    def _entry(self, layer: int) -> int:
        """Which of ``grids`` a cell's inputs are resized to; going down, the cell halves it."""
        return min(self.places[layer + 1], self.places[layer + 2])

    def _dropped(self) -> float:
        """Return the last layer's share of dropped operations in this step, and count the step."""
        if not (self.training and self.drop_path):
            return 0.0
        share = min(1.0, int(self.trained_steps) / self.drop_path_steps) * self.drop_path
        self.trained_steps += 1
        return share

    def _seen(self, axis: int, position: int) -> tuple[int, int]:
        """Follow one output voxel back along every path; return the first and last voxel."""
        stride = [grid[axis] for grid in self.grids]
        last_place, fine_place = self.places[-1], self.places[self.low_level]
        rates = [rate[axis] for rate in self.aspp.rates]
        fine = reach_back(
            [*[Step(3)] * 2, Step(up=stride[fine_place], blend=True)], position, position
        )
        context = [
            Step(3, dilation=max(rates, default=1)),
            _resizing(stride[last_place], stride[fine_place]),
        ]
        seen: dict[int, tuple[int, int]] = {self.low_level: fine}
        _include(seen, len(self.cells) + 1, reach_back(context, *fine))
        for layer, cell in reversed(list(enumerate(self.cells))):
            entered = cast(Cell, cell).seen(axis, seen[layer + 2])
            for index, reached in zip((layer + 1, layer), entered, strict=True):
                resize = _resizing(stride[self.places[index]], stride[self._entry(layer)])
                _include(seen, index, reach_back([resize], *reached))
        _include(seen, 0, reach_back(steps_of(self.stem[1], axis), *seen[1]))
        return reach_back(steps_of(self.stem[0], axis), *seen[0])


class Cell(nn.Module):
    """One layer: blocks that each add two operations, side by side in the output.

    Args:
        enters: Channels of the layer before, and of the layer before that.
        width: Channels of each block.
        blocks: Of each block, two operations with the states they read.
        kernel: 1 along the axes that kernels leave out, else 3.
        stride: What the operations on the cell's inputs divide the grid by.
    """

    def __init__(
        self,
        spatial_dims: int,
        enters: tuple[int, int],
        width: int,
        blocks: Blocks,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        norm: Norm,
    ) -> None:
        super().__init__()
        self.enter = nn.ModuleList(entry(spatial_dims, n, width, norm) for n in enters)
        self.reads = [pair for block in blocks for pair in block]
        self.operations = nn.ModuleList(
            operation(
                spatial_dims,
                name,
                width,
                kernel=kernel,
                stride=stride if state < 2 else (1,) * spatial_dims,
                norm=norm,
            )
            for name, state in self.reads
        )

    def forward(self, last: Tensor, before: Tensor, size: Sequence[int], keep: float) -> Tensor:
        """Return the blocks' outputs, joined along the channels.

        Args:
            last: Output of the layer before, on any grid.
            before: Output of the layer before that, on any grid.
            size: The spatial size that both are resized to.
            keep: Share of the operations that is kept, image by image.
        """
        states = [
            enter(onto(features, size))
            for enter, features in zip(self.enter, (last, before), strict=True)
        ]
        ends: list[Tensor] = []
        for (name, state), part in zip(self.reads, self.operations, strict=True):
            ends.append(drop_images(part(states[state]), keep if name != "skip" else 1.0))
            if len(ends) % 2 == 0:
                states.append(ends[-2] + ends[-1])
        return torch.cat(states[2:], dim=1)

    def seen(self, axis: int, output: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return which cells of its two inputs, as resized, the output's first..last cells see."""
        seen = dict.fromkeys(range(2, len(self.reads) // 2 + 2), output)
        for index in reversed(range(len(self.reads))):
            steps = steps_of(self.operations[index], axis)
            _include(seen, self.reads[index][1], reach_back(steps, *seen[index // 2 + 2]))
        return seen[0], seen[1]


class MeanPool(nn.Module):
    """The mean of what lies around a cell, without the zeros beyond the edge, as in TensorFlow.

    PyTorch's own 3D pooling refuses maps that are smaller than the kernel.
    """

    def __init__(self, spatial_dims: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.pool = _AVG_POOL[spatial_dims](kernel, stride)
        self.margins = [side for k in reversed(kernel) for side in (k // 2, k // 2)]

    def forward(self, features: Tensor) -> Tensor:
        """Return the means, on the grid that the stride leaves."""
        inside = F.pad(torch.ones_like(features[:1, :1]), self.margins)
        mean: Tensor = self.pool(F.pad(features, self.margins)) / self.pool(inside)
        return mean


def stem(
    spatial_dims: int,
    in_channels: int,
    channels: int,
    halvings: Sequence[tuple[int, ...]],
    norm: Norm,
) -> nn.ModuleList:
    """Return the layers to 1/2 and from there to 1/4 of the resolution; no ReLU at their ends."""
    kernels = kernels_from_strides(halvings)
    plain = (1,) * spatial_dims
    first, second, third = (
        _conv(spatial_dims, enters, leaves, kernel, stride, norm)
        for enters, leaves, kernel, stride in (
            (in_channels, channels, kernels[0], halvings[0]),
            (channels, channels, kernels[1], plain),
            (channels, 2 * channels, kernels[1], halvings[1]),
        )
    )
    half = nn.Sequential(first, make_norm(spatial_dims, channels, norm), nn.ReLU(inplace=True))
    half.extend([second, make_norm(spatial_dims, channels, norm)])
    quarter = nn.Sequential(nn.ReLU(), third, make_norm(spatial_dims, 2 * channels, norm))
    return nn.ModuleList([half, quarter])


def entry(spatial_dims: int, enters: int, width: int, norm: Norm) -> nn.Sequential:
    """Return ReLU, 1x1 convolution and norm: what an input of a cell passes first."""
    plain = (1,) * spatial_dims
    conv = _conv(spatial_dims, enters, width, plain, plain, norm)
    return nn.Sequential(nn.ReLU(), conv, make_norm(spatial_dims, width, norm))


def operation(
    spatial_dims: int,
    name: Operation,
    width: int,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    norm: Norm,
) -> nn.Module:
    """Return one operation of a cell, on ``width`` channels.

    ``sep``: ReLU, depthwise and 1x1 convolution, norm, all of it twice. ``atr``: ReLU, convolution
    at rate 2, norm. A strided ``atr`` halves its input and then convolves at rate 1: on grids of
    2 * k + 1 cells with aligned corners, a convolution of stride 2 and rate 2.
    """
    plain = (1,) * spatial_dims
    kind, reach = name[:3], 5 if name.endswith("5") else 3
    taps = tuple(reach if k == 3 else 1 for k in kernel)
    if kind == "sep":
        layers: list[nn.Module] = []
        for now in (stride, plain):
            layers += [
                nn.ReLU(),
                _conv(spatial_dims, width, width, taps, now, norm, groups=width),
                _conv(spatial_dims, width, width, plain, plain, norm),
                make_norm(spatial_dims, width, norm),
            ]
        return nn.Sequential(*layers)
    if kind == "atr":
        conv = _conv(spatial_dims, width, width, taps, stride, norm, dilation=_RATE)
        return nn.Sequential(nn.ReLU(), conv, make_norm(spatial_dims, width, norm))
    if kind == "avg":
        return MeanPool(spatial_dims, taps, stride)
    if kind == "max":
        return MAX_POOL[spatial_dims](taps, stride, tuple(k // 2 for k in taps))
    if max(stride) == 1:
        return nn.Identity()
    conv = _conv(spatial_dims, width, width, plain, stride, norm)
    return nn.Sequential(nn.ReLU(), conv, make_norm(spatial_dims, width, norm))


def grids_from_halvings(halvings: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the voxels per cell, per axis, before and after each halving."""
    grids = [(1,) * len(halvings[0])]
    for halving in halvings:
        grids.append(tuple(n * step for n, step in zip(grids[-1], halving, strict=True)))
    return grids


def pad_to_corners(image: Tensor, stride: Sequence[int]) -> Tensor:
    """Repeat the last voxels up to k * stride + 1 of them along each axis, k at least 1."""
    size = [
        max(ceil((n - 1) / s), 1) * s + 1 if s > 1 else n
        for n, s in zip(spatial_size(image), stride, strict=True)
    ]
    return pad_end(image, size)


def cells_of(size: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Return the cells of a grid whose first and last lie on an image's first and last voxel."""
    return tuple((n - 1) // step + 1 for n, step in zip(size, grid, strict=True))


def onto(features: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate linearly onto another size, with aligned corners, where it is another."""
    if spatial_size(features) == tuple(size):
        return features
    return resize_linear(features, size, align_corners=True)


def steps_of(part: nn.Module, axis: int) -> list[Step]:
    """Return the convolutions and poolings of a sequence along one axis."""
    steps = []
    for layer in part.modules():
        if isinstance(layer, _CONVOLUTIONS):
            kernel, stride, rate = layer.kernel_size, layer.stride, layer.dilation
            steps.append(Step(kernel[axis], stride[axis], rate[axis]))
        elif isinstance(layer, _POOLS):
            steps.append(Step(layer.kernel_size[axis], layer.stride[axis]))  # type: ignore[index]
    return steps


def _conv(
    spatial_dims: int,
    enters: int,
    leaves: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    norm: Norm,
    *,
    groups: int = 1,
    dilation: int = 1,
) -> nn.Module:
    return CONV[spatial_dims](
        enters,
        leaves,
        kernel,
        stride,
        padding=tuple(k // 2 * dilation for k in kernel),
        dilation=dilation,
        groups=groups,
        bias=norm == "none",
    )


def drop_images(features: Tensor, keep: float) -> Tensor:
    """Drop whole images of the batch at random, and enlarge the others to make up for them."""
    if keep == 1:
        return features
    kept = features.new_empty(features.shape[0], *[1] * (features.dim() - 1)).bernoulli_(keep)
    return features * (kept / keep)


def _resizing(coarse: int, fine: int) -> Step:
    """The step that resizes a grid of ``coarse`` voxels a cell onto one of ``fine``."""
    if fine > coarse:
        return Step(stride=fine // coarse)
    return Step(up=coarse // fine, blend=True)


def _include(seen: dict[int, tuple[int, int]], key: int, reached: tuple[int, int]) -> None:
    first, last = seen.get(key, reached)
    seen[key] = min(first, reached[0]), max(last, reached[1])
