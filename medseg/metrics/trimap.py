"""Accuracy and IoU near the ground-truth border and away from it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.borders import bounding_box
from medseg.metrics.contingency import Contingency, Indices, Labels, Runs, checked_labels
from medseg.metrics.masks import check_same_shape, checked_spacing

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Voxels looked at in one go, so that a large volume needs little memory.
_SLAB = 1 << 23
# Counters that are kept densely; with more, only the ones that occur are.
_DENSE = 1 << 20


@dataclass(frozen=True)
class Trimap:
    """How well one band width, and what lies outside it, were labelled.

    Args:
        width: Half of the band, from the border outwards and inwards, in the unit of the spacing.
        band_voxels: Voxels in the band.
        band_accuracy: Share of them that carry the right label; NaN if there are none.
        band_iou: IoU in the band, mean over the labels that occur there; NaN if there are none.
        rest_voxels: Voxels outside the band.
        rest_accuracy: As ``band_accuracy``, outside.
        rest_iou: As ``band_iou``, outside.
    """

    width: float
    band_voxels: int
    band_accuracy: float
    band_iou: float
    rest_voxels: int
    rest_accuracy: float
    rest_iou: float


@dataclass(frozen=True, eq=False)
class _Cells:
    """Voxels of every pair of labels at every distance from the border: one entry each."""

    rank: Indices
    reference: Indices
    prediction: Indices
    voxels: Indices


def trimap_curve(
    reference_labels: NDArray[Any],
    predicted_labels: NDArray[Any],
    spacing: Sequence[float] | None,
    widths: Sequence[float],
    *,
    judged: NDArray[np.bool_] | None = None,
) -> tuple[Trimap, ...]:
    """Return accuracy and IoU inside and outside bands around the ground-truth border.

    It separates a network that blurs borders (bad in the narrow bands) from one that confuses
    structures (bad outside them). Voxels on both sides of the border are in every band: a band of
    width 0 holds the voxels with a differently labelled neighbour, one of infinite width the whole
    image. Works for masks, classes, and objects whose ids agree.

    Args:
        reference_labels: Labels as drawn, (*spatial), background 0 included as a label.
        predicted_labels: Labels to be judged, of the same shape.
        spacing: Distance of neighbouring voxels along each axis; 1 if None.
        widths: Distances from the border voxels in the unit of the spacing, 0 or more.
        judged: Voxels that count; all if None. No border runs along the others.

    Returns:
        One entry per width, in the given order. Without a border in the reference, all bands of
        finite width are empty: their values are NaN, and everything lies outside.

    Raises:
        ValueError: Shapes differ, labels are not whole numbers, or a width is negative.

    Source:
        Trimaps of Kohli et al., IJCV 82 (2009) 302-324, doi:10.1007/s11263-008-0202-0; with
        Euclidean distances in physical units. The image's edge is no border.
    """
    reference = checked_labels("reference", reference_labels)
    prediction = checked_labels("prediction", predicted_labels)
    check_same_shape(reference, prediction)
    steps = checked_spacing(spacing, reference.ndim)
    if any(not width >= 0 for width in widths):
        raise ValueError(f"widths are distances of 0 or more, got {list(widths)}")
    # A millionth of slack: three voxels of 0.1 must not miss 0.3 by rounding.
    limits = np.sort([width * (1 + 1e-6) + 1e-9 for width in widths])
    cells = _count(reference, prediction, steps, limits, judged)
    places = np.argsort(np.argsort(widths, kind="stable"), kind="stable")
    return tuple(
        Trimap(float(width), *_scores(cells, cells.rank <= place),
               *_scores(cells, cells.rank > place))
        for width, place in zip(widths, places, strict=True)
    )  # fmt: skip


def label_border(labels: Labels, judged: Mask | None = None) -> Mask:
    """Tell which voxels have a face neighbour of another label, on both sides of each border."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        lower = (slice(None),) * axis + (slice(None, -1),)
        upper = (slice(None),) * axis + (slice(1, None),)
        change = labels[lower] != labels[upper]
        if judged is not None:
            change &= judged[lower] & judged[upper]
        border[lower] |= change
        border[upper] |= change
    return border


