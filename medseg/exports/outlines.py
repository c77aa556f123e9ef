"""The outlines of objects along the edges of their pixels, holes kept.

Coordinates are those of ImageJ and QuPath: pixel (column 3, row 0) covers x from 3 to 4, y from 0
to 1. So an outline encloses exactly the object's pixels, and its area is their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medseg.exports.objects import Objects

Ring = NDArray[np.int64]  # corners (x, y), the first not repeated
Polygon = tuple[Ring, ...]  # the outer ring, then its holes, which run the other way


@dataclass(frozen=True, eq=False)
class Outline:
    """One object in one plane.

    Args:
        index: Of the object among ``ids`` of its :class:`Objects`.
        plane: Number of the slice from 0; None in a 2D image.
        polygons: The parts of the object that no edge of a pixel joins.
    """

    index: int
    plane: int | None
    polygons: tuple[Polygon, ...]


def outlines(objects: Objects) -> Iterator[Outline]:
    """Yield the outline of each object, plane by plane."""
    from scipy.ndimage import find_objects

    flat = objects.numbers.ndim == 2
    for plane, numbers in enumerate(objects.numbers[np.newaxis] if flat else objects.numbers):
        for index, place in enumerate(find_objects(numbers)):
            if place is not None:
                corner = np.array([place[1].start, place[0].start])
                polygons = polygons_of(numbers[place] == index + 1)
                moved = tuple(tuple(ring + corner for ring in polygon) for polygon in polygons)
                yield Outline(index, None if flat else plane, moved)


def polygons_of(mask: NDArray[np.bool_]) -> tuple[Polygon, ...]:
    """Return the outlines of a mask (y, x); pixels that touch at a corner only are apart."""
    from contourpy import contour_generator

    padded = np.pad(mask, 1).astype(np.float32)
    # Above a half, so that two pixels across a corner, whose mean is a half, are not joined.
    parts = contour_generator(z=padded, fill_type="OuterOffset").filled(0.75, 2.0)
    polygons = []
    for points, offsets in zip(*parts, strict=True):
        rings = [
            ring for a, b in pairwise(offsets) for ring in _simple(_corners(points[a : b - 1]))
        ]
        rings.sort(key=_area, reverse=True)  # only the outer ring's is positive
        polygons.append(tuple(rings))
    return tuple(polygons)


def _corners(points: NDArray[np.float64]) -> Ring:
    """Return the corners between edges of pixels, of which a contour crosses one at each point."""
    along = points != np.floor(points)  # which of x, y lies between two pixels
    whole = np.floor(points).astype(np.int64)
    turns = along[:, 0] != np.roll(along[:, 0], -1)
    after = np.roll(whole, -1, axis=0)
    corners: Ring = np.where(along, whole, after)[turns]
    return corners


def _simple(ring: Ring) -> list[Ring]:
    """Return the loops of a ring that meets itself at a corner."""
    loops: list[Ring] = []
    way: list[tuple[int, ...]] = []
    met: dict[tuple[int, ...], int] = {}
    for point in map(tuple, ring.tolist()):
        if point in met:
            loop = way[met[point] :]
            loops.append(np.array(loop))
            del way[met[point] :]
            for passed in loop:
                del met[passed]
        met[point] = len(way)
        way.append(point)
    return [*loops, np.array(way)]


def _area(ring: Ring) -> float:
    """Return the area that a ring encloses, negative if it runs as holes do."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
