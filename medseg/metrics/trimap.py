"""Accuracy and IoU near the ground-truth border and away from it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.borders import bounding_box
from medseg.metrics.contingency import Indices, Labels, Runs, checked_labels
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
    """Count the voxels of every pair of labels by the narrowest band that holds them."""
    runs = Runs.of(reference, prediction)
    ids = np.union1d(runs.reference_ids, runs.predicted_ids)
    size = len(ids)
    found: dict[int, int] = {}
    for slab, rank in _ranks(label_border(reference, judged), steps, limits):
        key = rank * size
        key += _numbers(reference[slab], ids)
        key *= size
        key += _numbers(prediction[slab], ids)
        chosen = key.ravel() if judged is None else key[judged[slab]]
        if (len(limits) + 1) * size * size <= _DENSE:
            counts = np.bincount(chosen)
            keys = np.flatnonzero(counts)
            counts = counts[keys]
        else:
            keys, counts = np.unique(chosen, return_counts=True)
        for one, voxels in zip(keys.tolist(), counts.tolist(), strict=True):
            found[one] = found.get(one, 0) + voxels
    keys = np.array(list(found), np.int64)
    voxels = np.array(list(found.values()), np.int64)
    return _Cells(keys // size // size, keys // size % size, keys % size, voxels)


def _ranks(
    border: Mask, steps: tuple[float, ...], limits: Floats
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield slabs of the image with the number of the narrowest band that holds each voxel."""
    finite = limits[np.isfinite(limits)]
    reach = float(finite[-1]) if finite.size else 0.0
    beyond = int(np.searchsorted(limits, np.inf))
    halo = tuple(math.ceil(reach / step) for step in steps)
    box = bounding_box(border)
    near = tuple(
        slice(max(0, s.start - h), min(n, s.stop + h))
        for s, h, n in zip(box, halo, border.shape, strict=True)
    )
    thick = max(1, 2 * halo[0], _SLAB // max(1, math.prod(border.shape[1:])))
    for first in range(0, border.shape[0], thick):
        slab = slice(first, min(first + thick, border.shape[0]))
        rank = np.full((slab.stop - slab.start, *border.shape[1:]), beyond, np.int64)
        wide = slice(max(0, slab.start - halo[0]), slab.stop + halo[0])
        part = border[(wide, *near[1:])]
        if part.any():
            far = ndimage.distance_transform_edt(~part, sampling=steps)
            far = far[slab.start - wide.start :][: slab.stop - slab.start]
            rank[(slice(None), *near[1:])] = np.searchsorted(limits, far)
        yield slab, rank


def _numbers(labels: Labels, ids: Labels) -> NDArray[np.int64]:
    """Return the place of every label among the sorted ids."""
    if int(ids[-1]) < _DENSE:
        table = np.zeros(int(ids[-1]) + 1, np.int64)
        table[ids] = np.arange(len(ids))
        numbers: NDArray[np.int64] = table[labels]
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
