"""Values that other programs and their authors wrote down; see references/README.md."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medseg.metrics import (
    InstancePair,
    MaskPair,
    adapted_rand,
    aji,
    assd,
    ctc_seg,
    dice,
    hausdorff,
    hd95,
    instance_f1,
    iou,
    masd,
    merges,
    nsd,
    panoptic_quality,
    segmentation_quality,
    splits,
    voi_merge,
    voi_split,
)

REFERENCES = Path(__file__).parent / "references"
RELOADED = json.loads((REFERENCES / "metricsreloaded_values.json").read_text())
with (REFERENCES / "segmetrics_full-study-test.csv").open() as file:
    SAMPLES = [row for row in csv.DictReader(file) if row["Sample"]]

# (first row, past the last, first column, past the last, label) of each rectangle.
_ONE = [(100, 200, 100, 200, 1), (300, 400, 100, 200, 2), (100, 200, 300, 400, 3),
        (300, 400, 300, 400, 4)]  # fmt: skip
_TWO = [(120, 220, 120, 220, 1), (340, 440, 100, 200, 2), (100, 200, 250, 400, 3),
        (300, 480, 300, 400, 4)]  # fmt: skip
RECTANGLES = [
    _ONE,
    _TWO,
    _TWO[:3],
    [*_ONE[:3], (250, 500, 250, 500, 4)],
    _TWO[:2],
    [*_ONE[:2], (100, 250, 300, 400, 3), (250, 400, 300, 400, 4)],
    [*_TWO[:2], (90, 410, 280, 420, 3)],
]


def rectangles(number: int) -> np.ndarray:
    labels = np.zeros((500, 500), np.uint8)
    for top, bottom, left, right, label in RECTANGLES[number]:
        labels[top:bottom, left:right] = label
    return labels


@pytest.mark.parametrize("name", RELOADED)
def test_the_voxel_backend_gives_the_numbers_of_metricsreloaded(name):
    arrays = np.load(REFERENCES / "metricsreloaded_arrays.npz")
    pair = MaskPair(arrays[f"{name}__ref"], arrays[f"{name}__pred"], backend="voxel")
    expected = RELOADED[name]

    assert dice(pair) == pytest.approx(expected["dsc"], abs=1e-6)
    assert iou(pair) == pytest.approx(expected["iou"], abs=1e-6)
    assert hausdorff(pair) == pytest.approx(expected["hd"], abs=1e-6)
    assert hd95(pair) == pytest.approx(expected["hd95"], abs=1e-6)
    assert masd(pair) == pytest.approx(expected["masd"], abs=1e-6)
    assert assd(pair) == pytest.approx(expected["assd"], abs=1e-6)
    assert nsd(pair, tolerance=1) == pytest.approx(expected["nsd_tau1"], abs=1e-6)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda row: row["Sample"])
def test_the_study_of_segmetrics_is_reproduced(sample):
    _, i, j = sample["Sample"].split("-")
    pair = InstancePair(rectangles(int(i)), rectangles(int(j)))
    masks = MaskPair(pair.reference_labels > 0, pair.predicted_labels > 0)

    assert ctc_seg(pair) == pytest.approx(float(sample["SEG"]), abs=6e-4)
    assert aji(pair) == pytest.approx(float(sample["AJC"]), abs=6e-4)
    assert splits(pair) == float(sample["Split"])
    assert merges(pair) == float(sample["Merge"])
    assert dice(masks) == pytest.approx(float(sample["Dice"]), abs=6e-4)
    assert iou(masks) == pytest.approx(float(sample["JC"]), abs=6e-4)


# The next inputs and values are those of surface-distance's own tests.
def one_voxel(shape, at):
    mask = np.zeros(shape, bool)
    mask[at] = True
    return mask


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "means", "hd100", "surface_dice", "volume_dice"),
    [
        (one_voxel((128,) * 3, (50, 60, 70)), one_voxel((128,) * 3, (50, 60, 72)), (3, 2, 1),
         (1.5, 1.5), 2.0, 0.5, 0.0),
        (one_voxel((100,) * 3, slice(50)), one_voxel((100,) * 3, slice(51)), (2, 1, 1),
         (0.322, 0.339), 2.0, 0.836, 0.990),
        (one_voxel((128,) * 2, (50, 70)), one_voxel((128,) * 2, (50, 72)), (2, 1),
         (1.5, 1.5), 2.0, 0.5, 0.0),
        (one_voxel((6, 6), np.s_[1:3, 1:3]), one_voxel((6, 6), np.s_[1:4, 1:3]), (2, 1),
         (0.095, 0.447), 2.0, 0.870, 0.8),
    ],
)  # fmt: skip
def test_the_own_tests_of_surface_distance_hold(
    reference, prediction, spacing, means, hd100, surface_dice, volume_dice
):
    pair = MaskPair(reference, prediction, spacing, "mm")
    there, back = pair.border_distances

    assert there.integral / there.area == pytest.approx(means[0], abs=6e-4)
    assert back.integral / back.area == pytest.approx(means[1], abs=6e-4)
    assert hausdorff(pair) == hd95(pair) == hd100
    assert nsd(pair, tolerance=1) == pytest.approx(surface_dice, abs=6e-4)
    assert dice(pair) == pytest.approx(volume_dice, abs=6e-4)


def test_the_own_examples_of_panoptica_hold():
    reference, prediction = np.zeros((2, 50, 50), np.uint8)
    reference[20:40, 10:20] = 1
    prediction[20:35, 10:20] = 2
    pair = InstancePair(reference, prediction)
    assert segmentation_quality(pair) == panoptic_quality(pair) == pytest.approx(0.75)

    reference[30:40, 10:20] = 3
    pair = InstancePair(reference, prediction)
    assert (pair.matching(0.5).found, pair.matching(0.5).missed) == (1, 1)
    assert segmentation_quality(pair) == pytest.approx(2 / 3)
    assert panoptic_quality(pair) == pytest.approx(0.444444, abs=1e-6)
    assert dice(MaskPair(reference > 0, prediction > 0)) == pytest.approx(0.857143, abs=1e-6)


def test_the_own_example_of_stardist_holds():
    """Discs rolled by some pixels match at half of their IoU and not at twice of it."""
    y, x = np.ogrid[:100, :100]
    disc = ((y - 50) ** 2 + (x - 50) ** 2 <= 20**2).astype(np.uint8)
    for rolled in (0, 5, 10):
        pair = InstancePair(disc, np.roll(disc, rolled, axis=0))
        overlap = float(pair.iou[0])
        assert instance_f1(pair, threshold=overlap / 2) == 1.0
        if overlap < 0.5:
            assert instance_f1(pair, threshold=2 * overlap) == 0.0


def test_the_own_examples_of_scikit_image_hold():
    pair = InstancePair(np.array([[2, 1], [1, 2]]), np.array([[1, 2], [3, 1]]))
    rand = adapted_rand(pair, self_pairs=False)
    # Its tests expect (error, precision, recall) = (1/3, 0.5, 1) with the roles exchanged.
    assert (rand.error, rand.recall, rand.precision) == pytest.approx((1 / 3, 0.5, 1.0))

    pair = InstancePair(np.array([[1, 2, 3, 4]]), np.array([[1, 1, 8, 8]]))
    assert voi_split(pair) + voi_merge(pair) == pytest.approx(1.0)
    pair = InstancePair(np.array([[1, 0], [2, 3]]), np.array([[1, 1], [1, 0]]))
    assert (voi_split(pair), voi_merge(pair)) == pytest.approx((0, 2 / 3), abs=1e-12)
