"""Border elements of two masks, and how far each lies from the other border.

``surface_borders`` puts an element on every corner between voxels where inside meets outside. The
2**n voxels around a corner say how the surface passes it, and the spacing how much area that is;
``voxel_borders`` counts border voxels instead, as many papers did.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.metrics.elements import element_areas

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Corners looked at in one go: small enough to stay in the processor's cache.
_SLAB = 1 << 19


@dataclass(frozen=True, eq=False)
class Border:
    """The border of one mask, seen from the other border.

    Args:
        distances: (n,), from each element to the nearest element of the other border; NaN where
            there is no other border.
        areas: (n,), what each element weighs: its area (length in 2D), or 1 for a voxel.
        points: (n, axes), where each element lies, in voxel coordinates of the image: whole
            numbers are voxel centres, halves the corners between voxels.
    """

    distances: Floats
    areas: Floats
    points: NDArray[np.float32]

    @cached_property
    def area(self) -> float:
        """The whole border, in the squared unit (in the unit for 2D, or the number of voxels)."""
        return float(np.sum(self.areas))

    @cached_property
    def integral(self) -> float:
        """Distance integrated over the border."""
        return float(np.dot(self.distances, self.areas))

    def percentile(self, percentile: float) -> float:
        """Return the smallest distance that ``percentile`` % of the border's area does not exceed.

        An actual distance, never an interpolated one. 100 is the largest.
        """
        if percentile >= 100:
            return float(np.max(self.distances))
        order = np.argsort(self.distances)
        reached = np.cumsum(self.areas[order])
        # A billionth of slack: a share of just 95 % must not be missed by rounding of the areas.
        place = np.searchsorted(reached / reached[-1], percentile / 100 - 1e-9)
        return float(self.distances[order[min(int(place), len(order) - 1)]])


class VoxelBorder(Border):
    """A border that counts voxels; its percentiles are interpolated, as numpy does."""

    def percentile(self, percentile: float) -> float:
        """Return the interpolated percentile over border voxels."""
        return float(np.percentile(self.distances, percentile))


def surface_borders(
    reference: Mask, prediction: Mask, spacing: tuple[float, ...]
) -> tuple[Border, Border]:
    """Return the borders as area-weighted elements on the corners between voxels.

    Where a mask is cut by the image's edge, the cut counts as border.

    Args:
        reference: (*spatial), 2D or 3D.
        prediction: (*spatial), the same shape.
        spacing: Distance of neighbouring voxels along each axis.

    Returns:
        The reference's border and the prediction's.

    Source:
        Definition of Nikolov et al., arXiv:1809.04430. Coincident elements are recognised by
        their place, and the others looked up in a k-d tree, instead of a distance map of the
        whole image.
    """
    areas = element_areas(spacing)
    full = len(areas) - 1
    corners, codes = zip(*(_corners(mask, full) for mask in (reference, prediction)), strict=True)
    there, back = _directed(corners[0], corners[1], reference.shape, spacing)
    # Corner k lies between the voxels k - 1 and k of the image.
    return (
        Border(there, areas[codes[0]], corners[0] - np.float32(0.5)),
        Border(back, areas[codes[1]], corners[1] - np.float32(0.5)),
    )


def voxel_borders(
    reference: Mask, prediction: Mask, spacing: tuple[float, ...]
) -> tuple[Border, Border]:
    """Return the borders as centres of voxels that share a face with the outside.

    Args:
        reference: (*spatial), 2D or 3D.
        prediction: (*spatial), the same shape.
        spacing: Distance of neighbouring voxels along each axis.

    Returns:
        The reference's border and the prediction's, every voxel weighing 1.

    Source:
        MONAI 1.6 and MetricsReloaded (erosion with face neighbours; outside the image is outside
        the mask).
    """
    points = [_border_voxels(mask) for mask in (reference, prediction)]
    there, back = _directed(points[0], points[1], reference.shape, spacing)
    return (
        VoxelBorder(there, np.ones(len(there)), points[0].astype(np.float32)),
        VoxelBorder(back, np.ones(len(back)), points[1].astype(np.float32)),
    )


BORDERS: Mapping[str, Callable[[Mask, Mask, tuple[float, ...]], tuple[Border, Border]]] = {
    "surface": surface_borders,
    "voxel": voxel_borders,
}


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the slices that hold every voxel of the mask; empty slices for an empty mask."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        # Each axis looks only at what the earlier ones left.
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask[tuple(box)].any(axis=others))
        box.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
    return tuple(box)


def _corners(mask: Mask, full: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return where inside meets outside (corner numbers, raster order), and each corner's code."""
    box = bounding_box(mask)
    inside = mask[box].view(np.uint8)
    starts = np.array([s.start for s in box])
    shape = tuple(n + 1 for n in inside.shape)
    thick = max(1, _SLAB // math.prod(shape[1:]))
    found: list[NDArray[np.int32]] = []
    codes: list[NDArray[np.uint8]] = []
    for first in range(0, shape[0] if inside.size else 0, thick):
        slab = _codes(inside[max(first - 1, 0) : first + thick], first, thick, shape)
        # Neither 0 nor full; subtracting first lets 0 wrap around to the largest number.
        flat = np.flatnonzero((slab - np.uint8(1)) < full - 1)
        place = np.unravel_index(flat, slab.shape)
        corner = np.empty((len(flat), mask.ndim), np.int32)
        for axis, index in enumerate(place):
            corner[:, axis] = index + (starts[axis] + (first if axis == 0 else 0))
        found.append(corner)
        codes.append(slab.ravel()[flat])
    if not found:
        return np.empty((0, mask.ndim), np.int32), np.empty(0, np.uint8)
    return np.concatenate(found), np.concatenate(codes)


def _codes(
    inside: NDArray[np.uint8], first: int, thick: int, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return one bit for each of the 2**n voxels around each corner of a slab.

    Args:
        inside: The slab's voxels, one plane more than the slab on each side where there is one.
        first: Number of the slab's first plane of corners.
        thick: Planes of corners in a slab.
        shape: Corners of the whole box.
    """
    planes = min(thick, shape[0] - first)
    padded = np.zeros((planes + 1, *(n + 1 for n in shape[1:])), np.uint8)
    skip = 1 if first == 0 else 0
    window = (slice(skip, skip + len(inside)), *(slice(1, n) for n in shape[1:]))
    padded[window] = inside
    codes = padded
    for axis in range(padded.ndim):
        lower = [slice(None)] * padded.ndim
        upper = lower.copy()
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        joined = codes[tuple(upper)] << np.uint8(1 << axis)
        joined |= codes[tuple(lower)]
        codes = joined
    return codes


def _border_voxels(mask: Mask) -> NDArray[np.int32]:
    box = bounding_box(mask)
    cropped = mask[box]
    if not cropped.size:
        return np.empty((0, mask.ndim), np.int32)
    border = cropped & ~ndimage.binary_erosion(cropped)
    starts = np.array([s.start for s in box], np.int32)
    return np.argwhere(border).astype(np.int32) + starts


def _directed(
    reference: NDArray[np.int32],
    prediction: NDArray[np.int32],
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
) -> tuple[Floats, Floats]:
    """Return the distance of each point to the nearest of the other set, both ways."""
    ids = [_ids(points, shape) for points in (reference, prediction)]
    alone = [~_contains(ids[1], ids[0]), ~_contains(ids[0], ids[1])]
    points = (reference, prediction)
    there = _nearest(points[0], alone[0], points[1], spacing)
    back = _nearest(points[1], alone[1], points[0], spacing)
    return there, back


def _ids(points: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Number the points in raster order, in which they already stand."""
    ids = points[:, 0].astype(np.int64)
    for axis, n in enumerate(shape[1:], start=1):
        ids *= n + 1
        ids += points[:, axis]
    return ids


def _contains(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> Mask:
    """Tell which of the wanted numbers stand in the sorted ``ids``."""
    if not ids.size:
        return np.zeros(wanted.size, bool)
    place = np.searchsorted(ids, wanted)
    place[place == ids.size] = 0
    contained: Mask = ids[place] == wanted
    return contained


def _nearest(
    points: NDArray[np.int32],
    alone: Mask,
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
) -> Floats:
    """Return distances to the nearest of ``others``; zero for points that are not alone."""
    distances = np.zeros(len(points))
    if not others.size:
        distances[:] = np.nan
    elif alone.any():
        # The default, balanced tree costs more to build than it saves in these few look-ups.
        tree = cKDTree(others * np.array(spacing), balanced_tree=False, compact_nodes=False)
        distances[alone] = tree.query(points[alone] * np.array(spacing))[0]
    return distances
