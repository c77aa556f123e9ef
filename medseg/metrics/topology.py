"""Simple pixels: those that can change sides without joining, cutting, opening or filling anything.

Membranes hang together also over corners (8 neighbours), cells only over edges (4 neighbours), so
that a thin diagonal membrane separates its two cells.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

# The eight neighbours of a pixel; bit i of a neighbourhood's code is the i-th of them.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_NORTH, _WEST, _EAST, _SOUTH = (
    1 << NEIGHBOURS.index(n) for n in ((-1, 0), (0, -1), (0, 1), (1, 0))
)
_CROSS = ndimage.generate_binary_structure(2, 1)
_SQUARE = np.ones((3, 3), bool)


@lru_cache(maxsize=1)
def simple_codes() -> Mask:
    """Return, for each of the 256 neighbourhoods, whether the pixel in its middle is simple.

    Source:
        Kong & Rosenfeld, CVGIP 48 (1989) 357-393, doi:10.1016/0734-189X(89)90147-3.
    """
    simple = np.zeros(256, bool)
    for code in range(256):
        membrane = np.zeros((3, 3), bool)
        for bit, (dy, dx) in enumerate(NEIGHBOURS):
            membrane[1 + dy, 1 + dx] = code >> bit & 1
        cells = ~membrane
        cells[1, 1] = False
        groups, _ = ndimage.label(cells, _CROSS)
        touching = set(groups[_CROSS]) - {0}
        simple[code] = len(touching) == 1 and ndimage.label(membrane, _SQUARE)[1] == 1
    return simple


def neighbourhoods(membrane: Mask) -> NDArray[np.uint8]:
    """Return the code of every pixel's neighbourhood; outside the image is membrane."""
    padded = np.pad(membrane, 1, constant_values=True).view(np.uint8)
    rows, columns = membrane.shape
    codes = np.zeros(membrane.shape, np.uint8)
    for bit, (dy, dx) in enumerate(NEIGHBOURS):
        codes |= padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns] << np.uint8(bit)
    return codes


def thin(membrane: Mask) -> Mask:
    """Return the membrane one pixel wide, with the same cells and the same loose ends.

    Args:
        membrane: (y, x). Outside the image counts as membrane, so that no cell leaks around a
            membrane's end at the edge.

    Source:
        Rosenfeld, Information and Control 29 (1975) 286-291, doi:10.1016/S0019-9958(75)90448-9:
        simple pixels that are not the end of a line are removed from one side at a time.
    """
    thinned = membrane.copy()
    ends = np.bitwise_count(np.arange(256, dtype=np.uint8)) == 1
    changed = True
    while changed:
        changed = False
        for side in (_NORTH, _SOUTH, _EAST, _WEST):
            codes = neighbourhoods(thinned)
            loose = thinned & (simple_codes() & ~ends)[codes] & (codes & side == 0)
            if loose.any():
                thinned &= ~loose
                changed = True
    return thinned


def warp(reference: Mask, prediction: Mask, allowed: Mask) -> Mask:
    """Return the membrane of the reference, bent towards the prediction without a change of cells.

    Args:
        reference: Membrane as drawn, (y, x).
        prediction: Membrane to come close to.
        allowed: Where pixels may change sides.

    Source:
        Jain et al., CVPR 2010, doi:10.1109/CVPR.2010.5539950: wrong pixels are flipped while they
        are simple. Here in raster order, then outwards from the flipped ones; the result is one
        of several that the source permits.
    """
    rows, columns = reference.shape
    bent = np.pad(reference, 1, constant_values=True)
    wrong = np.pad((reference != prediction) & allowed, 1)
    simple = simple_codes()
    waiting = [(int(y), int(x)) for y, x in np.argwhere(wrong)]
    while waiting:
        flipped: list[tuple[int, int]] = []
        for y, x in waiting:
            code = 0
            for bit, (dy, dx) in enumerate(NEIGHBOURS):
                code |= int(bent[y + dy, x + dx]) << bit
            if wrong[y, x] and simple[code]:
                bent[y, x] = not bent[y, x]
                wrong[y, x] = False
                flipped.append((y, x))
        # Only pixels beside a flipped one can have become simple.
        near = {(y + dy, x + dx) for y, x in flipped for dy, dx in NEIGHBOURS}
        waiting = sorted(place for place in near if wrong[place])
    return bent[1 : rows + 1, 1 : columns + 1]
