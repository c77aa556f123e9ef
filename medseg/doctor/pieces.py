"""Connected pieces, holes, specks and middles of what is drawn."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

SPECK = 9  # voxels; a slip of the pen, not a structure

_COUNTED = 2**20  # up to here counting is faster than sorting

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]


def value_counts(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the values of a label image in ascending order, and their voxels."""
    if labels.size and labels.max() < _COUNTED:
        counts = np.bincount(labels.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    values, counts = np.unique(labels, return_counts=True)
    return values.astype(np.int64), counts


def box_of(mask: Mask) -> tuple[slice, ...] | None:
    """Return the smallest box around a mask; None if it is empty."""
    box = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not held.size:
            return None
        box.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(box)


def piece_sizes(mask: Mask) -> NDArray[np.int64]:
    """Return the voxels of each piece, the largest first; pieces may touch by a corner."""
    pieces = label(mask, connectivity=mask.ndim)  # type: ignore[no-untyped-call]
    sizes: NDArray[np.int64] = np.sort(np.bincount(pieces.ravel())[1:])[::-1]
    return sizes


def hole_sizes(mask: Mask) -> NDArray[np.int64]:
    """Return the voxels of each hole: what is outside of it but cannot be reached from the rim."""
    outside, sizes = _outside(~mask)
    closed = np.ones(len(sizes), bool)
    closed[[0, int(outside.flat[0])]] = False
    return np.sort(sizes[closed])[::-1]


def _outside(free: Mask) -> tuple[Labels, NDArray[np.int64]]:
    """Number the pieces of what is free; one layer more around it belongs to it."""
    around = np.pad(free, 1, constant_values=True)
    outside = label(around, connectivity=1)  # type: ignore[no-untyped-call]
    return outside, np.bincount(outside.ravel())


@dataclass(frozen=True)
class Objects:
    """What the numbers of a label image are like; each is listed in ascending order.

    Args:
        numbers: All of them.
        scattered: Those whose second piece could be an object: more than a speck, a fifth of the
            largest piece, and a seventh of the usual object.
        frayed: Others in several pieces.
        thin: Those of more than ``SPECK`` voxels without an inner voxel.
        holed: Those with a hole.
        specks: Those of at most ``SPECK`` voxels in all.
    """

    numbers: NDArray[np.int64]
    scattered: NDArray[np.int64]
    frayed: NDArray[np.int64]
    thin: NDArray[np.int64]
    holed: NDArray[np.int64]
    specks: NDArray[np.int64]


def objects_of(labels: Labels) -> Objects:
    """Look at every number of a label image in a few passes over the voxels.

    Args:
        labels: One number an object, 0 the background, (*spatial).
    """
    numbers, voxels = value_counts(labels)
    if not numbers.size or numbers[0] != 0:
        numbers, voxels = np.r_[0, numbers], np.r_[0, voxels]
    index = np.searchsorted(numbers, labels)
    pieces = label(index, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    sizes = np.bincount(pieces.ravel())
    owner = np.zeros(len(sizes), np.int64)
    owner[pieces.ravel()] = index.ravel()
    largest, second = _two_largest(owner[1:], sizes[1:], len(numbers))
    inner = (ndimage.maximum_filter(index, 3) == index) & (
        ndimage.minimum_filter(index, 3) == index
    )
    thin = np.ones(len(numbers), bool)
    thin[np.unique(index[inner])] = False
    holed = np.zeros(len(numbers), bool)
    holed[_owners_of_holes(index)] = True
    real = numbers > 0
    least = np.median(voxels[real]) / 7 if real.any() else 0.0
    apart = (second > max(SPECK, least)) & (second >= 0.2 * largest)

    def chosen(which: Mask) -> NDArray[np.int64]:
        return numbers[which & real].astype(np.int64)

    return Objects(
        numbers=chosen(real),
        scattered=chosen(apart),
        frayed=chosen((second > 0) & ~apart),
        thin=chosen(thin & (voxels > SPECK)),
        holed=chosen(holed),
        specks=chosen(voxels <= SPECK),
    )


def _two_largest(
    owner: NDArray[np.int64], sizes: NDArray[np.int64], number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sizes of each owner's largest and second largest piece, 0 for none."""
    order = np.lexsort((-sizes, owner))
    owner, sizes = owner[order], sizes[order]
    largest, second = np.zeros(number, np.int64), np.zeros(number, np.int64)
    owners, first = np.unique(owner, return_index=True)
    largest[owners] = sizes[first]
    more = np.append(owner[1:] == owner[:-1], False)[first]
    second[owners[more]] = sizes[first[more] + 1]
    return largest, second


def _owners_of_holes(index: Labels) -> NDArray[np.int64]:
    """Return the objects with a hole: background that touches no other object and not the rim."""
    outside, sizes = _outside(index == 0)
    padded = np.pad(index, 1)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    highest = np.zeros(len(sizes), np.int64)
    for axis in range(index.ndim):
        ahead = np.moveaxis(outside, axis, 0), np.moveaxis(padded, axis, 0)
        for step in (1, -1):
            near = ahead[0][:-1] if step == 1 else ahead[0][1:]
            object_ = ahead[1][1:] if step == 1 else ahead[1][:-1]
            beside = (near > 0) & (object_ > 0)
            np.minimum.at(lowest, near[beside], object_[beside])
            np.maximum.at(highest, near[beside], object_[beside])
    alone = (lowest == highest) & (np.arange(len(sizes)) != outside.flat[0])
    return np.unique(highest[alone])
