"""An image on another grid: turned to one orientation, and with voxels of another size."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import SpatialResample
from nibabel.orientations import (
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from torch import Tensor

from medseg.geometry import Grid
from medseg.transforms.normalisation import plain

Order = Literal["nearest", "linear", "cubic"]

# Array axes (z, y, x) point to the head, the front and the right: x, y, z are then RAS+, which is
# also how a grid without orientation is placed in the world.
CANONICAL = "SAR"
# Beyond this ratio of spacings, slices are too far apart to be mixed (nnU-Net).
ANISOTROPIC = 3.0
_MODES: dict[Order, tuple[str | int, str]] = {
    "nearest": ("nearest", "border"),
    "linear": ("bilinear", "border"),
    "cubic": (3, "nearest"),  # scipy's name for repeating the border
}
# SpatialResample holds coordinates of every output voxel: 24 bytes for each. Slabs bound that.
_SLAB_VOXELS = 2**23


def turn_to_canonical(grid: Grid) -> NDArray[np.float64]:
    """Return the turn (nibabel's: new axis and sign of each array axis) that makes a grid "SAR".

    nibabel's functions, which MONAI's ``Orientation`` calls too, are used directly so that a turn
    can be undone exactly even where an axis lies at 45 degrees.
    """
    now = io_orientation(grid.affine)  # type: ignore[no-untyped-call]  # nibabel has few types
    wanted = axcodes2ornt(CANONICAL)  # type: ignore[no-untyped-call]
    turn: NDArray[np.float64] = ornt_transform(now, wanted)  # type: ignore[no-untyped-call]
    return turn


def turned_grid(grid: Grid, turn: NDArray[np.float64]) -> Grid:
    """Return the grid of the turned image; every voxel keeps its place in the world."""
    n = grid.spatial_dims
    order = np.argsort(turn[:, 0])
    affine = grid.affine @ inv_ornt_aff(turn, grid.shape)  # type: ignore[no-untyped-call]
    spacing = tuple(grid.spacing[i] for i in order)
    direction = affine[:n, :n] / np.array(spacing)
    return replace(
        grid,
        shape=tuple(grid.shape[i] for i in order),
        spacing=spacing,
        origin=tuple(map(float, affine[:n, n])),
        direction=tuple(tuple(map(float, row)) for row in direction),
    )


def turn(image: Tensor, by: NDArray[np.float64]) -> Tensor:
    """Turn an image (channels, *spatial), without changing a value."""
    flipped = [1 + axis for axis, sign in enumerate(by[:, 1]) if sign < 0]
    return image.flip(flipped).permute(0, *(1 + np.argsort(by[:, 0])).tolist())


def turn_back(image: Tensor, by: NDArray[np.float64]) -> Tensor:
    """Undo :func:`turn`."""
    flipped = [1 + axis for axis, sign in enumerate(by[:, 1]) if sign < 0]
    return image.permute(0, *(1 + by[:, 0].astype(int)).tolist()).flip(flipped)


def respaced_grid(grid: Grid, spacing: tuple[float, ...], *, tolerance: float = 0.01) -> Grid:
    """Return a grid of the given spacing with the same centre and, to half a voxel, extent.

    Args:
        grid: The image's grid.
        spacing: Wanted spacing, array order, in the grid's unit.
        tolerance: An axis whose spacing differs by less than this share keeps its own voxels.
    """
    wanted = tuple(
        own if abs(new / own - 1) <= tolerance else new
        for own, new in zip(grid.spacing, spacing, strict=True)
    )
    if wanted == grid.spacing:
        return grid
    shape = tuple(
        max(1, round(n * own / new))
        for n, own, new in zip(grid.shape, grid.spacing, wanted, strict=True)
    )
    target = grid.with_shape_and_spacing(shape, wanted)
    _, offset = _steps(grid, target)
    origin = grid.affine[:-1] @ np.array([*offset, 1.0])
    return replace(target, origin=tuple(map(float, origin)))


def resample(image: Tensor, source: Grid, target: Grid, order: Order) -> Tensor:
    """Interpolate an image at the voxels of a grid with the same centre and orientation.

    Args:
        image: (channels, *source.shape), floating point.
        source: Its grid.
        target: The grid wanted, from :func:`respaced_grid` of the source, or the other way.
        order: Interpolation; outside the image its border is repeated.

    Returns:
        (channels, *target.shape), float32; the image itself if no voxel moves.
    """
    step, offset = _steps(source, target)
    if source.shape == target.shape and step == (1.0,) * len(step):
        return image
    mode, padding = _MODES[order]
    along = SpatialResample(mode=mode, padding_mode=padding, dtype="float32")
    rest = math.prod(target.shape[1:]) * len(image)
    # A spline is fitted to the whole image each time, so cubic interpolation goes in one piece.
    rows = target.shape[0] if order == "cubic" else max(1, _SLAB_VOXELS // rest)
    affine = torch.diag(torch.tensor([*step, 1.0], dtype=torch.float64))
    affine[:-1, -1] = torch.tensor(offset, dtype=torch.float64)
    slabs = []
    for first in range(0, target.shape[0], rows):
        here = affine.clone()
        here[0, -1] += first * step[0]
        shape = (min(rows, target.shape[0] - first), *target.shape[1:])
        slabs.append(plain(along(MetaTensor(image), dst_affine=here, spatial_size=shape)))
    return torch.cat(slabs, dim=1)


def resample_by_slice(image: Tensor, source: Grid, target: Grid, order: Order) -> Tensor:
    """Interpolate within the slices of an anisotropic image, and pick the nearest slice.

    Values of slices that lie far apart would mix different anatomy. Where no single axis is more
    than three times as coarse as the finest, on either grid, this is :func:`resample`.

    Source:
        nnU-Net's ``default_resampling`` (threshold 3, order 0 across slices).
    """
    coarse = _coarse_axis(source)
    if coarse is None:
        coarse = _coarse_axis(target)
    if coarse is None:
        return resample(image, source, target, order)
    between = _with_axis_of(target, source, coarse)
    return resample(resample(image, source, between, order), between, target, "nearest")


def resample_labels(labels: Tensor, source: Grid, target: Grid, *, most: int = 256) -> Tensor:
    """Interpolate the mask of each label, and give each voxel the label with the largest share.

    Borders come out smooth and unshifted, unlike with the nearest neighbour. The nearest voxel
    decides a tie: spacings 1.5 or 2 times as large put voxels halfway between others, and leaving
    ties to the background takes 3 % of the volume of a ball 40 voxels wide.

    Args:
        labels: (1, *source.shape), integers.
        source: Their grid.
        target: The grid wanted.
        most: Images of more labels, as of many instances, take the nearest neighbour: the masks
            are computed one by one.

    Returns:
        (1, *target.shape), of the labels' type.
    """
    if source == target:
        return labels
    values = torch.unique(labels)
    index = torch.searchsorted(values, labels).float()  # exact in float32, as ids are not
    nearest: Tensor = values[resample(index, source, target, "nearest").long()]
    if len(values) > most:
        return nearest
    best = torch.zeros((1, *target.shape))
    result = nearest.clone()
    for value in values.tolist():
        share = resample_by_slice((labels == value).float(), source, target, "linear")
        share += 1e-4 * (nearest == value)  # more than rounding, less than any real difference
        wins = share > best
        result[wins] = value
        torch.where(wins, share, best, out=best)
    return result


def _steps(source: Grid, target: Grid) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return step and offset of the target's voxels in the source's indices; centres agree."""
    step = tuple(t / s for s, t in zip(source.spacing, target.spacing, strict=True))
    offset = tuple(
        (n - 1 - by * (m - 1)) / 2
        for n, m, by in zip(source.shape, target.shape, step, strict=True)
    )
    return step, offset


def _coarse_axis(grid: Grid) -> int | None:
    """Return the one axis that is far coarser than the finest, if there is exactly one."""
    coarse = [i for i, s in enumerate(grid.spacing) if s > ANISOTROPIC * min(grid.spacing)]
    return coarse[0] if len(coarse) == 1 else None


def _with_axis_of(grid: Grid, other: Grid, axis: int) -> Grid:
    def mixed(own: tuple[float, ...], theirs: tuple[float, ...]) -> tuple[float, ...]:
        return (*own[:axis], theirs[axis], *own[axis + 1 :])

    shape = (*grid.shape[:axis], other.shape[axis], *grid.shape[axis + 1 :])
    return grid.with_shape_and_spacing(shape, mixed(grid.spacing, other.spacing))
