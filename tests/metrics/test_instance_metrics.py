"""Objects found, split, merged, missed and invented; worked out by hand."""

import math

import numpy as np
import pytest

from medseg.metrics import (
    METRICS,
    InstancePair,
    aji,
    average_precision,
    ctc_det,
    ctc_seg,
    instance_assd,
    instance_borders,
    instance_f1,
    instance_precision,
    instance_recall,
    mean_average_precision,
    merges,
    panoptic_quality,
    segmentation_quality,
    splits,
)

INSTANCE_METRICS = [name for name in METRICS if METRICS.facts(name)["kind"] == "instance"]


def strips(*lengths: int, height: int = 4) -> np.ndarray:
    """Objects of these lengths side by side along x, numbered from 1."""
    row = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.tile(row, (height, 1))


def test_one_object_split_in_two_is_counted_as_a_split():
    pair = InstancePair(strips(10, 10), strips(5, 5, 10))
    assert (splits(pair), merges(pair)) == (1, 0)


def test_two_objects_joined_are_counted_as_a_merge():
    pair = InstancePair(strips(10, 10, 10), strips(20, 10))
    assert (splits(pair), merges(pair)) == (0, 1)


def test_a_border_moved_a_little_is_neither_split_nor_merge():
    pair = InstancePair(strips(10, 10), strips(8, 12))
    assert (splits(pair), merges(pair)) == (0, 0)


def test_a_match_needs_more_than_the_threshold():
    halves = InstancePair(strips(10), strips(5, 5))
    assert average_precision(halves, threshold=0.5) == 0.0
    assert average_precision(halves, threshold=0.49) == 0.5  # one of the halves, the other invented


def test_two_found_one_missed_one_invented():
    reference, prediction = np.zeros((2, 10, 40), int)
    reference[1:5, 0:10], reference[1:5, 12:22], reference[1:5, 30:40] = 1, 2, 3
    prediction[1:5, 0:10], prediction[1:5, 14:22], prediction[6:9, 30:40] = 9, 8, 7
    pair = InstancePair(reference, prediction)

    assert instance_precision(pair) == instance_recall(pair) == instance_f1(pair) == 2 / 3
    assert average_precision(pair) == 2 / 4
    assert segmentation_quality(pair) == pytest.approx((1.0 + 0.8) / 2)
    assert panoptic_quality(pair) == pytest.approx(2 / 3 * 0.9)
    assert ctc_seg(pair) == pytest.approx((1.0 + 0.8 + 0.0) / 3)
    assert ctc_det(pair) == pytest.approx(1 - (10 + 1) / 30)
    # Shared 40 + 32; unions 40 + 40, the missed object 40 and the invented one 30.
    assert aji(pair) == pytest.approx(72 / 150)


def test_the_mean_over_thresholds_counts_those_that_an_object_passes():
    # IoU 8/10: found at 0.50, 0.55, ..., 0.75; a threshold of 0.80 is not exceeded.
    pair = InstancePair(strips(10), np.where(np.arange(10) < 8, 1, 0) * strips(10))
    assert mean_average_precision(pair) == pytest.approx(6 / 10)
    assert mean_average_precision(pair, thresholds=(0.5, 0.9)) == 0.5


def test_the_best_matching_finds_two_where_the_greedy_one_finds_one():
    reference, prediction = np.zeros((2, 1, 34), int)
    reference[0, :20], reference[0, 20:32] = 1, 2
    prediction[0, 8:28], prediction[0, :8] = 1, 2
    assert InstancePair(reference, prediction).matching(0.3).found == 2


def test_ids_of_64_bits_take_no_memory():
    reference = strips(10, 10).astype(np.uint64) + np.uint64(2**63)
    prediction = strips(10, 10).astype(np.uint32) * np.uint32(2**31 - 1)
    assert panoptic_quality(InstancePair(reference, prediction)) == 1.0


def test_a_run_ends_at_the_end_of_its_row():
    """Rows that end and begin with one label must not be read as one stretch."""
    labels = np.zeros((2, 3, 4), int)
    labels[0, 1, 2:] = labels[0, 2, :2] = labels[1, 0, 0] = 1
    lower, upper = (b[1] for b in InstancePair(labels, labels).runs.boxes(
        InstancePair(labels, labels).runs.reference, 2))  # fmt: skip
    assert lower.tolist() == [0, 0, 0]
    assert upper.tolist() == [2, 3, 4]


