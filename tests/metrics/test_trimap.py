"""Bands around a straight border, worked out by hand."""

import math

import numpy as np
import pytest

from medseg.metrics import trimap_curve

HALF = np.zeros((8, 20), int)
HALF[:, 10:] = 1


def test_the_band_of_width_zero_holds_both_sides_of_the_border():
    (band,) = trimap_curve(HALF, HALF, None, [0.0])
    assert (band.band_voxels, band.rest_voxels) == (2 * 8, 18 * 8)
    assert band.band_accuracy == band.band_iou == band.rest_accuracy == band.rest_iou == 1.0


def test_a_border_moved_by_one_voxel_is_wrong_in_the_band_only():
    moved = np.roll(HALF, 1, axis=1)
    moved[:, 0] = 0
    (band,) = trimap_curve(HALF, moved, None, [0.0])
    assert band.band_accuracy == 0.5
    # Label 0: of its voxels there 8 are right and 8 more are painted; label 1 is missed.
    assert band.band_iou == pytest.approx((0.5 + 0.0) / 2)
    assert band.rest_accuracy == 1.0


def test_the_width_is_a_length():
    spacing = (1.0, 0.25)
    bands = trimap_curve(HALF, HALF, spacing, [0.0, 0.25, 0.5])
    assert [band.band_voxels for band in bands] == [16, 32, 48]
    assert [band.width for band in bands] == [0.0, 0.25, 0.5]


def test_three_voxels_of_a_tenth_are_within_three_tenths():
    (band,) = trimap_curve(HALF, HALF, (0.1, 0.1), [0.3])
    assert band.band_voxels == 8 * 8


def test_without_a_border_everything_is_rest():
    (band,) = trimap_curve(np.ones((4, 4), int), np.zeros((4, 4), int), None, [3.0])
    assert band.band_voxels == 0
    assert math.isnan(band.band_accuracy)
    assert (band.rest_accuracy, band.rest_iou) == (0.0, 0.0)


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match="widths are distances"):
        trimap_curve(HALF, HALF, None, [1.0, -1.0])
