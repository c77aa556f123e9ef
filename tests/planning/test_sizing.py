"""Sizes by nnU-Net's rules; the anchors are plans that its authors and MONAI published."""

from functools import partial
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.planning.sizing import (
    FEATURES_AT_8_GB,
    plan_size,
    resampled,
    target_spacing,
    unet_features,
)


def at_8_gb(shape, spacing, cases, classes):
    return plan_size(
        shape,
        spacing,
        cases=cases,
        cost=partial(unet_features, classes=classes),
        budget=FEATURES_AT_8_GB[len(shape)],
    )


ANCHORS = [  # median shape on the target spacing, spacing, cases or slices, classes, patch, batch
    ("hippocampus", (36, 50, 35), (1, 1, 1), 260, 3, (40, 56, 40), 9),
    ("hippocampus slices", (50, 35), (1, 1), 260 * 36, 3, (56, 40), 366),
    ("heart", (115, 320, 232), (1.37, 1.25, 1.25), 20, 2, (80, 192, 160), 2),
    ("heart slices", (320, 232), (1.25, 1.25), 20 * 115, 2, (320, 256), 40),
    ("prostate", (20, 320, 319), (3.6, 0.62, 0.62), 32, 3, (20, 320, 256), 2),
    ("prostate slices", (320, 319), (0.62, 0.62), 32 * 20, 3, (320, 320), 32),
    ("spleen", (187, 512, 512), (1.6, 0.79, 0.79), 41, 2, (64, 192, 160), 2),
    ("spleen slices", (512, 512), (0.79, 0.79), 41 * 187, 2, (512, 512), 12),
    ("lung", (252, 512, 512), (1.24, 0.78, 0.78), 63, 2, (80, 192, 160), 2),
    ("lung slices", (512, 512), (0.78, 0.78), 63 * 252, 2, (512, 512), 12),
    ("gels, 2D pictures", (1024, 1360), (1, 1), 500, 2, (448, 576), 13),
]


@pytest.mark.parametrize(
    ("shape", "spacing", "cases", "classes", "patch", "batch"),
    [anchor[1:] for anchor in ANCHORS],
    ids=[anchor[0] for anchor in ANCHORS],
)
def test_patch_and_batch_are_the_published_ones(shape, spacing, cases, classes, patch, batch):
    size = at_8_gb(shape, spacing, cases, classes)

    assert (size.patch_voxels, size.batch) == (patch, batch)


def test_the_features_of_a_small_unet_are_those_counted_by_hand():
    # Levels of 16 x 16 and 8 x 8 pixels with 32 and 64 channels, two classes.
    by_hand = 2 * 256 * 32 + 2 * 64 * 64 + 3 * 256 * 32 + 2 * 256

    assert unet_features((16, 16), ((1, 1), (2, 2)), classes=2) == by_hand


def test_the_spacing_is_the_median_of_each_axis():
    shapes = [(100, 200, 200)] * 3
    spacings = [(2.0, 1.0, 1.0), (1.0, 0.5, 0.5), (1.5, 0.8, 0.8)]

    assert target_spacing(shapes, spacings) == (1.5, 0.8, 0.8)


def test_far_and_few_slices_take_the_tenth_percentile():
    # Eleven cases of 5 to 15 mm: the 10th percentile is 6 mm, the median 10 mm.
    spacings = [(5.0 + i, 1.0, 1.0) for i in range(11)]

    assert target_spacing([(20, 256, 256)] * 11, spacings) == pytest.approx((6.0, 1.0, 1.0))
    # As many slices as pixels: not flat, so the median.
    assert target_spacing([(100, 256, 256)] * 11, spacings) == pytest.approx((10.0, 1.0, 1.0))


def test_slices_of_the_target_are_never_closer_than_the_pixels():
    spacings = [(0.5, 1.0, 1.0)] * 2 + [(9.0, 1.0, 1.0)] * 5

    assert target_spacing([(10, 256, 256)] * 7, spacings) == pytest.approx(
        (1.0, 1.0, 1.0), abs=1e-4
    )


def test_an_image_of_half_the_spacing_is_half_as_large():
    assert resampled((10, 30), (0.5, 1.0), (1.0, 1.0)) == (5, 30)
    assert resampled((1, 1), (0.1, 0.1), (1.0, 1.0)) == (1, 1)


def test_sizes_of_other_axes_are_refused():
    with pytest.raises(ValueError, match="2 or 3 axes"):
        at_8_gb((64, 64), (1.0, 1.0, 1.0), 10, 2)
    with pytest.raises(ValueError, match="one a case"):
        target_spacing([], [])


dimensions = st.sampled_from([2, 3])
images = dimensions.flatmap(
    lambda n: st.tuples(
        st.tuples(*[st.integers(1, 600)] * n), st.tuples(*[st.floats(0.1, 10.0)] * n)
    )
)


@given(images, st.integers(1, 300), st.floats(1e4, 1e9))
def test_every_plan_ends_within_its_budget_or_with_nothing_left_to_cut(image, cases, budget):
    shape, spacing = image
    cost = partial(unet_features, classes=3)

    size = plan_size(shape, spacing, cases=cases, cost=cost, budget=budget)

    cell = [prod(axis) for axis in zip(*size.strides, strict=True)]
    assert all(n % c == 0 for n, c in zip(size.patch_voxels, cell, strict=True))
    assert all(n < s + c for n, s, c in zip(size.patch_voxels, shape, cell, strict=True))
    assert size.batch >= 2
    most = 0.05 * cases * prod(shape)
    assert size.batch == 2 or size.batch * prod(size.patch_voxels) <= most + prod(size.patch_voxels)
    assert size.cost <= budget or max(size.patch_voxels) < 24


@given(images, st.floats(1e6, 1e9))
def test_more_memory_never_means_fewer_voxels_a_step(image, budget):
    shape, spacing = image
    cost = partial(unet_features, classes=3)

    small, large = (
        plan_size(shape, spacing, cases=10_000, cost=cost, budget=b) for b in (budget, 4 * budget)
    )

    assert large.cost * large.batch >= 0.9 * small.cost * small.batch
