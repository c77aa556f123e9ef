"""Bands around a straight border, worked out by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics import trimap, trimap_curve

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


def test_the_band_of_infinite_width_is_the_whole_image():
    wrong = HALF.copy()
    wrong[0, 0] = 1
    (band,) = trimap_curve(HALF, wrong, None, [math.inf])
    assert (band.band_voxels, band.band_accuracy, band.rest_voxels) == (160, 159 / 160, 0)
    (nothing,) = trimap_curve(np.ones((4, 4), int), np.ones((4, 4), int), None, [math.inf])
    assert (nothing.band_voxels, nothing.band_accuracy) == (16, 1.0)


def test_widths_in_any_order_and_slab_by_slab_are_those_of_the_whole_distance_map(monkeypatch):
    rng = np.random.default_rng(3)
    drawn = (ndimage.gaussian_filter(rng.standard_normal((30, 24, 20)), 3) > 0).astype(int) * 70000
    predicted, spacing, widths = np.roll(drawn, 2, axis=1), (2.0, 0.5, 0.7), [4.0, 1.0, 2.5]
    far = ndimage.distance_transform_edt(~trimap.label_border(drawn), sampling=spacing)
    monkeypatch.setattr(trimap, "_SLAB", 1)
    for band in trimap_curve(drawn, predicted, spacing, widths):
        inside = far <= band.width + 1e-6
        assert band.band_voxels == np.count_nonzero(inside)
        assert band.band_accuracy == pytest.approx(np.mean((drawn == predicted)[inside]))
        assert band.rest_accuracy == pytest.approx(np.mean((drawn == predicted)[~inside]))


def test_voxels_that_do_not_count_are_in_no_band_and_have_no_border():
    judged = np.ones(HALF.shape, bool)
    judged[:, 9:11] = False
    wrong = HALF.copy()
    wrong[:, 9] = 1
    band, whole = trimap_curve(HALF, wrong, None, [2.0, math.inf], judged=judged)
    assert band.band_voxels == 0
    assert (whole.band_voxels, whole.band_accuracy) == (18 * 8, 1.0)
