"""Metrics of membranes that divide an image into cells, as in the ISBI 2012 challenge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.geometry import Unit
from medseg.metrics.masks import METRICS, Status, checked_spacing
from medseg.metrics.matching import InstancePair, ratio
from medseg.metrics.regions import v_info, v_rand
from medseg.metrics.topology import thin, warp

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MembraneScore:
    """How well the cells come out if all above one threshold is called cell.

    Args:
        threshold: Probability of being cell that a cell pixel exceeds.
        v_rand: Rand F score of the cells, higher is better.
        v_info: Information score of the cells, higher is better.
        pixel_error: Share of pixels on the wrong side, before thinning.
        membrane_f1: Dice score of the membrane pixels, before thinning.
    """

    threshold: float
    v_rand: float
    v_info: float
    pixel_error: float
    membrane_f1: float


@dataclass(frozen=True)
class MembraneScores:
    """The scores at every threshold, and the best of each kind, as the challenge takes them.

    Each best score may come from a threshold of its own, chosen with the reference in hand: the
    bests flatter a method compared with one threshold chosen before.
    """

    curve: tuple[MembraneScore, ...]

    @property
    def v_rand(self) -> float:
        """Largest Rand F score over the thresholds; ISBI 2012 ranks by it."""
        return max(score.v_rand for score in self.curve)

    @property
    def v_info(self) -> float:
        """Largest information score over the thresholds."""
        return max(score.v_info for score in self.curve)

    @property
    def pixel_error(self) -> float:
        """Smallest share of wrong pixels over the thresholds."""
        return min(score.pixel_error for score in self.curve)


def membrane_scores(
    reference_cells: NDArray[Any],
    cell_probability: NDArray[Any],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    thinned: bool = True,
) -> MembraneScores:
    """Score the cells that a probability map leaves between its membranes.

    Args:
        reference_cells: (y, x); nonzero inside cells, 0 on membranes.
        cell_probability: (y, x), 0 (membrane) to 1 (cell); a mask works, too.
        thresholds: A pixel is cell if its probability exceeds the threshold.
        thinned: Whether predicted membranes are thinned to one pixel first, so that their width
            does not count.

    Returns:
        The curve and its best scores. Cells hang together over edges, not corners. Scores are NaN
        if the reference has no cells, and 0 where no cell exceeds the threshold.

    Raises:
        ValueError: The images are not 2D or of different shapes, probabilities are outside 0 to 1,
            or there is no threshold.

    Source:
        Arganda-Carreras et al., Front. Neuroanat. 9 (2015) 142, doi:10.3389/fnana.2015.00142:
        restricted to the reference's cells, alpha = 0.5. The challenge's program (Fiji) thins with
        ImageJ's skeleton, so single pixels may differ.
    """
    cells, probability = np.asarray(reference_cells) != 0, np.asarray(cell_probability)
    _check_images(cells, probability)
    if not thresholds:
        raise ValueError("membrane_scores needs at least one threshold")
    if probability.size and not 0 <= probability.min() <= probability.max() <= 1:
        raise ValueError(
            f"cell_probability runs from {probability.min()} to {probability.max()}, expected "
            f"0 to 1; divide an 8-bit map by 255"
        )
    reference = label_cells(cells)
    return MembraneScores(tuple(_score(reference, probability, t, thinned) for t in thresholds))


def label_cells(cells: Mask) -> NDArray[np.int32]:
    """Number the cells that membranes keep apart: groups of pixels that hang together by edges."""
    labels: NDArray[np.int32] = ndimage.label(cells)[0].astype(np.int32)
    return labels


class MembranePair:
    """The cells that membranes keep apart, as drawn and as predicted.

    Args:
        reference_cells: (y, x); nonzero inside cells, 0 on membranes.
        predicted_cells: (y, x), likewise.
        spacing: Distance of neighbouring pixels along each array axis; 1 if not given.
        unit: Unit of the spacing: ``mm``, ``um``, ``nm`` or ``px``.
        judged: Pixels that count; all if None.

    Raises:
        ValueError: The images are not 2D or of different shapes, or the spacing is not positive
            and finite.
    """

    def __init__(
        self,
        reference_cells: NDArray[Any],
        predicted_cells: NDArray[Any],
        spacing: Sequence[float] | None = None,
        unit: str | Unit = Unit.PX,
        judged: Mask | None = None,
    ) -> None:
        self.reference_cells = np.asarray(reference_cells) != 0
        self.predicted_cells = np.asarray(predicted_cells) != 0
        _check_images(self.reference_cells, self.predicted_cells)
        self.spacing = checked_spacing(spacing, 2)
        self.unit = Unit(unit)
        self.judged = np.ones(self.reference_cells.shape, bool) if judged is None else judged

    @property
    def status(self) -> Status:
        """``both_empty`` without any membrane; one that was missed or invented can be measured."""
        membrane = ~(self.reference_cells & self.predicted_cells) & self.judged
        return "ok" if membrane.any() else "both_empty"

    @cached_property
    def cells(self) -> InstancePair:
        """The cells as objects, the predicted membrane thinned to one pixel.

        Cells hang together over edges, not corners. Where the reference is not judged it has no
        cell, so that :mod:`medseg.metrics.regions` leaves these pixels out.
        """
        return InstancePair(
            label_cells(self.reference_cells & self.judged),
            label_cells(~thin(~self.predicted_cells)),
            self.spacing,
            self.unit,
        )


@METRICS.register(
    "pixel_error",
    best=0.0,
    worst=1.0,
    unit="1",
    kind="membrane",
    definition="pixel-error/v1",
)
def pixel_error(pair: MembranePair) -> float:
    """Share of pixels on the wrong side of the membrane.

    It counts the width of membranes as much as a leak between two cells: the challenge dropped it.

    Args:
        pair: The cells as drawn and as predicted.

    Returns:
        Unitless, 0 to 1. NaN if no pixel is judged.

    Source:
        Arganda-Carreras et al., doi:10.3389/fnana.2015.00142, at one threshold.
    """
    wrong = (pair.reference_cells != pair.predicted_cells) & pair.judged
    return ratio(int(np.count_nonzero(wrong)), int(np.count_nonzero(pair.judged)))


@METRICS.register(
    "warping_error",
    best=0.0,
    worst=1.0,
    unit="1",
    kind="membrane",
    definition="warping-error/simple-points/v1",
)
def warping_error(pair: MembranePair, *, reach: float = math.inf) -> float:
    """Share of pixels that stay wrong after bending the reference's membranes without cutting any.

    Counts leaks, cuts, holes and specks by the pixels that mark them, and forgives membranes that
    are thinner, thicker or a little aside. A predicted membrane that nowhere meets the drawn one
    cannot be reached by bending and stays wrong.

    Args:
        pair: The cells as drawn and as predicted.
        reach: How far from the drawn membrane's edge it may be bent, in the pair's unit.

    Returns:
        Unitless, 0 (the same cells up to bending) to 1. NaN if no pixel is judged.

    Raises:
        ValueError: ``reach`` is negative.

    Source:
        Jain et al., CVPR 2010, doi:10.1109/CVPR.2010.5539950. The bending is not unique, so other
        programs differ by a few pixels; its connectivity rules, and slips in the drawing, weigh
        much. For 2D slices only.
    """
    if not reach >= 0:
        raise ValueError(f"reach is a distance of 0 or more, got {reach}")
    cells, predicted = pair.reference_cells, pair.predicted_cells
    allowed = pair.judged
    if math.isfinite(reach) and cells.any() and not cells.all():
        far = np.maximum(
            ndimage.distance_transform_edt(cells, sampling=pair.spacing),
            ndimage.distance_transform_edt(~cells, sampling=pair.spacing),
        )
        allowed = allowed & (far <= reach * (1 + 1e-6))
    wrong = (warp(~cells, ~predicted, allowed) != ~predicted) & pair.judged
    return ratio(int(np.count_nonzero(wrong)), int(np.count_nonzero(pair.judged)))


def _check_images(cells: NDArray[Any], predicted: NDArray[Any]) -> None:
    if cells.shape != predicted.shape or cells.ndim != 2:
        raise ValueError(
            f"reference of {cells.shape} and prediction of {predicted.shape}: expected two images "
            f"(y, x) of one shape; judge a stack slice by slice"
        )


def _score(
    reference: NDArray[np.int32], probability: NDArray[Any], threshold: float, thinned: bool
) -> MembraneScore:
    cells = probability > threshold
    wrong = int(np.count_nonzero(cells != (reference > 0)))
    membrane = int(np.count_nonzero(~cells)) + int(np.count_nonzero(reference == 0))
    # Wrong pixels are membrane in one image only; all other membrane pixels are in both.
    membrane_f1 = (membrane - wrong) / membrane if membrane else math.nan
    pair = InstancePair(reference, label_cells(~thin(~cells) if thinned else cells))
    return MembraneScore(
        float(threshold), v_rand(pair), v_info(pair), wrong / cells.size, membrane_f1
    )