def test_each_found_object_has_its_own_border_distance_in_the_unit():
    reference, prediction = np.zeros((2, 30, 60), int)
    reference[5:25, 5:25], reference[5:25, 35:55] = 4, 7
    prediction[5:25, 5:25], prediction[6:26, 35:55] = 1, 2
    pair = InstancePair(reference, prediction, spacing=(0.5, 0.5), unit="um")
    first, second = instance_borders(pair)

    assert (first.reference_id, first.predicted_id, first.assd, first.hd95) == (4, 1, 0.0, 0.0)
    assert (second.reference_id, second.predicted_id, second.hd95) == (7, 2, 0.5)
    assert second.iou == pytest.approx(19 / 21)
    assert instance_assd(pair) == pytest.approx(second.assd / 2)


def test_an_object_at_the_image_edge_ends_there():
    labels = strips(5, 5)
    assert all(border.hd95 == 0 for border in instance_borders(InstancePair(labels, labels)))


def test_without_a_found_object_there_is_no_border_distance():
    pair = InstancePair(strips(10), strips(5, 5))
    assert instance_borders(pair) == []
    assert math.isnan(instance_assd(pair))


@pytest.mark.parametrize("name", INSTANCE_METRICS)
def test_two_empty_label_images_give_nothing_to_judge(name):
    empty = np.zeros((4, 5), int)
    pair = InstancePair(empty, empty)
    assert pair.status == "both_empty"
    assert math.isnan(METRICS[name](pair))


@pytest.mark.parametrize("name", INSTANCE_METRICS)
def test_one_empty_label_image_is_never_a_good_score(name):
    empty, full = np.zeros((4, 10), int), strips(5, 5)
    missed, invented = InstancePair(full, empty), InstancePair(empty, full)
    assert (missed.status, invented.status) == ("empty_prediction", "empty_reference")
    facts = METRICS.facts(name)
    if facts["best"] == 1.0:
        assert METRICS[name](missed) == 0.0
        value = METRICS[name](invented)
        assert value == 0.0 or math.isnan(value)
    elif name == "adapted_rand_error":
        assert METRICS[name](missed) == 1.0
    elif name not in ("splits", "merges"):  # nothing is split where nothing is
        assert math.isnan(METRICS[name](missed))


@pytest.mark.parametrize("name", INSTANCE_METRICS)
def test_the_same_objects_get_the_best_value(name):
    pair = InstancePair(strips(7, 9), strips(7, 9) * 5)
    assert METRICS[name](pair) == pytest.approx(METRICS.facts(name)["best"])


def test_label_images_hold_whole_numbers_from_zero():
    with pytest.raises(ValueError, match="prediction is of float64, a label image holds whole"):
        InstancePair(strips(3), strips(3).astype(float))
    with pytest.raises(ValueError, match="reference holds the label -1"):
        InstancePair(strips(3) - 2, strips(3))
    with pytest.raises(ValueError, match="do not lie on one grid"):
        InstancePair(strips(3), strips(4))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_a_threshold_is_an_iou_below_one(threshold):
    with pytest.raises(ValueError, match="threshold is an IoU"):
        average_precision(InstancePair(strips(3), strips(3)), threshold=threshold)


def test_the_mean_over_no_threshold_is_refused():
    with pytest.raises(ValueError, match="at least one threshold"):
        mean_average_precision(InstancePair(strips(3), strips(3)), thresholds=())


def test_ten_thousand_objects_take_less_than_the_dense_table_would():
    """A dense table of 10,000 x 10,000 counts alone is 800 MB."""
    side, cell = 1000, 10
    place = np.arange(side) // cell
    labels = (place[:, None] * (side // cell) + place[None] + 1).astype(np.uint32)
    pair = InstancePair(labels, np.roll(labels, 2, axis=1))
    assert pair.reference_count == 10_000
    assert len(pair.overlaps.shared) < 30_000
    assert instance_recall(pair, threshold=0.6) == pytest.approx(0.99, abs=0.02)


def test_found_objects_can_be_renumbered_like_their_references():
    pair = InstancePair(
        strips(5, 5, height=1), np.repeat([[9, 0, 30_000, 4]], [5, 1, 3, 1], axis=1)
    )
    (row,) = pair.prediction_in_reference_ids()
    assert row[:9].tolist() == [1] * 5 + [0] + [2] * 3
    assert row[9] > 2
