"""Facts of the weights of classes."""

import pytest

from medseg.losses import median_frequency_weights


def test_the_class_at_the_median_frequency_weighs_one():
    # Shares 0.8, 0.15 and 0.05.
    assert median_frequency_weights([80, 15, 5], [100, 100, 100]) == pytest.approx(
        (0.15 / 0.8, 1.0, 3.0)
    )


def test_a_frequency_counts_only_the_images_in_which_the_class_occurs():
    # Two images of 100 voxels; class 2 lies in one of them: 20 of 100, not of 200.
    weights = median_frequency_weights([170, 10, 20], [200, 200, 100])
    assert weights == pytest.approx((0.2 / 0.85, 0.2 / 0.05, 1.0))


def test_of_two_classes_the_median_is_between_them():
    assert median_frequency_weights([90, 10], [100, 100]) == pytest.approx((0.5 / 0.9, 0.5 / 0.1))


def test_a_class_that_never_occurs_weighs_one_and_leaves_the_median_alone():
    weights = median_frequency_weights([60, 0, 30, 10], [100, 0, 100, 100])
    assert weights == pytest.approx((0.5, 1.0, 1.0, 3.0))


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="2 and 1"):
        median_frequency_weights([1, 2], [3])
    with pytest.raises(ValueError, match="class 1 has 5 voxels in images of 3"):
        median_frequency_weights([1, 5], [3, 3])
    with pytest.raises(ValueError, match="class 0"):
        median_frequency_weights([-1], [3])
    with pytest.raises(ValueError, match="no class"):
        median_frequency_weights([0, 0], [9, 9])
