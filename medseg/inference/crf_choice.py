"""Choosing a fully connected CRF on validation cases, or none."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.crf import DenseCRF

Array = NDArray[Any]
Score = Callable[[Array, Array, int], Sequence[float]]

MOST_CASES = 6
MOST_VOXELS = 2**16
"""Voxels of a case that are looked at: 256 x 256, or 40 x 40 x 40."""


@dataclass(frozen=True)
class CrfCase:
    """A validation case on the network's grid.

    Args:
        probabilities: (classes, *spatial), the network's.
        image: (channels, *spatial), as the network sees it.
        reference: (*spatial), the class of each voxel; negative where nobody judges.
        spacing: Of the voxels, in one unit for all cases.
    """

    probabilities: Array
    image: Array
    reference: Array
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class CrfChoice:
    """What validation said.

    Args:
        crf: The best candidate; None if it was no better than no CRF.
        best: The best candidate, in any case.
        dice_without: Mean score without any.
        dice_with: Mean score of the best candidate.
        cases: Number of cases that were looked at.
    """

    crf: DenseCRF | None
    best: DenseCRF
    dice_without: float
    dice_with: float
    cases: int


def choose_crf(
    cases: Iterable[Callable[[], CrfCase]],
    candidates: Sequence[DenseCRF] | None = None,
    score: Score | None = None,
) -> CrfChoice:
    """Return the candidate with the best mean score over the structures, or none.

    None wins a tie. Cases are made one at a time; from each the candidates see the part of 65,536
    voxels with the most border, and of many cases six, evenly chosen: with the default
    candidates at most 72 refinements of that size. Those of six cases take about 10 s of one core
    for gray images, and two minutes for three channels.

    Args:
        cases: Makes each case when it is called.
        candidates: To choose from; :func:`default_candidates` for the first case if None.
        score: Takes the predicted class of each voxel, the reference and the number of classes,
            and gives a value for each structure, NaN where there is nothing to judge; higher is
            better. :func:`dice_of_structures` if None.

    Raises:
        ValueError: There is no case, one has no sense (its arrays do not fit) or is too much for a
            candidate, or there is no structure to judge them by.
    """
    makers = list(cases)
    if not makers:
        raise ValueError("a CRF is chosen on validation cases, and there are none")
    score = score or dice_of_structures
    places = np.unique(np.linspace(0, len(makers) - 1, min(MOST_CASES, len(makers))).round())
    scores = []
    for place in places.astype(int):
        case = _part(makers[place]())
        if candidates is None:
            candidates = default_candidates(case.image, case.spacing)
        tried = [case.probabilities]
        tried += [c.refine(case.probabilities, case.image, case.spacing) for c in candidates]
        count = len(case.probabilities)
        scores.append([score(one.argmax(0), case.reference, count) for one in tried])
    # (cases, 1 + candidates, structures): over the cases first, so that structures count alike.
    means = _mean(_mean(np.array(scores, float), 0), 1)
    if candidates is None or len(means) == 1:
        raise ValueError("there is no candidate to choose from")
    place = 1 + int(np.argmax(np.nan_to_num(means[1:], nan=-math.inf)))
    if not np.isfinite(means[[0, place]]).all():
        raise ValueError("the validation cases show no structure to judge a CRF by")
    best = candidates[place - 1]
    crf = best if means[place] > means[0] else None
    return CrfChoice(crf, best, float(means[0]), float(means[place]), len(places))


def default_candidates(image: Array, spacing: Sequence[float]) -> list[DenseCRF]:
    """Return twelve candidates, scaled to an image.

    Weights of 3 and 10; positions of 4 and 12 times the finest spacing; intensities of 0.2, 0.5
    and 1 standard deviation of each channel, times the square root of their number (noise in
    many channels adds up); smoothness of weight 1 over one finest spacing.

    Args:
        image: (channels, *spatial).
        spacing: Of its voxels.
    """
    widths = image.reshape(len(image), -1).std(1)
    widths = np.where(widths > 0, widths, 1.0) * math.sqrt(len(image))
    finest = float(min(spacing))
    return [
        DenseCRF(
            bilateral_weight=weight,
            sigma_position=reach * finest,
            sigma_intensity=tuple(float(share * width) for width in widths),
            smooth_weight=1.0,
            sigma_smooth=finest,
        )
        for weight, reach, share in product((3.0, 10.0), (4.0, 12.0), (0.2, 0.5, 1.0))
    ]


def dice_of_structures(predicted: Array, reference: Array, classes: int) -> list[float]:
    """Return the Dice of each class but the first; NaN where neither has it.

    Args:
        predicted: Class of each voxel.
        reference: The same; negative where nobody judges.
        classes: How many there are.
    """
    judged = reference >= 0
    found = []
    for index in range(1, classes):
        here, there = (predicted == index) & judged, reference == index
        size = int(here.sum()) + int(there.sum())
        found.append(2 * int((here & there).sum()) / size if size else math.nan)
    return found


def _mean(values: Array, axis: int) -> Array:
    """Return the mean of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _part(case: CrfCase) -> CrfCase:
    """Return the part of the case of few voxels with the most border of its structures.

    Border, not structure: inside of a large structure every CRF is right. A case without a border
    gives its middle.
    """
    spatial = case.reference.shape
    sides = list(spatial)
    while math.prod(sides) > MOST_VOXELS:
        longest = int(np.argmax(sides))
        rest = math.prod(sides) // sides[longest]
        second = sorted(sides)[-2] if len(sides) > 1 else 1
        sides[longest] = max(MOST_VOXELS // rest, min(second, sides[longest] - 1), 1)
    border = _border(case.reference)
    counts = _counts(border, sides)
    start = np.array(np.unravel_index(counts.argmax(), counts.shape))
    # Windows around one small structure hold it alike: it goes to the middle.
    found = np.argwhere(border[_cut(start, sides)])
    middle = start + found.mean(0) if len(found) else np.array(spatial) / 2
    room = np.array(counts.shape) - 1
    centred = np.clip(np.round(middle - np.array(sides) / 2).astype(int), 0, room)
    if counts[tuple(centred)] == counts.max():
        start = centred
    cut = _cut(start, sides)
    part = (slice(None), *cut)
    return CrfCase(case.probabilities[part], case.image[part], case.reference[cut], case.spacing)


def _border(reference: Array) -> Array:
    """Return where the next voxel along an axis is of another class; nobody's are background."""
    classes = np.maximum(reference, 0)
    border = np.zeros(classes.shape, bool)
    for axis in range(classes.ndim):
        changes = np.swapaxes(border, 0, axis)  # a view
        along = np.swapaxes(classes, 0, axis)
        changes[:-1] |= along[:-1] != along[1:]
    return border


def _counts(mask: Array, sides: Sequence[int]) -> Array:
    """Return how many voxels of a mask each window holds, at the window's first voxel."""
    counts = mask.astype(np.int32)
    for axis, side in enumerate(sides):
        sums = np.cumsum(counts, axis, dtype=np.int32)
        sums = np.insert(sums, 0, 0, axis)
        last = sums.shape[axis]
        counts = np.take(sums, range(side, last), axis) - np.take(sums, range(last - side), axis)
    return counts


def _cut(start: Array, sides: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(int(at), int(at) + side) for at, side in zip(start, sides, strict=True))
