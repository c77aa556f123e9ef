"""Metrics of shared volume."""

import math

from medseg.metrics.masks import METRICS, MaskPair


@METRICS.register(
    "dice",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="mask",
    definition="dice/voxel/v1",
)
def dice(pair: MaskPair) -> float:
    """Twice the shared volume over the sum of both volumes.

    It hardly sees the border of a large structure: one voxel all around a liver costs 0.02, all
    around a small lesion 0.5. Report a border metric beside it.

    Args:
        pair: The two masks, each (*spatial).

    Returns:
        Unitless, 0 (nothing shared) to 1 (the same voxels). NaN if both masks are empty: there is
        nothing to judge. 0 if only one is.

    Source:
        Dice, Ecology 26 (1945) 297-302, doi:10.2307/1932409.
    """
    counts = pair.counts
    return _share(2 * counts.shared, counts.reference + counts.prediction)


@METRICS.register(
    "iou",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="mask",
    definition="iou/voxel/v1",
)
def iou(pair: MaskPair) -> float:
    """Shared volume over the volume that either mask covers (Jaccard index).

    It orders two predictions of one structure as the Dice score does, with lower numbers.

    Args:
        pair: The two masks, each (*spatial).

    Returns:
        Unitless, 0 to 1. NaN if both masks are empty, 0 if only one is.

    Source:
        Jaccard, New Phytologist 11 (1912) 37-50, doi:10.1111/j.1469-8137.1912.tb05611.x.
    """
    counts = pair.counts
    return _share(counts.shared, counts.reference + counts.prediction - counts.shared)


@METRICS.register(
    "precision",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="mask",
    definition="precision/voxel/v1",
)
def precision(pair: MaskPair) -> float:
    """Share of the prediction that lies in the reference; low where too much was painted.

    Args:
        pair: The two masks, each (*spatial).

    Returns:
        Unitless, 0 to 1. NaN if both masks are empty. 0 if only one is, also where an empty
        prediction leaves 0/0: a missed structure must not raise a mean.

    Source:
        Positive predictive value; Taha & Hanbury, BMC Med. Imaging 15 (2015) 29,
        doi:10.1186/s12880-015-0068-x. The source leaves 0/0 open.
    """
    return _share_of(pair, pair.counts.prediction)


@METRICS.register(
    "recall",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="mask",
    definition="recall/voxel/v1",
)
def recall(pair: MaskPair) -> float:
    """Share of the reference that the prediction found (sensitivity).

    Args:
        pair: The two masks, each (*spatial).

    Returns:
        Unitless, 0 to 1. NaN if both masks are empty. 0 if only one is, also where an empty
        reference leaves 0/0: an invented structure must not raise a mean.

    Source:
        Taha & Hanbury, BMC Med. Imaging 15 (2015) 29, doi:10.1186/s12880-015-0068-x. The source
        leaves 0/0 open.
    """
    return _share_of(pair, pair.counts.reference)


@METRICS.register(
    "volume_difference",
    best=0.0,
    worst=1.0,
    unit="1",
    kind="mask",
    definition="volume-difference/relative-absolute/v1",
)
def volume_difference(pair: MaskPair) -> float:
    """Difference of the two volumes (areas in 2D), relative to the reference, without its sign.

    It says nothing about place: a mask on the wrong side of the image can score 0, the best value.
    Precision and recall tell whether too much or too little was painted.

    Args:
        pair: The two masks, each (*spatial).

    Returns:
        Unitless, 0 (equal volumes) upwards; 1 if the prediction is empty or twice as large. NaN
        if the reference is empty: there is no volume to relate to.

    Source:
        Heimann et al., IEEE TMI 28 (2009) 1251-1265, doi:10.1109/TMI.2009.2013851; there in per
        cent.
    """
    counts = pair.counts
    return _share(abs(counts.prediction - counts.reference), counts.reference)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _share_of(pair: MaskPair, whole: int) -> float:
    if pair.status == "both_empty":
        return math.nan
    return _share(pair.counts.shared, whole) if whole else 0.0
