"""Metrics of objects: how many were found, and how well."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.contingency import Indices
from medseg.metrics.masks import METRICS
from medseg.metrics.matching import InstancePair, ratio

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@METRICS.register(
    "average_precision",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="ap/iou-strict-tp-over-tp-fp-fn/v1",
)
def average_precision(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Found objects over found, invented and missed ones.

    The cell papers' "AP", also called accuracy or critical success index. It is not the average
    precision of COCO, which ranks predictions by their confidence.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty, 0 if only one is.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        StarDist, arXiv:1806.03535; there an IoU that equals the threshold counts, too.
    """
    match = pair.matching(threshold)
    return ratio(match.found, match.found + match.invented + match.missed)


@METRICS.register(
    "mean_average_precision",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="map/iou-strict-tp-over-tp-fp-fn/v1",
)
def mean_average_precision(
    pair: InstancePair, *, thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """Mean of :func:`average_precision` over IoU thresholds, 0.50 to 0.95 unless told otherwise.

    Args:
        pair: The two label images.
        thresholds: IoU thresholds; some papers stop at 0.9, so state yours.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty, 0 if only one is.

    Raises:
        ValueError: There is no threshold, or one is not in [0, 1).

    Source:
        Data Science Bowl 2018; Caicedo et al., Nature Methods 16 (2019) 1247-1253,
        doi:10.1038/s41592-019-0612-7.
    """
    if not thresholds:
        raise ValueError("mean_average_precision needs at least one threshold")
    return sum(average_precision(pair, threshold=t) for t in thresholds) / len(thresholds)


@METRICS.register(
    "instance_precision",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="instance-precision/iou-strict/v1",
)
def instance_precision(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Share of predicted objects that stand for a reference object.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty; 0 if only one is.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        Caicedo et al., doi:10.1038/s41592-019-0612-7.
    """
    match = pair.matching(threshold)
    return 0.0 if pair.one_empty else ratio(match.found, match.found + match.invented)


@METRICS.register(
    "instance_recall",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="instance-recall/iou-strict/v1",
)
def instance_recall(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Share of reference objects that were found.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty; 0 if only one is.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        Caicedo et al., doi:10.1038/s41592-019-0612-7.
    """
    match = pair.matching(threshold)
    return 0.0 if pair.one_empty else ratio(match.found, match.found + match.missed)


@METRICS.register(
    "instance_f1",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="instance-f1/iou-strict/v1",
)
def instance_f1(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Harmonic mean of object precision and recall; the recognition quality of PQ.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty, 0 if only one is.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        Caicedo et al., doi:10.1038/s41592-019-0612-7; RQ of Kirillov et al., arXiv:1801.00868.
    """
    match = pair.matching(threshold)
    return ratio(2 * match.found, 2 * match.found + match.invented + match.missed)


@METRICS.register(
    "segmentation_quality",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="sq/iou-strict/v1",
)
def segmentation_quality(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Mean IoU of the objects that were found.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty; 0 if there are objects and none was found.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        SQ of Kirillov et al., arXiv:1801.00868.
    """
    match = pair.matching(threshold)
    if pair.status == "both_empty":
        return math.nan
    return float(np.mean(match.iou)) if match.found else 0.0


@METRICS.register(
    "panoptic_quality",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="pq/iou-strict/v1",
)
def panoptic_quality(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """How many objects were found, times how well: F1 times the mean IoU of the found ones.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty, 0 if only one is.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        Kirillov et al., arXiv:1801.00868, for one class.
    """
    found = instance_f1(pair, threshold=threshold)
    return found * segmentation_quality(pair, threshold=threshold)


@METRICS.register(
    "aji",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="aji/kumar2017/v1",
)
def aji(pair: InstancePair) -> float:
    """Aggregated Jaccard index: shared voxels of best partners over all voxels involved.

    Large objects weigh more, a predicted object may serve several reference objects, and swapping
    the two images changes the value. Show PQ beside it.

    Args:
        pair: The two label images.

    Returns:
        Unitless, 0 to 1. NaN if both images are empty, 0 if only one is.

    Source:
        Kumar et al., IEEE TMI 36 (2017) 1550-1560, doi:10.1109/TMI.2017.2677499. The best partner
        is the one of largest IoU, and of those the one that shares most voxels; two that are equal
        in both are told apart by their numbers alone.
    """
    cells, table = pair.overlaps, pair.contingency
    # The last cell of each reference object in this order is its best partner.
    order = np.lexsort((cells.shared, pair.iou, cells.reference))
    last = np.flatnonzero(np.diff(cells.reference[order], append=-1))
    best = order[last]
    shared = int(cells.shared[best].sum())
    used = np.unique(cells.prediction[best])
    # Each union is its two objects less what they share; a partner counts once per use.
    partners = int(table.predicted_sizes[cells.prediction[best]].sum())
    unused = _objects(table.predicted_ids, table.predicted_sizes) - int(
        table.predicted_sizes[used].sum()
    )
    drawn = _objects(table.reference_ids, table.reference_sizes)
    return ratio(shared, drawn + partners - shared + unused)


def _objects(ids: NDArray[np.integer], sizes: Indices) -> int:
    """Return the voxels of all objects, the background left out."""
    return int(sizes[ids > 0].sum())
