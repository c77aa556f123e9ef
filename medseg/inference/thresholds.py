"""Choosing the thresholds with which objects are found, on validation cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.objects import ObjectFinder
from medseg.metrics import METRICS, InstancePair

Array = NDArray[Any]

JUDGED_BY = ("panoptic_quality", "average_precision")
ROUNDS = 2  # after two, the thresholds of a sweep seldom change again


@dataclass(frozen=True, eq=False)
class ObjectCase:
    """A validation case on the network's grid.

    Args:
        scores: (outputs, *spatial), the network's.
        reference: (*spatial), the number of each voxel's object; below 0 where nobody judged.
        spacing: Of the voxels, in the unit of the finder.
    """

    scores: NDArray[np.float32]
    reference: Array
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Tried:
    """What validation said of some thresholds: means over its cases."""

    thresholds: Mapping[str, float]
    panoptic_quality: float
    average_precision: float


@dataclass(frozen=True)
class ThresholdChoice:
    """What came out of a sweep.

    Args:
        before: The thresholds as they stood.
        best: Those with the highest panoptic quality.
        sweep: All that were tried.
    """

    before: Tried
    best: Tried
    sweep: tuple[Tried, ...]


def object_scores(reference: Array, found: Array) -> list[float]:
    """Return panoptic quality and average precision at an IoU of 0.5.

    Args:
        reference: (*spatial), the objects as drawn; below 0 where nobody judged.
        found: (*spatial), the objects to be judged.

    Returns:
        NaN where neither image has an object.
    """
    judged = reference >= 0
    pair = InstancePair(reference * judged, found * judged)
    return [METRICS[name](pair) for name in JUDGED_BY]


def choose_thresholds(finder: ObjectFinder, cases: Sequence[ObjectCase]) -> ThresholdChoice:
    """Return the thresholds with the highest mean panoptic quality.

    One threshold after the other takes the best of the method's candidates while the others stand,
    twice. One that is no better than the present one does not replace it.

    Args:
        finder: Of the model, with its thresholds as they stand.
        cases: Of the validation; not those that the model is reported on.
    """
    before = _try(finder, cases, finder.thresholds)
    tried = [before]
    for _ in range(ROUNDS):
        for name, candidates in finder.method.candidates.items():
            best = max(tried, key=_quality)
            known = [one.thresholds for one in tried]
            for value in candidates:
                thresholds = {**best.thresholds, name: value}
                if thresholds not in known:
                    tried.append(_try(finder, cases, thresholds))
    return ThresholdChoice(before, max(tried, key=_quality), tuple(tried))


def _try(
    finder: ObjectFinder, cases: Sequence[ObjectCase], thresholds: Mapping[str, float]
) -> Tried:
    other = finder.with_thresholds(thresholds)
    scores = np.array(
        [object_scores(c.reference, other.find(c.scores, c.spacing)) for c in cases], float
    )
    judged = scores[~np.isnan(scores).any(1)]
    quality, precision = judged.mean(0).tolist() if len(judged) else (0.0, 0.0)
    return Tried(dict(thresholds), quality, precision)


def _quality(tried: Tried) -> float:
    return tried.panoptic_quality
