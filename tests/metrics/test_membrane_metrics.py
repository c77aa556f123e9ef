"""Cells and membranes worked out by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics import (
    InstancePair,
    MembranePair,
    adapted_rand,
    membrane_scores,
    pixel_error,
    v_info,
    v_rand,
    voi_merge,
    voi_split,
    warping_error,
)
from medseg.metrics.topology import simple_codes, thin


def two_rooms(wall: int = 20, thickness: int = 1, side: int = 41) -> np.ndarray:
    """Two cells with a vertical membrane between them; True inside cells."""
    cells = np.ones((side, side), bool)
    cells[:, wall : wall + thickness] = False
    return cells


def test_a_merge_lowers_precision_and_a_split_lowers_recall():
    apart, joined = np.array([[1, 1, 2, 2]]), np.array([[5, 5, 5, 5]])
    merge, split = InstancePair(apart, joined), InstancePair(joined, apart)

    rand = adapted_rand(merge)
    assert (rand.precision, rand.recall, rand.error) == pytest.approx((0.5, 1.0, 1 / 3))
    rand = adapted_rand(split)
    assert (rand.precision, rand.recall, rand.error) == pytest.approx((1.0, 0.5, 1 / 3))
    assert (voi_split(merge), voi_merge(merge)) == (0.0, 1.0)  # one bit: which of two cells
    assert (voi_split(split), voi_merge(split)) == (1.0, 0.0)
    assert v_rand(merge) == v_rand(split) == pytest.approx(2 / 3)
    assert v_info(merge) == v_info(split) == 0.0


def test_the_background_rule_decides_what_a_gap_in_a_cell_costs():
    reference = np.ones((1, 8), int)
    prediction = np.array([[1, 1, 1, 0, 0, 2, 2, 2]])
    pair = InstancePair(reference, prediction)
    # Of 64 pairs 9 + 4 + 9 are joined; as singletons the gap's two voxels join 1 + 1.
    assert adapted_rand(pair, background="ignore").recall == pytest.approx(22 / 64)
    assert adapted_rand(pair, background="singletons").recall == pytest.approx(20 / 64)
    assert adapted_rand(pair, background="segment").recall == pytest.approx(22 / 64)


def test_an_unknown_background_rule_is_refused():
    pair = InstancePair(np.ones((2, 2), int), np.ones((2, 2), int))
    with pytest.raises(ValueError, match='background "keep" is none of ignore, singletons'):
        adapted_rand(pair, background="keep")


def test_a_prediction_without_cells_is_an_error_of_one():
    cells = np.array([[1, 1, 0, 2, 2]])
    rand = adapted_rand(InstancePair(cells, np.zeros_like(cells)))
    assert (rand.error, rand.precision, rand.recall) == (1.0, 0.0, 0.0)


def test_only_pixels_that_keep_their_surroundings_together_are_simple():
    simple = simple_codes()
    assert not simple[0]  # a lone membrane pixel, or a hole filled
    assert not simple[255]  # a hole opened
    for code in (0b01000010, 0b00011000):  # a line through the middle: its removal joins cells
        assert not simple[code]
    for code in (0b00000010, 0b01000000, 0b00001000, 0b00010000):  # the end of a line
        assert simple[code]
    # Eight turns and mirrors of a neighbourhood are alike.
    pixels = [(code >> np.arange(8)) & 1 for code in range(256)]
    for code, bits in enumerate(pixels):
        square = np.insert(bits, 4, 0).reshape(3, 3)
        for turned in (np.rot90(square), square.T):
            other = int(np.delete(turned.ravel(), 4) @ (1 << np.arange(8)))
            assert simple[code] == simple[other]


@pytest.mark.parametrize("seed", range(5))
def test_thinning_keeps_every_cell_apart(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((80, 80)), 3)
    membrane = np.abs(smooth) < 0.02
    thinned = thin(membrane)
    assert not (thinned & ~membrane).any()
    before, n_before = ndimage.label(~membrane)
    after, n_after = ndimage.label(~thinned)
    assert n_before == n_after
    # Each old cell lies in one new cell.
    pairs = {(a, b) for a, b in zip(before[~membrane], after[~membrane], strict=True)}
    assert len(pairs) == n_before
    # Nothing is left to take away but the ends of lines.
    assert (thin(thinned) == thinned).all()


def test_a_thick_membrane_becomes_one_pixel_wide():
    thinned = thin(~two_rooms(wall=15, thickness=7))
    assert (thinned.sum(axis=1) == 1).all()


def test_thinning_forgives_the_width_of_a_membrane():
    reference, thick = two_rooms(20, 1), two_rooms(16, 9)
    scores = membrane_scores(reference, thick.astype(float), thresholds=[0.5])
    raw = membrane_scores(reference, thick.astype(float), thresholds=[0.5], thinned=False)
    assert scores.v_rand == pytest.approx(1.0, abs=1e-3)
    assert raw.v_rand < 0.9
    assert scores.pixel_error == raw.pixel_error == pytest.approx(8 / 41)


def test_a_leak_of_one_pixel_joins_two_cells():
    leaking = two_rooms(20, 1)
    leaking[7, 20] = True
    scores = membrane_scores(two_rooms(20, 1), leaking.astype(float), thresholds=[0.5])
    assert scores.v_rand == pytest.approx(2 / 3, abs=0.01)  # two equal cells joined
    assert scores.v_info == pytest.approx(0.0, abs=0.05)
    assert scores.pixel_error == 1 / 41**2


def test_the_best_threshold_counts_for_each_score():
    reference = two_rooms(20, 1)
    probability = np.where(reference, 0.95, 0.55)  # the membrane shows above 0.55 only
    scores = membrane_scores(reference, probability)
    by_threshold = {score.threshold: score for score in scores.curve}
    assert by_threshold[0.5].v_rand == pytest.approx(0.667, abs=0.01)
    assert by_threshold[0.6].v_rand == by_threshold[0.9].v_rand == scores.v_rand == 1.0
    assert by_threshold[0.5].membrane_f1 == 0.0
    assert by_threshold[0.6].membrane_f1 == scores.v_info == 1.0
    assert scores.pixel_error == 0.0


def test_pixel_error_is_the_share_of_wrong_pixels():
    assert pixel_error(MembranePair(two_rooms(20), two_rooms(21))) == 2 / 41


def test_a_membrane_drawn_a_little_aside_is_no_warping_error():
    assert warping_error(MembranePair(two_rooms(20, 5), two_rooms(23, 5))) == 0.0
    assert warping_error(MembranePair(two_rooms(20, 3), two_rooms(19, 7))) == 0.0
    assert pixel_error(MembranePair(two_rooms(20, 5), two_rooms(23, 5))) == 6 / 41


def test_a_leak_and_a_speck_are_warping_errors_of_one_pixel_each():
    leaking = two_rooms(20)
    leaking[7, 20] = True
    assert warping_error(MembranePair(two_rooms(20), leaking)) == 1 / 41**2
    leaking[30, 5] = False
    assert warping_error(MembranePair(two_rooms(20), leaking)) == 2 / 41**2


def test_bending_stays_within_reach():
    # Three columns change sides on each edge; the third lies 3 pixels from it.
    assert warping_error(MembranePair(two_rooms(20, 5), two_rooms(23, 5)), reach=2.0) == 2 / 41
    assert warping_error(MembranePair(two_rooms(20, 5), two_rooms(23, 5)), reach=3.0) == 0.0


def test_scores_of_a_reference_without_cells_are_nan():
    scores = membrane_scores(np.zeros((9, 9), bool), np.ones((9, 9)), thresholds=[0.5])
    assert math.isnan(scores.v_rand)


@pytest.mark.parametrize(
    ("cells", "probability", "message"),
    [
        (np.ones((3, 3)), np.ones((3, 4)), "of one shape"),
        (np.ones((3, 3, 3)), np.ones((3, 3, 3)), "slice by slice"),
        (np.ones((3, 3)), np.full((3, 3), 255.0), "divide an 8-bit map by 255"),
        (np.ones((3, 3)), np.full((3, 3), np.nan), "expected 0 to 1"),
    ],
)
def test_images_that_are_no_membrane_map_are_refused(cells, probability, message):
    with pytest.raises(ValueError, match=message):
        membrane_scores(cells, probability)
