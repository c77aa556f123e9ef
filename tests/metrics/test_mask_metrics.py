"""Masks and distances worked out by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest

from medseg.metrics import (
    METRICS,
    MaskPair,
    assd,
    boundary_iou,
    dice,
    hausdorff,
    hausdorff_percentile,
    hd95,
    iou,
    masd,
    nsd,
    precision,
    recall,
    volume_difference,
)

MASK_METRICS = [name for name in METRICS if METRICS.facts(name)["kind"] == "mask"]
SETTINGS = {"nsd": {"tolerance": 1.0}, "boundary_iou": {"distance": 1.0}}


def square(top: int, left: int, side: int, shape=(20, 20)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_half_of_four_voxels_found_and_one_invented():
    pair = MaskPair(np.array([[1, 1, 1, 1, 0, 0]]), np.array([[0, 0, 1, 1, 1, 0]]))
    assert dice(pair) == pytest.approx(4 / 7)
    assert iou(pair) == pytest.approx(2 / 5)
    assert precision(pair) == pytest.approx(2 / 3)
    assert recall(pair) == pytest.approx(1 / 2)
    assert volume_difference(pair) == pytest.approx(1 / 4)


def test_plates_three_millimetres_apart_agree_only_within_three_millimetres():
    drawn, predicted = np.zeros((2, 10, 40, 40), bool)
    drawn[2] = predicted[5] = True
    pair = MaskPair(drawn, predicted, spacing=(1.0, 2.0, 2.0), unit="mm")

    # Each plate has two faces: one lies 3 mm from the other plate, its back 3 + 1 - 2 = 2 mm.
    assert nsd(pair, tolerance=1.9) == 0.0
    assert nsd(pair, tolerance=2.0) == pytest.approx(0.5)
    assert nsd(pair, tolerance=3.0) == 1.0
    assert hausdorff(pair) == hd95(pair) == 3.0
    assert assd(pair) == masd(pair) == pytest.approx(2.5)


def test_a_distance_equal_to_the_tolerance_up_to_rounding_is_within_it():
    drawn, predicted = np.zeros((2, 8, 8), bool)
    drawn[1] = predicted[4] = True
    pair = MaskPair(drawn, predicted, spacing=(0.1, 0.1), unit="mm")
    assert hausdorff(pair) > 0.3  # 3 * 0.1 in binary
    assert nsd(pair, tolerance=0.3) == 1.0


def test_the_border_of_a_cube_has_its_area_apart_from_rounded_edges():
    cube = np.zeros((30, 30, 30), bool)
    cube[5:25, 5:25, 5:25] = True
    border = MaskPair(cube, cube, spacing=(2.0, 1.0, 1.0)).border_distances[0]
    # 19 x 19 inner corners a face; at each of the 12 edges 19 elements are cut at the bevel.
    faces = 2 * 19**2 * (1.0 + 2.0 + 2.0)
    edges = 4 * 19 * (math.hypot(0.5, 0.5) * 2.0 + 2 * math.hypot(0.5, 1.0) * 1.0)
    corners = 8 * 0.5 * 0.25 * math.hypot(1.0, 2.0, 2.0)
    assert border.area == pytest.approx(faces + edges + corners)


def test_border_points_lie_between_the_voxels():
    pair = MaskPair(square(3, 5, 1), square(3, 5, 1))
    points = pair.border_distances[0].points
    assert sorted(map(tuple, points.tolist())) == [(2.5, 4.5), (2.5, 5.5), (3.5, 4.5), (3.5, 5.5)]


def test_the_image_edge_cuts_a_border_too():
    cut = MaskPair(square(0, 0, 6, (6, 6)), square(0, 0, 6, (6, 6)))
    free = MaskPair(square(7, 7, 6), square(7, 7, 6))
    assert cut.border_distances[0].area == free.border_distances[0].area


def test_a_large_mask_is_cut_into_slabs_without_a_seam(monkeypatch):
    rng = np.random.default_rng(0)
    reference, prediction = rng.random((2, 12, 13, 14)) < 0.4
    whole = MaskPair(reference, prediction).border_distances
    for corners in (1, 200, 700):
        monkeypatch.setattr("medseg.metrics.borders._SLAB", corners)
        parts = MaskPair(reference, prediction).border_distances
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(a.points, b.points)
            np.testing.assert_array_equal(a.areas, b.areas)
            np.testing.assert_array_equal(a.distances, b.distances)


def test_distances_equal_those_of_every_element_to_every_other():
    rng = np.random.default_rng(1)
    spacing = (2.5, 0.7, 1.1)
    pair = MaskPair(*(rng.random((2, 9, 8, 7)) < 0.15), spacing)
    there, back = pair.border_distances
    steps = (there.points[:, None] - back.points[None]) * np.array(spacing)
    apart = np.linalg.norm(steps, axis=-1)
    np.testing.assert_allclose(there.distances, apart.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(back.distances, apart.min(axis=0), atol=1e-6)


def test_one_far_voxel_decides_the_largest_distance_and_not_the_95th_percentile():
    drawn, predicted = square(2, 2, 20, (60, 60)), square(2, 2, 20, (60, 60))
    predicted[50, 2] = True
    pair = MaskPair(drawn, predicted, spacing=(0.5, 0.5), unit="um")
    # Its far side is corner 51, the square's end is corner 22.
    assert hausdorff(pair) == pytest.approx((51 - 22) * 0.5)
    assert hd95(pair) == 0.0


def test_a_percentile_is_a_distance_that_occurs_and_100_is_the_largest():
    pair = MaskPair(square(2, 2, 6), square(5, 4, 7))
    occurring = np.concatenate([b.distances for b in pair.border_distances])
    for percentile in (1, 50, 95, 99.9):
        assert hausdorff_percentile(pair, percentile=percentile) in occurring
    assert hausdorff_percentile(pair, percentile=100) == occurring.max()


@pytest.mark.parametrize("name", MASK_METRICS)
def test_two_empty_masks_give_nothing_to_judge(name):
    empty = np.zeros((5, 6), bool)
    pair = MaskPair(empty, empty)
    assert pair.status == "both_empty"
    assert math.isnan(METRICS[name](pair, **SETTINGS.get(name, {})))


@pytest.mark.parametrize("backend", ["surface", "voxel"])
@pytest.mark.parametrize("name", MASK_METRICS)
def test_one_empty_mask_is_the_worst_overlap_and_no_distance(name, backend):
    empty, full = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    missed = MaskPair(full, empty, backend=backend)
    invented = MaskPair(empty, full, backend=backend)
    assert (missed.status, invented.status) == ("empty_prediction", "empty_reference")
    values = [METRICS[name](pair, **SETTINGS.get(name, {})) for pair in (missed, invented)]
    if METRICS.facts(name)["unit"] == "length":
        assert np.isnan(values).all()
    elif name == "volume_difference":
        assert values[0] == 1.0
        assert math.isnan(values[1])
    else:
        assert values == [0.0, 0.0]


@pytest.mark.parametrize("name", MASK_METRICS)
def test_a_metric_states_its_facts(name):
    facts = METRICS.facts(name)
    assert facts["best"] in (0.0, 1.0)
    assert facts["worst"] in (0.0, 1.0, "diagonal")
    assert facts["worst"] != facts["best"]
    assert facts["unit"] in ("1", "length")
    assert facts["definition"].endswith("/v1")
    equal = MaskPair(square(3, 3, 9), square(3, 3, 9))
    assert METRICS[name](equal, **SETTINGS.get(name, {})) == facts["best"]


def test_the_diagonal_is_longer_than_any_distance():
    drawn, predicted = np.zeros((2, 7, 9), bool)
    drawn[0, 0] = predicted[-1, -1] = True
    pair = MaskPair(drawn, predicted, spacing=(3.0, 0.5), unit="mm")
    assert pair.diagonal == pytest.approx(math.hypot(21, 4.5))
    assert 0 < hausdorff(pair) < pair.diagonal


def test_the_band_is_a_length_and_not_a_number_of_voxels():
    drawn, predicted = square(4, 4, 12), square(4, 5, 12)
    coarse = MaskPair(drawn, predicted, spacing=(2.0, 2.0), unit="um")
    assert boundary_iou(coarse, distance=4.0) == boundary_iou(
        MaskPair(drawn, predicted), distance=2.0
    )


def test_masks_may_be_integers_of_0_and_1_and_nothing_else():
    assert dice(MaskPair(square(1, 1, 3).astype(np.uint8), square(1, 1, 3).astype(float))) == 1.0
    with pytest.raises(ValueError, match="prediction holds values from 0 to 2, a mask only 0 and"):
        MaskPair(square(1, 1, 3), square(1, 1, 3) * 2)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="do not lie on one grid; resample"):
        MaskPair(np.zeros((3, 4), bool), np.zeros((4, 3), bool))


def test_four_axes_are_refused():
    with pytest.raises(ValueError, match="arrays of 4 axes"):
        MaskPair(np.zeros((1, 3, 4, 4), bool), np.zeros((1, 3, 4, 4), bool))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, math.nan), (-1.0, 1.0)])
def test_a_spacing_that_is_no_length_per_axis_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing"):
        MaskPair(np.zeros((3, 3), bool), np.zeros((3, 3), bool), spacing)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match='backend "mesh" is none of surface, voxel'):
        MaskPair(np.zeros((3, 3), bool), np.zeros((3, 3), bool), backend="mesh")


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        (nsd, {"tolerance": -1.0}),
        (nsd, {"tolerance": math.nan}),
        (boundary_iou, {"distance": 0.0}),
        (hausdorff_percentile, {"percentile": 0.0}),
        (hausdorff_percentile, {"percentile": 100.5}),
    ],
)
def test_a_setting_without_a_meaning_is_refused(metric, settings):
    pair = MaskPair(square(2, 2, 5), square(3, 3, 5))
    with pytest.raises(ValueError, match=next(iter(settings))):
        metric(pair, **settings)


def test_whole_layers_cannot_be_peeled_off_unequal_voxels():
    pair = MaskPair(square(2, 2, 5), square(3, 3, 5), spacing=(2.0, 1.0))
    with pytest.raises(ValueError, match='use norm "euclidean"'):
        boundary_iou(pair, distance=2.0, norm="chessboard")


def test_the_inputs_are_not_changed():
    drawn, predicted = square(2, 2, 5), square(4, 3, 5)
    drawn.setflags(write=False)
    predicted.setflags(write=False)
    pair = MaskPair(drawn, predicted)
    for name in MASK_METRICS:
        METRICS[name](pair, **SETTINGS.get(name, {}))


def test_neither_torch_nor_pandas_is_imported():
    code = (
        "import sys, medseg.metrics;"
        "print([m for m in ('torch', 'monai', 'pandas', 'skimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
