"""The fully connected CRF: what is true of it, exactly and on the grid."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.inference import DenseCRF
from medseg.inference import crf as rooms
from medseg.inference.crf import EXACT_UP_TO
from medseg.inference.crf_choice import (
    CrfCase,
    choose_crf,
    default_candidates,
    dice_of_structures,
)

METHODS = ("exact", "grid")
CRF = DenseCRF(sigma_position=5.0, sigma_intensity=0.4)


def scene(shape, channels=1, *, coarse=6, noise=0.25, wrong=0.3, seed=0):
    """Return coarse noisy scores of a disc or ball, its sharp noisy image, and where it is."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    far = np.linalg.norm(places - (np.array(shape) - 1) / 2, axis=-1)
    inside = far < 0.35 * min(shape)
    image = np.stack([inside + rng.normal(0, noise, shape) for _ in range(channels)])
    cells = [-(-side // coarse) for side in shape]
    share = ndimage.uniform_filter(inside.astype(float), coarse)
    share = share[(slice(coarse // 2, None, coarse),) * len(shape)]
    share = np.pad(share, [(0, n - m) for n, m in zip(cells, share.shape, strict=True)])
    scores = 2 * share - 1 + rng.normal(0, wrong, cells)
    factors = [side / cell for side, cell in zip(shape, cells, strict=True)]
    seen = ndimage.zoom(scores, factors, order=1, grid_mode=True, mode="nearest")
    probability = 1 / (1 + np.exp(-2 * seen))
    probabilities = np.stack([1 - probability, probability]).astype(np.float32)
    return probabilities, image.astype(np.float32), inside


def three_classes(shape, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.exp(rng.normal(size=(3, *shape)))
    probabilities = (scores / scores.sum(0)).astype(np.float32)
    return probabilities, rng.normal(size=(1, *shape)).astype(np.float32)


def band_accuracy(probabilities, inside, width=2):
    """Share of voxels within ``width`` of the border that have the right class."""
    near = ndimage.distance_transform_edt(inside) + ndimage.distance_transform_edt(~inside)
    band = near <= width
    return np.mean((probabilities.argmax(0) == inside)[band])


# What it must do
@pytest.mark.parametrize("method", METHODS)
def test_without_weights_nothing_changes(method):
    probabilities, image = three_classes((9, 11))

    refined = DenseCRF(bilateral_weight=0, smooth_weight=0, method=method).refine(
        probabilities, image, (1, 1)
    )

    np.testing.assert_allclose(refined, probabilities, atol=2e-7, rtol=0)  # two roundings


def test_two_voxels_by_hand():
    # Distance 1, difference 2: k = w exp(-1/2 - 4/2), and the voxel itself exp(0).
    probabilities = np.array([[[0.9, 0.4]], [[0.1, 0.6]]], np.float32)
    image = np.array([[[0.0, 2.0]]], np.float32)
    crf = DenseCRF(3.0, 1.0, 1.0, smooth_weight=0, iterations=1, method="exact")

    refined = crf.refine(probabilities, image, (1, 1))

    k = np.exp(-2.5)
    pull = 3 * (probabilities + k * probabilities[..., ::-1]) / (1 + k)
    by_hand = probabilities * np.exp(pull)
    np.testing.assert_allclose(refined, by_hand / by_hand.sum(0), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(20, 23), (7, 8, 9)])
def test_probabilities_stay_probabilities_and_inputs_stay_as_they_are(method, shape):
    probabilities, image = three_classes(shape)
    before = probabilities.copy(), image.copy()

    refined = replace(CRF, method=method).refine(probabilities, image, (1,) * len(shape))

    assert refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities, before[0])
    np.testing.assert_array_equal(image, before[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_classes_does_not_matter(method):
    probabilities, image = three_classes((20, 23))
    crf, order = replace(CRF, method=method), [2, 0, 1]

    there = crf.refine(probabilities, image, (1, 1))[order]
    back = crf.refine(probabilities[order], image, (1, 1))

    np.testing.assert_allclose(there, back, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_only_differences_of_intensity_count(method):
    probabilities, image, _ = scene((20, 23))
    crf = replace(CRF, method=method)

    np.testing.assert_allclose(
        crf.refine(probabilities, image + 100, (1, 1)),
        crf.refine(probabilities, image, (1, 1)),
        atol=1e-3,  # float32 holds 100.25 to 4e-6
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_mirroring_before_or_after_is_the_same(method, axis):
    probabilities, image, _ = scene((9, 10, 11), coarse=3)
    crf, spacing = replace(CRF, sigma_position=3.0, method=method), (2.0, 1.0, 1.0)

    there = crf.refine(np.flip(probabilities, axis), np.flip(image, axis), spacing)

    back = np.flip(crf.refine(probabilities, image, spacing), axis)
    np.testing.assert_allclose(there, back, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_turning_before_or_after_is_the_same(method):
    probabilities, image, _ = scene((9, 10, 11), coarse=3)
    crf, order = replace(CRF, sigma_position=3.0, method=method), (0, 3, 1, 2)

    there = crf.refine(probabilities.transpose(order), image.transpose(order), (3.0, 1.0, 2.0))

    back = crf.refine(probabilities, image, (1.0, 2.0, 3.0)).transpose(order)
    np.testing.assert_allclose(there, back, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_lengths_in_mm_or_in_um_mean_the_same(method):
    probabilities, image, _ = scene((20, 23))
    in_mm = DenseCRF(sigma_position=5.0, sigma_smooth=1.0, method=method)
    in_um = replace(in_mm, sigma_position=5000.0, sigma_smooth=1000.0)

    np.testing.assert_allclose(
        in_um.refine(probabilities, image, (1000.0, 500.0)),
        in_mm.refine(probabilities, image, (1.0, 0.5)),
        atol=1e-4,
    )


def test_an_axis_of_twice_the_spacing_pulls_like_every_second_voxel():
    # Two voxels in a row, 2 apart: the same pair as the outer ones of three that are 1 apart.
    wide = DenseCRF(2.0, 1.5, 1.0, 0.0, method="exact").refine(
        np.array([[[0.9, 0.4]], [[0.1, 0.6]]]), np.zeros((1, 1, 2)), (1.0, 2.0)
    )
    narrow = DenseCRF(2.0, 0.75, 1.0, 0.0, method="exact").refine(
        np.array([[[0.9, 0.4]], [[0.1, 0.6]]]), np.zeros((1, 1, 2)), (1.0, 1.0)
    )

    np.testing.assert_allclose(wide, narrow, rtol=1e-6)


# The grid against the sums over all pairs
@pytest.mark.parametrize(
    ("shape", "channels", "sigma", "worst", "mean"),
    [
        ((48, 50), 1, 8.0, 0.08, 2e-3),
        ((48, 50), 1, 25.0, 0.08, 2e-3),
        ((48, 50), 1, 1.0, 0.12, 2e-3),  # below two voxels the voxels are the cells
        ((36, 40), 3, 10.0, 0.10, 2e-3),
        ((13, 14, 15), 1, 4.0, 0.12, 2e-3),
        ((13, 14, 15), 3, 4.0, 0.12, 2e-3),
    ],
)
def test_the_grid_is_close_to_the_sums_over_all_pairs(shape, channels, sigma, worst, mean):
    probabilities, image, inside = scene(shape, channels, coarse=3, noise=0.15)
    crf = DenseCRF(sigma_position=sigma, sigma_intensity=0.3)
    spacing = (1.0,) * len(shape)

    exact, grid = (
        replace(crf, method=method).refine(probabilities, image, spacing) for method in METHODS
    )

    assert 0.9 * inside.sum() < exact.argmax(0).sum() < 1.1 * inside.sum(), "a case with a border"
    assert np.abs(grid - exact).max() < worst
    assert np.abs(grid - exact).mean() < mean
    assert np.mean(grid.argmax(0) != exact.argmax(0)) <= 2e-3


def test_more_cells_are_closer_to_the_sums_over_all_pairs():
    probabilities, image, _ = scene((40, 42))
    crf = DenseCRF(sigma_position=10.0, sigma_intensity=0.4)
    exact = replace(crf, method="exact").refine(probabilities, image, (1, 1))

    errors = [
        np.abs(
            replace(crf, method="grid", cells_per_sigma=cells).refine(probabilities, image, (1, 1))
            - exact
        ).mean()
        for cells in (0.5, 1, 2, 4)
    ]

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[1] / 5


def test_a_grid_without_its_empty_cells_is_close_too(monkeypatch):
    probabilities, image, _ = scene((48, 50), 3)
    crf = DenseCRF(sigma_position=10.0, sigma_intensity=0.4, method="exact")
    exact = crf.refine(probabilities, image, (1, 1))
    monkeypatch.setattr("medseg.inference.crf.WHOLE_BOX", 0)

    grid = replace(crf, method="grid").refine(probabilities, image, (1, 1))

    assert np.abs(grid - exact).mean() < 1e-3
    assert np.mean(grid.argmax(0) != exact.argmax(0)) <= 2e-3


def test_cells_become_finer_only_where_the_grid_may_hold_empty_ones(monkeypatch):
    probabilities, image, _ = scene((30, 32), 3)
    coarse, fine = (replace(CRF, method="grid", cells_per_sigma=cells) for cells in (1, 2))
    monkeypatch.setattr("medseg.inference.crf.WHOLE_BOX", 0)

    np.testing.assert_array_equal(
        fine.refine(probabilities, image, (1, 1)), coarse.refine(probabilities, image, (1, 1))
    )


def test_a_voxel_whose_coarse_cells_cancel_out_is_no_outlier():
    probabilities, image, _ = scene((20, 20, 20), 3, coarse=3, noise=0.15)
    crf = DenseCRF(sigma_position=4.0, sigma_intensity=0.3, method="grid")

    fine, coarse = (
        replace(crf, cells_per_sigma=cells).refine(probabilities, image, (1, 1, 1))
        for cells in (1, 0.5)
    )

    assert np.abs(fine - coarse).mean() < 5e-3


@pytest.mark.parametrize("box", [0, 2**21])
def test_the_grid_is_as_symmetric_as_the_kernel(monkeypatch, box):
    # Blurring only occupied cells is not, in one order of the axes; averaged over both it is.
    monkeypatch.setattr(rooms, "WHOLE_BOX", box)
    rng = np.random.default_rng(0)
    _, image, _ = scene((20, 22), 3, noise=0.5)
    kernel = CRF._kernel(image, (20, 22), (1.0, 1.0), 2)
    x, y = rng.normal(size=(2, 440, 1)).astype(np.float32)

    there, back = float((x * kernel(y)).sum()), float((y * kernel(x)).sum())

    assert there == pytest.approx(back, rel=1e-4)


def test_a_class_of_probability_zero_can_be_won_back():
    # All around one voxel that is sure of another class, in an image of one intensity.
    probabilities = np.zeros((2, 9, 9), np.float32)
    probabilities[1], probabilities[:, 4, 4] = 1.0, (1.0, 0.0)

    refined = DenseCRF(40.0, 5.0, 1.0).refine(probabilities, np.zeros((1, 9, 9)), (1, 1))

    assert (refined.argmax(0) == 1).all()


def test_there_is_no_more_than_one_cell_between_two_voxels():
    # 10 sigmas over 5 voxels, 3 of intensity: 20 and 6 cells at two a sigma.
    assert rooms._cell_counts(np.array([10.0, 3.0]), (5,), 2.0).tolist() == [4, 6]


@pytest.mark.parametrize(("shape", "sigma"), [((2, 200), 60.0), ((3, 150), 25.0)])
def test_an_axis_much_shorter_than_sigma_is_close_to_the_sums_over_all_pairs(shape, sigma):
    probabilities, image, _ = scene(shape, coarse=2)
    crf = replace(CRF, sigma_position=sigma)

    exact, grid = (
        replace(crf, method=method).refine(probabilities, image, (1, 1)) for method in METHODS
    )

    assert np.abs(grid - exact).mean() < 2e-3


def test_as_many_cells_as_may_be_are_closest_to_the_sums_over_all_pairs():
    probabilities, image, _ = scene((20, 23))
    exact, grid = (
        replace(CRF, method=method, cells_per_sigma=16).refine(probabilities, image, (1, 1))
        for method in METHODS
    )

    assert np.abs(grid - exact).max() < 0.01


def test_smoothing_alone_is_exact_but_for_its_tails():
    probabilities, image = three_classes((30, 70))
    crf = DenseCRF(bilateral_weight=0, smooth_weight=3.0, sigma_smooth=2.0)

    exact, grid = (
        replace(crf, method=method).refine(probabilities, image, (1.0, 0.7)) for method in METHODS
    )

    np.testing.assert_allclose(grid, exact, atol=1e-3)  # exp(-4^2 / 2) = 3e-4 is cut


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 9, 10)])
def test_an_axis_of_one_voxel_is_no_axis(shape):
    probabilities, image, _ = scene(shape, coarse=2)
    spacing = (1.0,) * len(shape)

    exact, grid = (
        replace(CRF, method=method).refine(probabilities, image, spacing) for method in METHODS
    )

    assert np.abs(grid - exact).mean() < 5e-3


def test_auto_is_exact_for_small_images_only():
    side = int(EXACT_UP_TO**0.5)
    for shape, method in (((side, side), "exact"), ((side, side + 1), "grid")):
        probabilities, image, _ = scene(shape)
        np.testing.assert_array_equal(
            CRF.refine(probabilities, image, (1, 1)),
            replace(CRF, method=method).refine(probabilities, image, (1, 1)),
        )


def test_pydensecrf_has_agreed():
    # Made by pydensecrf2 1.1, once, with ``with_pydensecrf``: (2, 40, 42).
    stored = np.load(Path(__file__).with_name("pydensecrf2_1.1.npz"))
    probabilities, image, _ = scene((40, 42))
    np.testing.assert_allclose(probabilities, stored["probabilities"], atol=1e-6)
    np.testing.assert_allclose(image, stored["image"], atol=1e-6)

    ours = DenseCRF(4.0, 8.0, 0.4, 1.0, 1.0, method="exact").refine(probabilities, image, (1, 1))

    # The lattice of pydensecrf is an approximation, too.
    assert np.abs(ours - stored["refined"]).mean() < 2e-3
    assert np.mean(ours.argmax(0) != stored["refined"].argmax(0)) < 2e-3
    assert np.abs(ours - probabilities).mean() > 0.05, "there was something to do"


def test_pydensecrf_agrees():
    probabilities, image, _ = scene((40, 42))

    found = with_pydensecrf(probabilities, image)

    ours = DenseCRF(4.0, 8.0, 0.4, 1.0, 1.0, method="exact").refine(probabilities, image, (1, 1))
    assert np.abs(ours - found).mean() < 2e-3
    assert np.mean(ours.argmax(0) != found.argmax(0)) < 2e-3


def with_pydensecrf(probabilities, image):
    """Return what pydensecrf makes of it with the weights 4 and 1 and the sigmas 8, 0.4 and 1."""
    crf = pytest.importorskip("pydensecrf.densecrf")
    places = np.stack(np.meshgrid(*map(np.arange, (40, 42)), indexing="ij")).reshape(2, -1)
    theirs = crf.DenseCRF(40 * 42, 2)
    theirs.setUnaryEnergy(np.ascontiguousarray(-np.log(probabilities.reshape(2, -1))))
    for features, weight in (
        (places / 1.0, 1.0),
        (np.concatenate([places / 8.0, image.reshape(1, -1) / 0.4]), 4.0),
    ):
        theirs.addPairwiseEnergy(
            np.ascontiguousarray(features, np.float32),
            compat=weight,
            kernel=crf.DIAG_KERNEL,
            normalization=crf.NORMALIZE_SYMMETRIC,
        )
    return np.array(theirs.inference(10)).reshape(probabilities.shape)


# What it is good for, and what not
@pytest.mark.parametrize(("shape", "coarse", "sigma"), [((64, 64), 8, 8.0), ((24, 24, 24), 6, 4.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_coarse_noisy_scores_gain_at_the_border(shape, coarse, sigma, seed):
    probabilities, image, inside = scene(shape, coarse=coarse, noise=0.15, seed=seed)

    refined = DenseCRF(10.0, sigma, 0.3).refine(probabilities, image, (1.0,) * len(shape))

    before = band_accuracy(probabilities, inside)
    assert band_accuracy(refined, inside) >= before + 0.15


def test_it_destroys_what_it_is_told_to_ignore():
    # A small bright disc among many more voxels of background, whose intensities count for nothing.
    probabilities, image, inside = scene((48, 48), noise=0.1)

    refined = DenseCRF(10.0, 20.0, 1e6, smooth_weight=0).refine(probabilities, image, (1, 1))

    assert np.mean((probabilities.argmax(0) == 1)[inside]) > 0.6
    assert not refined.argmax(0).any()


# Types and refusals
def test_tensors_give_tensors():
    probabilities, image, _ = scene((20, 23))

    refined = CRF.refine(torch.from_numpy(probabilities), torch.from_numpy(image), (1, 1))

    assert isinstance(refined, torch.Tensor)
    np.testing.assert_array_equal(refined.numpy(), CRF.refine(probabilities, image, (1, 1)))


def test_what_was_saved_is_what_is_read():
    crf = DenseCRF(sigma_intensity=(0.1, 0.2), iterations=3)

    assert DenseCRF.from_dict(crf.to_dict()) == crf
    assert DenseCRF.from_dict(CRF.to_dict()) == CRF
    with pytest.raises(ValueError, match="a CRF has no sigma; it has bilateral_weight"):
        DenseCRF.from_dict({"sigma": 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bilateral_weight": -1}, "bilateral_weight is a weight"),
        ({"smooth_weight": float("nan")}, "smooth_weight is a weight"),
        ({"sigma_position": 0}, "sigma_position must be positive"),
        ({"sigma_intensity": (0.1, -1.0)}, "sigma_intensity must be positive"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"cells_per_sigma": 16.1}, "cells_per_sigma is 16 at the most"),
        ({"method": "lattice"}, 'method is "auto", "exact" or "grid"'),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(**settings)


ONES = np.full((2, 4, 5), 0.5, np.float32)


@pytest.mark.parametrize(
    ("probabilities", "image", "spacing", "message"),
    [
        (ONES[0], np.zeros((1, 4, 5)), (1, 1), "two or more classes"),
        (ONES[:1] * 2, np.zeros((1, 4, 5)), (1, 1), "two or more classes"),
        (ONES, np.zeros((4, 5)), (1, 1), r"expected \(channels, \*\(4, 5\)\)"),
        (ONES, np.zeros((1, 5, 4)), (1, 1), "an image of shape"),
        (ONES, np.zeros((1, 4, 5)), (1, 1, 1), "spacing needs 2 positive lengths"),
        (ONES, np.zeros((1, 4, 5)), (1, 0), "spacing needs 2 positive lengths"),
        (ONES, np.full((1, 4, 5), np.nan), (1, 1), "not finite"),
        (ONES * 2, np.zeros((1, 4, 5)), (1, 1), "are they logits"),
        (ONES * np.nan, np.zeros((1, 4, 5)), (1, 1), "are they logits"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(probabilities, image, spacing, message):
    with pytest.raises(ValueError, match=message):
        CRF.refine(probabilities, image, spacing)


def test_one_width_a_channel_or_one_for_all():
    probabilities, image, _ = scene((20, 23), channels=2)
    with pytest.raises(ValueError, match="3 values for an image of 2 channels"):
        DenseCRF(sigma_intensity=(1.0, 2.0, 3.0)).refine(probabilities, image, (1, 1))

    wide = DenseCRF(sigma_intensity=(0.4, 1e9)).refine(probabilities, image, (1, 1))
    alone = DenseCRF(sigma_intensity=0.4).refine(probabilities, image[:1], (1, 1))

    np.testing.assert_allclose(wide, alone, atol=1e-5)


def test_so_many_channels_that_the_grid_bursts_are_refused():
    image = np.random.default_rng(0).normal(size=(25, 20, 20))
    halves = np.full((2, 20, 20), 0.5)

    with pytest.raises(ValueError, match=r"400 voxels with 25 channel\(s\) need 400 GiB or more"):
        DenseCRF(method="grid", sigma_intensity=3.0).refine(halves, image, (1, 1))
    with pytest.raises(ValueError, match=r"sigma_intensity is too small for 25 channel\(s\)"):
        DenseCRF(method="grid").refine(halves, image, (1, 1))


def test_a_grid_needs_no_more_memory_than_was_foreseen(monkeypatch):
    foreseen, check = [0], rooms._check_memory
    monkeypatch.setattr(
        rooms,
        "_check_memory",
        lambda needed, *rest: foreseen.append(needed) or check(needed, *rest),
    )
    monkeypatch.setattr(rooms, "WHOLE_BOX", 0)
    probabilities, image, _ = scene((64, 64), 4, noise=1.0)
    crf = DenseCRF(sigma_position=8.0, sigma_intensity=0.5, iterations=1)

    tracemalloc.start()
    crf.refine(probabilities, image, (1, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    beside = 64 * 64 * 300  # features and values of the voxels themselves
    assert foreseen[-1] / 8 < peak < foreseen[-1] + beside
    monkeypatch.setattr(rooms, "MOST_BYTES", foreseen[-1] - 1)
    with pytest.raises(ValueError, match=r"4096 voxels with 4 channel\(s\) need 0\.\d+ GiB"):
        crf.refine(probabilities, image, (1, 1))


# Choosing on validation
def case_of(shape, **settings):
    def make():
        probabilities, image, inside = scene(shape, **settings)
        return CrfCase(probabilities, image, inside.astype(int), (1.0,) * len(shape))

    return make


def test_a_helpful_crf_is_chosen():
    cases = [case_of((48, 48), coarse=8, noise=0.15, seed=seed) for seed in range(2)]

    choice = choose_crf(cases)

    assert choice.crf in default_candidates(cases[0]().image, (1.0, 1.0))
    assert choice.dice_with > choice.dice_without + 0.03
    assert choice.cases == 2


def test_none_is_chosen_where_the_image_says_nothing():
    def make():
        _, _, inside = scene((40, 40))
        image = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
        probabilities = np.stack([~inside, inside]) * 0.9 + 0.05
        return CrfCase(probabilities, image, inside.astype(int), (1.0, 1.0))

    choice = choose_crf([make])

    assert choice.crf is None, "the network was right everywhere: the best can only tie"
    assert choice.dice_without == 1.0


def test_one_case_is_held_at_a_time_and_six_are_looked_at():
    asked = []

    def make(number):
        def case():
            asked.append(number)
            return case_of((12, 12))()

        return case

    choice = choose_crf([make(number) for number in range(11)], [CRF])

    assert asked == [0, 2, 4, 6, 8, 10]
    assert choice.cases == 6


def test_a_large_case_is_cut_around_its_structures():
    seen = []

    def score(predicted, reference, classes):
        seen.append(reference)
        return [1.0]

    def make():
        reference = np.zeros((100, 40, 900), int)
        reference[90:95, 3:6, 800:803] = 1
        one_hot = np.stack([reference == 0, reference == 1]).astype(np.float32)
        return CrfCase(one_hot, np.zeros((1, *reference.shape)), reference, (1.0,) * 3)

    choose_crf([make], [replace(CRF, iterations=1)], score)

    assert seen[0].size <= 2**16
    assert seen[0].sum() == 45
    assert seen[0].shape == (40, 40, 40)


def part_of(reference):
    """Return the part of the reference that the candidates are judged on."""
    seen = []

    def score(predicted, part, classes):
        seen.append(part)
        return [1.0]

    one_hot = np.stack([reference <= 0, reference > 0]).astype(np.float32)
    case = CrfCase(one_hot, np.zeros((1, *reference.shape)), reference, (1.0, 1.0))
    choose_crf([lambda: case], [replace(CRF, iterations=1)], score)
    return seen[0]


def test_of_two_structures_far_apart_one_is_looked_at_whole():
    reference = np.zeros((300, 2000), int)
    reference[100:140, 50:90] = reference[100:140, 1900:1930] = 1

    part = part_of(reference)

    assert part.sum() == 40 * 40, "the longer border; between the two is nothing"
    rows, columns = np.nonzero(part)
    assert 100 < rows.mean() < 156
    assert 60 < columns.mean() < 156, "about the middle, or as near to it as the image allows"


def test_of_a_ring_and_of_a_structure_larger_than_the_part_the_border_is_looked_at():
    y, x = np.mgrid[:900, :900]
    far = np.hypot(y - 450, x - 450)

    for reference in ((np.abs(far - 400) < 10).astype(int), (far < 400).astype(int)):
        part = part_of(reference)
        assert part.size <= 2**16
        assert 0.01 < part.mean() < 0.99


def test_nobodys_voxels_are_no_border():
    reference = np.zeros((300, 1000), int)
    reference[:, 500::2] = -1
    reference[140:150, 20:30] = 1

    assert part_of(reference).clip(0).sum() == 100


def test_without_a_structure_there_is_nothing_to_choose_by():
    def make():
        background = np.stack([np.ones((12, 12)), np.zeros((12, 12))]).astype(np.float32)
        return CrfCase(background, np.zeros((1, 12, 12)), np.zeros((12, 12), int), (1.0, 1.0))

    with pytest.raises(ValueError, match="no structure to judge a CRF by"):
        choose_crf([make], [CRF])


def test_dice_by_hand_leaves_out_what_nobody_judged():
    reference = np.array([[0, 1, 1, -1]])

    assert dice_of_structures(np.array([[1, 1, 0, 1]]), reference, 2) == [0.5]
    assert np.isnan(dice_of_structures(np.array([[1, 1, 0, 1]]), reference, 3)[1])


def test_no_case_or_no_candidate_is_refused():
    with pytest.raises(ValueError, match="validation cases, and there are none"):
        choose_crf([])
    with pytest.raises(ValueError, match="no candidate"):
        choose_crf([case_of((12, 12))], [])
