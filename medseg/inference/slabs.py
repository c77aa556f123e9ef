"""Objects of an image whose scores are too many to be held at once.

Scores come row by row from the sliding window. Some rows at a time become objects, with a margin
on both sides that the neighbouring slabs see, too. Where two slabs meet, objects that lie on each
other are one; so all slabs share one space of numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.integer[Any]]
Find = Callable[[Floats], Ids]


def find_in_slabs(rows: Iterable[Floats], find: Find, *, thickness: int, margin: int) -> Ids:
    """Return the objects of an image, found slab by slab along its first axis.

    They are those of the whole image, numbered otherwise, if each that crosses from one slab into
    the next ends within the margin. A longer one may be told apart less well where it is cut, and
    stays one object.

    Args:
        rows: The scores, (outputs, some rows, *spatial[1:]) each, in order.
        find: Returns the objects in scores (outputs, *spatial): 1, 2, ..., 0 for background.
        thickness: Rows of a slab.
        margin: Rows that a slab sees beyond its own, on either side.

    Returns:
        (*spatial), uint32: 0 for background, the objects 1, 2, ...

    Raises:
        ValueError: A slab has no rows, or no margin.
    """
    if thickness < 1 or margin < 1:
        raise ValueError(f"slabs have rows and a margin, got {thickness} and {margin}")
    parents = [0]  # of each number so far, a lower one of the same object
    parts: list[Ids] = []
    at_seam: Ids | None = None  # the last row of the slab before and the first beyond, numbered
    for scores, own in _slabs(rows, thickness, margin):
        found = find(scores)
        numbers = np.arange(int(found.max(initial=0)) + 1) + len(parents) - 1
        numbers[0] = 0
        parents += range(len(parents), len(parents) + len(numbers) - 1)
        ids = numbers[found]
        if at_seam is not None:
            _join(at_seam, ids[own.start - 1 : own.start + 1], parents)
        at_seam = ids[own.stop - 1 : own.stop + 1]
        parts.append(ids[own])
    roots = np.array([_root(parents, number) for number in range(len(parents))])
    whole = roots[np.concatenate(parts)]
    _, renumbered = np.unique(np.append(whole.ravel(), 0), return_inverse=True)
    result: Ids = renumbered[:-1].reshape(whole.shape).astype(np.uint32)
    return result


def _slabs(rows: Iterable[Floats], thickness: int, margin: int) -> Iterator[tuple[Floats, slice]]:
    """Give the scores of each slab with its margins, and which of these rows are its own."""
    held: Floats | None = None
    before = 0  # rows of margin that are held before the next slab
    for some in rows:
        held = some if held is None else np.concatenate([held, some], axis=1)
        # One more, so that the last slab is never without rows.
        while held.shape[1] > before + thickness + margin:
            yield (
                held[:, : before + thickness + margin],
                slice(before, before + thickness),
            )
            dropped = max(0, before + thickness - margin)
            before += thickness - dropped
            held = held[:, dropped:]
    if held is not None:
        yield held, slice(before, held.shape[1])


def _join(one: Ids, other: Ids, parents: list[int]) -> None:
    """Make one object of two numbers of which most of the smaller lies on the larger."""
    for row in (0, 1):
        pairs, shared = np.unique(
            np.stack([one[row].ravel(), other[row].ravel()]), axis=1, return_counts=True
        )
        sizes = [dict(zip(*np.unique(side[row], return_counts=True), strict=True)) for side in
                 (one, other)]  # fmt: skip
        for first, second, voxels in zip(*pairs.tolist(), shared.tolist(), strict=True):
            if first and second and 2 * voxels > min(sizes[0][first], sizes[1][second]):
                a, b = sorted((_root(parents, first), _root(parents, second)))
                parents[b] = a


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number
