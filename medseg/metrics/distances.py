"""Metrics of the distance between two borders."""

import math

import numpy as np

from medseg.metrics.masks import METRICS, MaskPair


@METRICS.register(
    "hd",
    best=0.0,
    worst="diagonal",
    unit="length",
    kind="mask",
    definition="hd/surfel-maxdirected/v1",
    voxel_definition="hd/voxel-maxdirected/v1",
)
def hausdorff(pair: MaskPair) -> float:
    """Largest distance from any place of one border to the other border.

    One stray voxel decides it. Use it where a single outlier is dangerous (a needle path); else
    prefer the 95th percentile.

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.

    Returns:
        A length in the pair's unit, 0 or more. NaN if a mask is empty; ``pair.status`` says which.

    Source:
        Huttenlocher et al., IEEE TPAMI 15 (1993) 850-863, doi:10.1109/34.232073. Taken between
        borders, not between all voxels of the masks.
    """
    return hausdorff_percentile(pair, percentile=100.0)


@METRICS.register(
    "hd95",
    best=0.0,
    worst="diagonal",
    unit="length",
    kind="mask",
    definition="hd95/surfel-area-step-maxdirected/v1",
    voxel_definition="hd95/voxel-linear-maxdirected/v1",
)
def hd95(pair: MaskPair) -> float:
    """Distance within which 95 % of each border lies from the other border.

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.

    Returns:
        A length in the pair's unit, 0 or more. NaN if a mask is empty; ``pair.status`` says which.

    Source:
        See :func:`hausdorff_percentile`.
    """
    return hausdorff_percentile(pair, percentile=95.0)


def hausdorff_percentile(pair: MaskPair, *, percentile: float) -> float:
    """Distance within which a given percentage of each border lies from the other border.

    The percentile is taken over border area for each direction apart; the larger one counts.
    Tools that pool both directions report less where only one border strays.

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.
        percentile: Percentage of the border area, above 0 and up to 100 (the largest distance).

    Returns:
        A length in the pair's unit, 0 or more. NaN if a mask is empty; ``pair.status`` says which.

    Raises:
        ValueError: ``percentile`` is not above 0 and at most 100.

    Source:
        Robust Hausdorff distance of Nikolov et al., arXiv:1809.04430: area-weighted, without
        interpolation. With the ``voxel`` backend every border voxel counts once and the
        percentile is interpolated, as in MONAI and MetricsReloaded.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile lies above 0 and up to 100, got {percentile}")
    if pair.status != "ok":
        return math.nan
    return max(border.percentile(percentile) for border in pair.border_distances)


@METRICS.register(
    "assd",
    best=0.0,
    worst="diagonal",
    unit="length",
    kind="mask",
    definition="assd/surfel-area-pooled/v1",
    voxel_definition="assd/voxel-pooled/v1",
)
def assd(pair: MaskPair) -> float:
    """Mean distance between the borders, over the area of both (average symmetric distance).

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.

    Returns:
        A length in the pair's unit, 0 or more. NaN if a mask is empty; ``pair.status`` says which.

    Source:
        Heimann et al., IEEE TMI 28 (2009) 1251-1265, doi:10.1109/TMI.2009.2013851; there over
        border voxels, here over border area.
    """
    if pair.status != "ok":
        return math.nan
    both = pair.border_distances
    return sum(b.integral for b in both) / sum(b.area for b in both)


@METRICS.register(
    "masd",
    best=0.0,
    worst="diagonal",
    unit="length",
    kind="mask",
    definition="masd/surfel-area-mean-of-directed/v1",
    voxel_definition="masd/voxel-mean-of-directed/v1",
)
def masd(pair: MaskPair) -> float:
    """Mean of the two directed mean distances; a short border weighs as much as a long one.

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.

    Returns:
        A length in the pair's unit, 0 or more. NaN if a mask is empty; ``pair.status`` says which.

    Source:
        Mean average surface distance of Reinke et al., Nature Methods 21 (2024) 182-194,
        doi:10.1038/s41592-023-02150-0; there over border voxels, here over border area.
    """
    if pair.status != "ok":
        return math.nan
    return sum(b.integral / b.area for b in pair.border_distances) / 2


@METRICS.register(
    "nsd",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="mask",
    definition="nsd/surfel-area/v1",
    voxel_definition="nsd/voxel/v1",
)
def nsd(pair: MaskPair, *, tolerance: float) -> float:
    """Share of both borders that lies within ``tolerance`` of the other (surface Dice).

    Set the tolerance to the distance by which two readers disagree on the same structure; the
    score then counts only the border that a reader would have to redraw.

    Args:
        pair: The two masks, each (*spatial), with the spacing and unit of their grid.
        tolerance: Largest harmless distance, in the pair's unit.

    Returns:
        Unitless, 0 (no border in reach) to 1 (all of it). NaN if both masks are empty: there is
        no border to judge. 0 if only one is.

    Raises:
        ValueError: ``tolerance`` is negative or not a number.

    Source:
        Surface Dice of Nikolov et al., arXiv:1809.04430. Here a distance that exceeds the
        tolerance by rounding alone (3 x 0.1 against 0.3) is within it.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a distance of 0 or more, got {tolerance}")
    if pair.status == "both_empty":
        return math.nan
    # A millionth of slack: three voxels of 0.1 must not miss 0.3 by rounding.
    reach = tolerance * (1 + 1e-6) + 1e-9
    both = pair.border_distances
    within = sum(float(np.sum(b.areas[b.distances <= reach])) for b in both)
    return within / sum(b.area for b in both)
