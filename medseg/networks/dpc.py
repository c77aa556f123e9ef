"""The dense prediction cell: a context found by searching, in place of DeepLab's pyramid.

Each branch reads the features or an earlier branch, by an atrous separable convolution with a rate
of its own along each axis, by a 1x1 convolution, or by averages over a coarse grid.

Source: Chen et al., NeurIPS 2018, arXiv:1809.04184; the cell is the best of their search on
Cityscapes, as released.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg.errors import nearest
from medseg.networks.aspp import pooled_conv, rescaled, scaled_to_patch
from medseg.networks.layers import (
    Norm,
    Step,
    bin_means,
    conv_norm,
    resize_linear,
    spatial_conv,
    spatial_size,
)

_RATES = (1, 3, 6, 9, 12, 15, 18, 21)  # at output stride 16
_GRIDS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Branch:
    """One branch of a cell; without rates and grid it is a 1x1 convolution.

    Args:
        source: What it reads: -1 for the features, else the number of an earlier branch.
        rates: Dilations of a separable 3x3 convolution along each axis, at output stride 16.
        grid: Cells along each axis over which it averages.
    """

    source: int
    rates: tuple[int, ...] | None = None
    grid: tuple[int, ...] | None = None


CITYSCAPES_TOP1 = (
    Branch(-1, rates=(1, 6)),
    Branch(0, rates=(18, 15)),
    Branch(1, rates=(6, 3)),
    Branch(0, rates=(1, 1)),
    Branch(0, rates=(6, 21)),
)


class DPCHead(nn.Module):
    """A dense prediction cell: all branches beside each other, and a 1x1 convolution over them.

    Differs from the paper: rates that shrink with the patch, and a third rate in 3D: a cell with
    two rates a branch gets the lesser of the two along the first axis.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels of the features.
        channels: Channels of each branch, and of the result.
        cell: The branches, in order.
        finest_stride: Output stride along the finest axes.
        built_for: Output stride, per axis, at which rates are rounded to whole cells; the branches
            are dilated for it until :meth:`set_output_stride` says another.
        patch_voxels: The training patch; None for the published rates.
        norm: Norm after every convolution.
        dropout: Share of the branches' features dropped while training.

    Raises:
        ValueError: A branch reads itself or a later one, or has rates for other axes or below 1.
    """

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        channels: int = 256,
        *,
        cell: Sequence[Branch] = CITYSCAPES_TOP1,
        finest_stride: int = 16,
        built_for: tuple[int, ...],
        patch_voxels: Sequence[int] | None = None,
        norm: Norm = "auto",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.built_for = built_for
        self.sources = [branch.source for branch in cell]
        self.built_rates: list[tuple[int, ...] | None] = []
        self.branches = nn.ModuleList()
        for number, branch in enumerate(cell):
            _check(branch, number, spatial_dims, f"branch {number}")
            wide = enters if branch.source < 0 else channels
            rates = None
            part: nn.Module
            if branch.rates is not None:
                part = spatial_conv(spatial_dims, wide, channels, norm, separable=True)
                wanted = _for_dimension(branch.rates, spatial_dims)
                rates = scaled_to_patch(wanted, finest_stride, built_for, patch_voxels)
            elif branch.grid is not None:
                grid = _for_dimension(branch.grid, spatial_dims)
                part = _Averages(spatial_dims, wide, channels, grid, norm)
            else:
                part = conv_norm(spatial_dims, wide, channels, 1, norm)
            self.branches.append(part)
            self.built_rates.append(rates)
        self.project = nn.Sequential(
            nn.Dropout(dropout),
            conv_norm(spatial_dims, len(cell) * channels, channels, 1, norm),
        )
        self.set_output_stride(built_for)

    def set_output_stride(self, output_stride: tuple[int, ...]) -> None:
        """Dilate so that the branches reach as far in voxels as at the stride built for."""
        self.rates = [
            None if rate is None else rescaled(rate, self.built_for, output_stride)
            for rate in self.built_rates
        ]
        for branch, rate in zip(self.branches, self.rates, strict=True):
            if rate is not None:
                dilated = next(branch.children())
                dilated.dilation = dilated.padding = rate  # type: ignore[assignment]

    def forward(self, features: Tensor) -> Tensor:
        """Return the context of every cell, on the same grid."""
        outputs: list[Tensor] = []
        for source, branch in zip(self.sources, self.branches, strict=True):
            outputs.append(branch(features if source < 0 else outputs[source]))
        projected: Tensor = self.project(torch.cat(outputs, dim=1))
        return projected

    def steps(self, axis: int) -> list[Step]:
        """Return the widest path along one axis, for the receptive field; averages aside."""
        paths: list[list[int]] = []
        for source, rate in zip(self.sources, self.rates, strict=True):
            before = [] if source < 0 else paths[source]
            paths.append(before if rate is None else [*before, rate[axis]])
        return [Step(3, dilation=rate) for rate in max(paths, key=sum)]


class _Averages(nn.Module):
    """Averages over a coarse grid, a 1x1 convolution, and back onto the features' grid."""

    def __init__(
        self, spatial_dims: int, enters: int, leaves: int, grid: tuple[int, ...], norm: Norm
    ) -> None:
        super().__init__()
        self.grid = grid
        self.pooled = pooled_conv(spatial_dims, enters, leaves, norm)

    def forward(self, features: Tensor) -> Tensor:
        size = spatial_size(features)
        cells = tuple(min(wanted, n) for wanted, n in zip(self.grid, size, strict=True))
        averages = self.pooled(bin_means(features, cells))
        return resize_linear(averages, size, align_corners=False)


