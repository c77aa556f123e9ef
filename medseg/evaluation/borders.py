"""Where along the border the error lies: every place of it by its distance to the other border.

Distances are told in classes, whose colours run from blue (near) to red (far), which stay apart for
people who do not see red or green; far classes are drawn wider, so that a print shows them, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.views import ReportCase
from medseg.evaluation.wording import length, unit_name
from medseg.geometry import Length
from medseg.metrics import Border, MaskPair
from medseg.metrics.contingency import Indices, Runs

COLOURS = ("#4FA3E3", "#A6D8F0", "#FFF3B0", "#FC8D59", "#E3342A")
ALONE = "#FF5CD6"  # no other border: the structure was missed or invented

Classes = NDArray[np.uint8]


@dataclass(frozen=True)
class Share:
    """How much of the ground-truth border lies within one class of distance, in per cent."""

    text: str
    colour: str
    percent: float


@dataclass(frozen=True, eq=False)
class BorderMap:
    """The borders of one case by their distance to each other.

    Args:
        reference: (*spatial), class of the ground-truth border in the voxels that touch it; 0
            where there is none, 1 for the nearest.
        prediction: The same of the predicted border.
        shares: Share of the ground-truth border in each class that occurs in a legend.
    """

    reference: Classes
    prediction: Classes
    shares: tuple[Share, ...]


def border_map(case: ReportCase, limits: Sequence[Length]) -> BorderMap | None:
    """Return where the error of a case lies along its borders; None without a prediction.

    Args:
        case: The images. Where labels are objects, found ones carry the number of their reference
            in both.
        limits: Ends of the classes of distance but the last, which has none, ascending. One less
            than there are :data:`COLOURS`.
    """
    if case.prediction is None:
        return None
    ends = np.array([case.grid.length(limit) for limit in limits])
    # A millionth of slack: three voxels of 0.1 must not miss 0.3 by rounding.
    ends = ends * (1 + 1e-6) + 1e-9
    far = BorderMap(
        np.zeros(case.grid.shape, np.uint8), np.zeros(case.grid.shape, np.uint8), shares=()
    )
    areas = np.zeros(len(COLOURS) + 1)
    for borders in _borders(case):
        for border, classes in zip(borders, (far.reference, far.prediction), strict=True):
            found = np.searchsorted(ends, border.distances)
            found[np.isnan(border.distances)] = len(COLOURS)
            if classes is far.reference:
                areas += np.bincount(found, weights=border.areas, minlength=len(areas))
            _paint(classes, border.points, found + 1)
    return replace(far, shares=_shares(areas, limits))


def _borders(case: ReportCase) -> Iterator[tuple[Border, Border]]:
    """Yield both borders of each label that occurs, in voxel coordinates of the image."""
    if case.prediction is None:
        return
    reference, prediction = case.reference, case.prediction
    if case.ignore is not None:
        judged = reference != case.ignore
        reference, prediction = reference * judged, prediction * judged
    runs = Runs.of(reference, prediction)
    boxes: dict[int, list[tuple[Indices, Indices]]] = {}
    for ids, which in (
        (runs.reference_ids, runs.reference),
        (runs.predicted_ids, runs.prediction),
    ):
        for label, *ends in zip(ids.tolist(), *runs.boxes(which, len(ids)), strict=True):
            if label > 0:
                boxes.setdefault(label, []).append((ends[0], ends[1]))
    for label, ends in sorted(boxes.items()):
        lower = np.min([first for first, _ in ends], axis=0)
        upper = np.max([last for _, last in ends], axis=0)
        box = tuple(slice(first, last) for first, last in zip(lower, upper, strict=True))
        pair = MaskPair(
            reference[box] == label, prediction[box] == label, case.grid.spacing, case.grid.unit
        )
        corner = lower.astype(np.float32)
        there, back = (
            replace(border, points=border.points + corner) for border in pair.border_distances
        )
        yield there, back


def _paint(classes: Classes, points: NDArray[np.float32], found: NDArray[np.intp]) -> None:
    """Write each place's class into the voxels that touch it; the farthest counts."""
    lower = np.floor(points).astype(np.intp)
    upper = np.ceil(points).astype(np.intp)
    values = found.astype(np.uint8)
    for corner in np.ndindex((2,) * classes.ndim):
        place = np.where(np.array(corner, bool), upper, lower)
        inside = ((place >= 0) & (place < classes.shape)).all(axis=1)
        np.maximum.at(classes, tuple(place[inside].T), values[inside])


def _shares(areas: NDArray[np.float64], limits: Sequence[Length]) -> tuple[Share, ...]:
    unit = unit_name(str(limits[0].unit))
    texts = [length(limit.value) for limit in limits]
    named = [f"to {texts[0]} {unit}"]
    named += [f"{a} to {b}" for a, b in pairwise(texts)]
    named += [f"over {texts[-1]}", "no counterpart"]
    whole = float(areas.sum()) or 1.0
    shares = [
        Share(text, colour, round(100 * float(area) / whole, 1))
        for text, colour, area in zip(named, (*COLOURS, ALONE), areas, strict=True)
    ]
    return tuple(shares if areas[-1] else shares[:-1])
