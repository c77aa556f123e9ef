"""Metrics of partitions: whether two voxels of one cell are still together, bit by bit or pairwise.

Used for neurons and membranes, where cells fill the image and one leak joins two of them. The
reference's background (the membrane) is not judged unless asked for: where exactly a thin membrane
was drawn says more about the pen than about the cells.

They judge label images of cells and, as ``membrane_definition`` says, also the cells that a drawn
and a predicted membrane keep apart (:class:`~medseg.metrics.membranes.MembranePair`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.contingency import Contingency
from medseg.metrics.masks import METRICS
from medseg.metrics.matching import InstancePair, ratio

Background = Literal["ignore", "singletons", "segment"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AdaptedRand:
    """Agreement on pairs of voxels.

    Args:
        error: One minus the harmonic mean of precision and recall.
        precision: Share of the pairs joined in the prediction that belong together; merges lower
            it.
        recall: Share of the pairs that belong together and were joined; splits lower it.
    """

    error: float
    precision: float
    recall: float


@dataclass(frozen=True)
class _Table:
    """Sizes of the parts that are judged: of both at once, of the reference, of the prediction."""

    shared: Floats
    reference: Floats
    prediction: Floats


def adapted_rand(
    pair: InstancePair, *, background: Background = "ignore", self_pairs: bool = True
) -> AdaptedRand:
    """Judge pairs of voxels: those that belong together, and those that were joined.

    Args:
        pair: The two label images.
        background: ``ignore`` leaves out voxels of the reference's background and takes the
            prediction's for one segment (ISBI 2012); ``singletons`` leaves out the same and takes
            every voxel of the prediction's background for a segment of its own (SNEMI3D, CREMI);
            ``segment`` judges all voxels, the background being one segment in both.
        self_pairs: Whether a voxel makes a pair with itself, as in the source; without them the
            values are scikit-image's.

    Returns:
        Unitless, 0 to 1. NaN if no voxel is judged, or if nothing was joined and nothing
        belongs together. An empty prediction gives error 1, precision 0, recall 0: by its one
        background segment alone it would score as a mild merge.

    Source:
        Arganda-Carreras et al., Front. Neuroanat. 9 (2015) 142, doi:10.3389/fnana.2015.00142.
        scikit-image returns precision and recall the other way round; CREMI divides the squares
        of singletons by the number of voxels once more.
    """
    if pair.status == "empty_prediction":
        return AdaptedRand(1.0, 0.0, 0.0)
    table = _judged(pair.contingency, background)
    less = 0.0 if self_pairs else float(table.shared.sum())
    joined, there, predicted = (
        float(np.dot(sizes, sizes)) - less
        for sizes in (table.shared, table.reference, table.prediction)
    )
    return AdaptedRand(
        1 - ratio(2 * joined, there + predicted), ratio(joined, predicted), ratio(joined, there)
    )


@METRICS.register(
    "adapted_rand_error",
    best=0.0,
    worst=1.0,
    unit="1",
    kind="instance",
    definition="adapted-rand-error/self-pairs/v1",
    membrane_definition="adapted-rand-error/self-pairs/thinned-membrane/v1",
)
def adapted_rand_error(pair: InstancePair, *, background: Background = "ignore") -> float:
    """One minus the F score of joining the right voxels; see :func:`adapted_rand`.

    Args:
        pair: The two label images.
        background: What happens to background voxels, see :func:`adapted_rand`.

    Returns:
        Unitless, 0 (the same cells) to 1. NaN if no voxel is judged, 1 if the prediction is empty.

    Source:
        Arganda-Carreras et al., doi:10.3389/fnana.2015.00142.
    """
    return adapted_rand(pair, background=background).error


@METRICS.register(
    "v_rand",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="v-rand/alpha-half/v1",
    membrane_definition="v-rand/alpha-half/thinned-membrane/v1",
)
def v_rand(pair: InstancePair, *, background: Background = "ignore") -> float:
    """Rand F score: harmonic mean of the precision and recall of joined voxel pairs.

    The score by which ISBI 2012 ranks, there after thinning the predicted membranes: see
    :func:`~medseg.metrics.membranes.membrane_scores`.

    Args:
        pair: The two label images.
        background: What happens to background voxels, see :func:`adapted_rand`.

    Returns:
        Unitless, 0 to 1 (the same cells). NaN if no voxel is judged, 0 if the prediction is empty.

    Source:
        Arganda-Carreras et al., doi:10.3389/fnana.2015.00142, alpha = 0.5.
    """
    return 1 - adapted_rand(pair, background=background).error


@METRICS.register(
    "voi_split",
    best=0.0,
    worst=math.nan,  # bounded by the image's size only
    unit="bit",
    kind="instance",
    definition="voi-split/v1",
    membrane_definition="voi-split/thinned-membrane/v1",
)
def voi_split(pair: InstancePair, *, background: Background = "ignore") -> float:
    """Uncertainty of the predicted segment, given the true cell: high where cells were cut up.

    Args:
        pair: The two label images.
        background: What happens to background voxels, see :func:`adapted_rand`.

    Returns:
        Bits, 0 or more. NaN if no voxel is judged or the prediction is empty.

    Source:
        H(prediction | reference) of Meila, J. Multivar. Anal. 98 (2007) 873-895,
        doi:10.1016/j.jmva.2006.11.013.
    """
    if pair.status == "empty_prediction":
        return math.nan
    table = _judged(pair.contingency, background)
    return _excess(_entropy(table.shared), _entropy(table.reference))


@METRICS.register(
    "voi_merge",
    best=0.0,
    worst=math.nan,  # bounded by the image's size only
    unit="bit",
    kind="instance",
    definition="voi-merge/v1",
    membrane_definition="voi-merge/thinned-membrane/v1",
)
def voi_merge(pair: InstancePair, *, background: Background = "ignore") -> float:
    """Uncertainty of the true cell, given the predicted segment: high where cells were joined.

    Args:
        pair: The two label images.
        background: What happens to background voxels, see :func:`adapted_rand`.

    Returns:
        Bits, 0 or more. NaN if no voxel is judged or the prediction is empty.

    Source:
        H(reference | prediction) of Meila, doi:10.1016/j.jmva.2006.11.013.
    """
    if pair.status == "empty_prediction":
        return math.nan
    table = _judged(pair.contingency, background)
    return _excess(_entropy(table.shared), _entropy(table.prediction))


@METRICS.register(
    "v_info",
    best=1.0,
    worst=0.0,
    unit="1",
    kind="instance",
    definition="v-info/alpha-half/v1",
    membrane_definition="v-info/alpha-half/thinned-membrane/v1",
)
def v_info(pair: InstancePair, *, background: Background = "ignore") -> float:
    """Information that both images share, over the mean of what each holds.

    Args:
        pair: The two label images.
        background: What happens to background voxels, see :func:`adapted_rand`.

    Returns:
        Unitless, 0 to 1 (the same cells; also if both hold one cell only). NaN if no voxel is
        judged, 0 if the prediction is empty.

    Source:
        Arganda-Carreras et al., doi:10.3389/fnana.2015.00142, alpha = 0.5.
    """
    if pair.status == "empty_prediction":
        return 0.0
    table = _judged(pair.contingency, background)
    held = _entropy(table.reference) + _entropy(table.prediction)
    if held == 0:
        return 1.0
    return 2 * _excess(held, _entropy(table.shared)) / held


def _judged(table: Contingency, background: Background) -> _Table:
    if background not in _JUDGED:
        raise ValueError(f'background "{background}" is none of {", ".join(_JUDGED)}')
    return _JUDGED[background](table)


def _all_voxels(table: Contingency) -> _Table:
    return _Table(
        table.shared.astype(np.float64),
        table.reference_sizes.astype(np.float64),
        table.predicted_sizes.astype(np.float64),
    )


def _cells_only(table: Contingency) -> _Table:
    return _all_voxels(table.choose(table.reference_ids[table.reference] > 0))


def _cells_and_singletons(table: Contingency) -> _Table:
    cells = table.choose(table.reference_ids[table.reference] > 0)
    uncovered = cells.predicted_ids[cells.prediction] == 0
    covered = _all_voxels(cells.choose(~uncovered))
    singles = np.ones(int(cells.shared[uncovered].sum()))
    return _Table(
        np.concatenate([covered.shared, singles]),
        cells.reference_sizes.astype(np.float64),
        np.concatenate([covered.prediction, singles]),
    )


_JUDGED: dict[str, Callable[[Contingency], _Table]] = {
    "ignore": _cells_only,
    "singletons": _cells_and_singletons,
    "segment": _all_voxels,
}


def _entropy(sizes: Floats) -> float:
    """Return the entropy of a partition in bits; NaN if there is nothing to part."""
    whole = float(sizes.sum())
    if not whole:
        return math.nan
    shares = sizes[sizes > 0] / whole
    # Adding 0 turns the -0 of a single part into 0.
    return float(-np.sum(shares * np.log2(shares))) + 0.0


def _excess(larger: float, smaller: float) -> float:
    """Return the difference without what rounding takes it below 0; NaN stays NaN."""
    return float(np.maximum(larger - smaller, 0.0))