def cell_from_settings(cell: Sequence[Mapping[str, Any]], spatial_dims: int) -> tuple[Branch, ...]:
    """Return the cell that a job describes.

    Args:
        cell: For each branch what :class:`Branch` has, e.g. ``{"source": -1, "rates": [1, 6]}``.
        spatial_dims: 2 for slices, 3 for volumes.

    Raises:
        ValueError: No branch, or one that has another key or cannot be; says which.
    """
    if not cell:
        raise ValueError("context_cell has one branch or more, got none")
    known = [field.name for field in fields(Branch)]
    branches = []
    for number, given in enumerate(cell):
        where = f"context_cell[{number}]"
        for key in given:
            if key not in known:
                raise ValueError(f"{where}.{key}: a branch has no such key{nearest(key, known)}")
        if "source" not in given:
            raise ValueError(f"{where} needs a source: -1 (the features) or an earlier branch")
        kept: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        branch = Branch(**kept)
        _check(branch, number, spatial_dims, where)
        branches.append(branch)
    return tuple(branches)


def sample_dpc_cell(
    rng: np.random.Generator, branches: int = 5, spatial_dims: int = 2
) -> tuple[Branch, ...]:
    """Return a cell drawn from the paper's space; with three axes, from its extension to 3D."""
    kinds = _operations(spatial_dims)
    cell = []
    for number in range(branches):
        source = int(rng.integers(number + 1)) - 1
        rates, grid = kinds[int(rng.integers(len(kinds)))]
        cell.append(Branch(source, rates, grid))
    return tuple(cell)


def dpc_cells(branches: int = 5, spatial_dims: int = 2) -> int:
    """Return how many cells there are to draw from: 4.2e11 of five branches in 2D."""
    cells: int = factorial(branches) * len(_operations(spatial_dims)) ** branches
    return cells


def _operations(
    spatial_dims: int,
) -> list[tuple[tuple[int, ...] | None, tuple[int, ...] | None]]:
    """Return what a branch may do, as its rates and its grid; neither is a 1x1 convolution."""
    return [
        (None, None),
        *((rates, None) for rates in product(_RATES, repeat=spatial_dims)),
        *((None, grid) for grid in product(_GRIDS, repeat=spatial_dims)),
    ]


def _for_dimension(numbers: tuple[int, ...], spatial_dims: int) -> tuple[int, ...]:
    return numbers if len(numbers) == spatial_dims else (min(numbers), *numbers)


def _check(branch: Branch, number: int, spatial_dims: int, where: str) -> None:
    if not isinstance(branch.source, int) or not -1 <= branch.source < number:
        raise ValueError(
            f"{where} reads -1 (the features) or an earlier branch, got {branch.source!r}"
        )
    if branch.rates is not None and branch.grid is not None:
        raise ValueError(f"{where} has rates or a grid, not both")
    numbers = branch.grid if branch.rates is None else branch.rates
    if numbers is None:
        return
    if not isinstance(numbers, tuple) or len(numbers) not in (2, spatial_dims):
        raise ValueError(f"{where} has numbers for {spatial_dims} axes or 2, got {numbers}")
    if any(not isinstance(n, int) or n < 1 for n in numbers):
        raise ValueError(f"{where} has whole numbers of 1 and up, got {numbers}")
