"""Accuracy and IoU near the ground-truth border and away from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.contingency import Labels, checked_labels
from medseg.metrics.masks import check_same_shape, checked_spacing

Mask = NDArray[np.bool_]


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


def trimap_curve(
    reference_labels: NDArray[Any],
    predicted_labels: NDArray[Any],
    spacing: Sequence[float] | None,
    widths: Sequence[float],
) -> tuple[Trimap, ...]:
    """Return accuracy and IoU inside and outside bands around the ground-truth border.

    It separates a network that blurs borders (bad in the narrow bands) from one that confuses
    structures (bad outside them). Voxels on both sides of the border are in every band: a band of
    width 0 holds the voxels with a differently labelled neighbour. Works for masks, classes, and
    objects whose ids agree.

    Args:
        reference_labels: Labels as drawn, (*spatial), background 0 included as a label.
        predicted_labels: Labels to be judged, of the same shape.
        spacing: Distance of neighbouring voxels along each axis; 1 if None.
        widths: Distances from the border voxels in the unit of the spacing, 0 or more.

    Returns:
        One entry per width, in the given order. Without a border in the reference, all bands are
        empty: their values are NaN, and everything lies outside.

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
    border = label_border(reference)
    if border.any():
        far = ndimage.distance_transform_edt(~border, sampling=steps)
    else:
        far = np.full(reference.shape, np.inf)
    # A millionth of slack: three voxels of 0.1 must not miss 0.3 by rounding.
    bands = [far <= width * (1 + 1e-6) + 1e-9 for width in widths]
    return tuple(
        Trimap(float(width), *_scores(reference, prediction, band),
               *_scores(reference, prediction, ~band))
        for width, band in zip(widths, bands, strict=True)
    )  # fmt: skip


def label_border(labels: Labels) -> Mask:
    """Tell which voxels have a face neighbour of another label, on both sides of each border."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        lower = (slice(None),) * axis + (slice(None, -1),)
        upper = (slice(None),) * axis + (slice(1, None),)
        change = labels[lower] != labels[upper]
        border[lower] |= change
        border[upper] |= change
    return border


def _scores(reference: Labels, prediction: Labels, where: Mask) -> tuple[int, float, float]:
    """Return the number of voxels, their accuracy, and the mean IoU of the labels among them."""
    drawn, predicted = reference[where], prediction[where]
    if not drawn.size:
        return 0, math.nan, math.nan
    right = drawn == predicted
    labels, places = np.unique(np.concatenate([drawn, predicted]), return_inverse=True)
    both = np.bincount(places.reshape(-1), minlength=len(labels))
    shared = np.bincount(places.reshape(-1)[: drawn.size], weights=right, minlength=len(labels))
    return int(drawn.size), float(np.mean(right)), float(np.mean(shared / (both - shared)))
