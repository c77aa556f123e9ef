"""Metrics of objects: what went wrong, and what mending it would cost."""

import math

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.contingency import Indices
from medseg.metrics.masks import METRICS
from medseg.metrics.matching import InstancePair, ratio


@METRICS.register(
    "splits",
    best=0.0,
    worst=math.nan,  # however many there are, there could be more
    unit="count",
    kind="instance",
    definition="splits/majority-of-fragment/v1",
)
def splits(pair: InstancePair) -> float:
    """Count the reference objects that the prediction cut in two or more.

    An object is split if at least two predicted objects lie with more than half of their own
    voxels in it. A missing object is no split, so read the recall beside it.

    Args:
        pair: The two label images.

    Returns:
        A number of objects. NaN if both images are empty; 0 if only one is.

    Source:
        Ours; it counts what Hoover et al., IEEE TPAMI 18 (1996) 673-689,
        doi:10.1109/34.506791, call over-segmentation, without their lower limit on the covered
        share of the reference object.
    """
    cells, sizes = pair.overlaps, pair.contingency.predicted_sizes
    held = 2 * cells.shared > sizes[cells.prediction]
    return _held_more_than_once(pair, cells.reference[held])


@METRICS.register(
    "merges",
    best=0.0,
    worst=math.nan,  # however many there are, there could be more
    unit="count",
    kind="instance",
    definition="merges/majority-of-object/v1",
)
def merges(pair: InstancePair) -> float:
    """Count the predicted objects that join two or more reference objects.

    A predicted object is a merge if it holds more than half of the voxels of at least two
    reference objects. It is :func:`splits` with the two images swapped.

    Args:
        pair: The two label images.

    Returns:
        A number of objects. NaN if both images are empty; 0 if only one is.

    Source:
        See :func:`splits`; what Hoover et al. call under-segmentation.
    """
    cells, sizes = pair.overlaps, pair.contingency.reference_sizes
    held = 2 * cells.shared > sizes[cells.reference]
    return _held_more_than_once(pair, cells.prediction[held])


@METRICS.register(
    "ctc_seg",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="seg/ctc/v1",
)
def ctc_seg(pair: InstancePair) -> float:
    """Mean IoU over the reference objects, each with the object that covers most of it.

    An object whose larger half nobody covers counts 0. Invented objects cost nothing: always show
    :func:`ctc_det` or the F1 score beside it.

    Args:
        pair: The two label images of one frame or volume.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty; 0 if only one is.

    Source:
        SEG of the Cell Tracking Challenge, Ulman et al., Nature Methods 14 (2017) 1141-1152,
        doi:10.1038/nmeth.4473. Undefined there for an empty reference.
    """
    if pair.one_empty:
        return 0.0
    return ratio(float(pair.iou[_covering(pair)].sum()), pair.reference_count)


@METRICS.register(
    "ctc_det",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="det/ctc-aogm-d/v1",
)
def ctc_det(pair: InstancePair) -> float:
    """One minus the cost of mending the detections, relative to adding every object by hand.

    Adding a missed object costs 10, splitting a merged one 5 for each further object, deleting an
    invented one 1.

    Args:
        pair: The two label images of one frame or volume.

    Returns:
        Unitless, 0 to 1. NaN if the reference is empty: there is no cost to relate to.

    Source:
        DET of the Cell Tracking Challenge: Matula et al., PLoS ONE 10 (2015) e0144959,
        doi:10.1371/journal.pone.0144959.
    """
    if not pair.reference_count:
        return math.nan
    holders = pair.overlaps.prediction[_covering(pair)]
    distinct = len(np.unique(holders))
    missed = pair.reference_count - len(holders)
    cost = 10 * missed + 5 * (len(holders) - distinct) + (pair.predicted_count - distinct)
    worst = 10 * pair.reference_count
    return 1 - min(cost, worst) / worst


def _held_more_than_once(pair: InstancePair, holders: Indices) -> float:
    if pair.status == "both_empty":
        return math.nan
    return float(np.count_nonzero(np.unique(holders, return_counts=True)[1] > 1))


def _covering(pair: InstancePair) -> NDArray[np.bool_]:
    """Tell which cells hold more than half of their reference object: at most one per object."""
    cells, table = pair.overlaps, pair.contingency
    covering: NDArray[np.bool_] = 2 * cells.shared > table.reference_sizes[cells.reference]
    return covering