def _count(
    reference: Labels,
    prediction: Labels,
    steps: tuple[float, ...],
    limits: Floats,
    judged: Mask | None,
) -> _Cells:
    """Count the voxels of every pair of labels by the narrowest band that holds them.

    Only voxels near the border are looked at one by one; the others are what is left of all.
    """
    table = Contingency.of(Runs.of(reference, prediction))
    ids = np.union1d(table.reference_ids, table.predicted_ids)
    size = len(ids)
    beyond = int(np.searchsorted(limits, np.inf)) * size * size
    drawn = np.searchsorted(ids, table.reference_ids)[table.reference]
    predicted = np.searchsorted(ids, table.predicted_ids)[table.prediction]
    counts = Counter(dict(zip((beyond + drawn * size + predicted).tolist(),
                              table.shared.tolist(), strict=True)))  # fmt: skip

    def pairs(where: tuple[slice, ...], chosen: Mask) -> Indices:
        drawn, predicted = (_numbers(a[where][chosen], ids) for a in (reference, prediction))
        return drawn * size + predicted

    if judged is not None:
        everywhere = (slice(None),) * reference.ndim
        counts.subtract(_tally(beyond + pairs(everywhere, ~judged)))
    for where, far in _far(label_border(reference, judged), steps, limits):
        chosen = np.isfinite(far) if judged is None else np.isfinite(far) & judged[where]
        pair = pairs(where, chosen)
        counts.subtract(_tally(beyond + pair))
        counts.update(_tally(np.searchsorted(limits, far[chosen]) * size * size + pair))
    keys = np.array(list(counts), np.int64)
    voxels = np.array(list(counts.values()), np.int64)
    keys, voxels = keys[voxels > 0], voxels[voxels > 0]
    return _Cells(keys // size // size, keys // size % size, keys % size, voxels)


def _tally(keys: Indices) -> dict[int, int]:
    """Return how often each number occurs."""
    if keys.size and int(keys.max()) < _DENSE:
        counts = np.bincount(keys)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(keys, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _far(
    border: Mask, steps: tuple[float, ...], limits: Floats
) -> Iterator[tuple[tuple[slice, ...], Floats]]:
    """Yield slabs with the distance of each voxel to the border; infinite beyond all bands."""
    finite = limits[np.isfinite(limits)]
    box = bounding_box(border)
    if not finite.size or not border.any():
        return
    reach = float(finite[-1])
    halo = tuple(math.ceil(reach / step) for step in steps)
    near = tuple(
        slice(max(0, s.start - h), min(n, s.stop + h))
        for s, h, n in zip(box, halo, border.shape, strict=True)
    )
    plane = math.prod(s.stop - s.start for s in near[1:])
    thick = max(1, 2 * halo[0], _SLAB // plane)
    for first in range(near[0].start, near[0].stop, thick):
        slab = slice(first, min(first + thick, near[0].stop))
        wide = slice(max(0, slab.start - halo[0]), slab.stop + halo[0])
        part = border[(wide, *near[1:])]
        if part.any():
            far = ndimage.distance_transform_edt(~part, sampling=steps)
            far = far[slab.start - wide.start :][: slab.stop - slab.start]
            far[far > reach] = np.inf
            yield (slab, *near[1:]), far


def _numbers(labels: Labels, ids: Labels) -> Indices:
    """Return the place of every label among the sorted ids."""
    if int(ids[-1]) < _DENSE:
        table = np.zeros(int(ids[-1]) + 1, np.int64)
        table[ids] = np.arange(len(ids))
        numbers: Indices = table[labels]
        return numbers
    return np.searchsorted(ids, labels).astype(np.int64)


def _scores(cells: _Cells, where: Mask) -> tuple[int, float, float]:
    """Return the number of voxels, their accuracy, and the mean IoU of the labels among them."""
    drawn, predicted, voxels = cells.reference[where], cells.prediction[where], cells.voxels[where]
    whole = int(voxels.sum())
    if not whole:
        return 0, math.nan, math.nan
    size = int(max(drawn.max(), predicted.max())) + 1
    right = drawn == predicted
    shared = np.bincount(drawn[right], weights=voxels[right], minlength=size)
    union = (
        np.bincount(drawn, weights=voxels, minlength=size)
        + np.bincount(predicted, weights=voxels, minlength=size)
        - shared
    )
    occurs = union > 0
    iou = float(np.mean(shared[occurs] / union[occurs]))
    return whole, float(voxels[right].sum() / whole), iou
