"""How much border passes a corner between voxels.

A corner is surrounded by 2**n voxels, each inside or outside the mask; one bit each makes the
corner's code. Inside voxels that share a face hang together, and the border runs around each such
group through the midpoints between it and its neighbours outside. Where more than half of the
voxels are inside, it runs around the outside voxels, so that a mask and its complement have the
same border. Midpoints that do not lie in a plane are joined by the triangles of largest area.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

_Voxel = tuple[int, ...]
_Points = NDArray[np.float64]


def element_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the area (3D) or length (2D) of the border at a corner, for each of its codes.

    Args:
        spacing: Distance of neighbouring voxels along each axis; their number says 2D or 3D.

    Returns:
        (2 ** (2**n),) in the squared unit of the spacing (in its unit for 2D). Bit ``b`` of a
        code is the voxel whose offset along axis ``a`` is bit ``a`` of ``b``.
    """
    codes, vectors = _facets(len(spacing))
    # A facet's area vector grows along each axis with the spacing of the other axes.
    scale = np.prod(spacing) / np.array(spacing)
    areas = np.linalg.norm(vectors * scale, axis=1)
    return np.bincount(codes, areas, 2 ** (2 ** len(spacing))).astype(np.float64)


@lru_cache(maxsize=2)
def _facets(spatial_dims: int) -> tuple[NDArray[np.intp], _Points]:
    """Return every facet of every code: (facets,) its code, (facets, n) its area vector."""
    voxels = [offset[::-1] for offset in product((0, 1), repeat=spatial_dims)]
    full = 2 ** len(voxels) - 1
    codes: list[int] = []
    vectors: list[_Points] = []
    for code in range(1, 2 ** (len(voxels) - 1)):
        both = [code, full - code]
        fewer = min(both, key=int.bit_count)
        for group in _groups([voxel for bit, voxel in enumerate(voxels) if fewer >> bit & 1]):
            midpoints = _midpoints(group, [voxel for voxel in voxels if voxel not in group])
            # In 2D there are two, and one segment between them.
            facets = [midpoints] if spatial_dims == 2 else _largest_triangles(_loop(midpoints))
            for facet in facets:
                codes += both
                vectors += [_area_vector(facet)] * 2
    return np.array(codes), np.array(vectors)


def _groups(voxels: Sequence[_Voxel]) -> list[list[_Voxel]]:
    """Sort voxels into groups that hang together by faces."""
    groups: list[list[_Voxel]] = []
    for voxel in voxels:
        touching = [g for g in groups if any(_share_face(voxel, other) for other in g)]
        groups = [g for g in groups if g not in touching]
        groups.append([voxel, *(other for g in touching for other in g)])
    return groups


def _midpoints(group: Sequence[_Voxel], rest: Sequence[_Voxel]) -> _Points:
    """Return the midpoints between a group and its neighbours outside."""
    return np.array([np.add(a, b) / 2 for a in group for b in rest if _share_face(a, b)])


def _loop(midpoints: _Points) -> _Points:
    """Return the midpoints in the order in which the border joins them."""
    left = list(midpoints)
    loop = [left.pop()]
    while left:
        # The next one lies on the same side (coordinate 0 or 1) of the eight voxels.
        beside = [bool(np.any((point == loop[-1]) & (point != 0.5))) for point in left]
        loop.append(left.pop(beside.index(True)))
    return np.array(loop)


def _largest_triangles(loop: _Points) -> list[_Points]:
    """Return the triangles between the points of a loop whose areas sum to the most."""
    if len(loop) < 3:
        return []
    choices = (
        [*_largest_triangles(loop[: k + 1]), loop[[0, k, -1]], *_largest_triangles(loop[k:])]
        for k in range(1, len(loop) - 1)
    )
    return max(choices, key=lambda facets: sum(np.linalg.norm(_area_vector(f)) for f in facets))


def _share_face(a: _Voxel, b: _Voxel) -> bool:
    return sum(x != y for x, y in zip(a, b, strict=True)) == 1


def _area_vector(facet: _Points) -> _Points:
    """Return the vector across a segment or triangle that is as long as it is long or large."""
    edges = facet[1:] - facet[0]
    if len(edges) == 1:
        return np.array([edges[0, 1], -edges[0, 0]])
    vector: _Points = np.cross(edges[0], edges[1]) / 2
    return vector
