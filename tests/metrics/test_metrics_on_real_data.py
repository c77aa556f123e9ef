"""Values that reference programs gave on real images; see references/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics import (
    InstancePair,
    MaskPair,
    MembranePair,
    adapted_rand,
    average_precision,
    ctc_det,
    ctc_seg,
    dice,
    hausdorff,
    hd95,
    instance_f1,
    instance_precision,
    iou,
    membrane_scores,
    nsd,
    panoptic_quality,
    pixel_error,
    precision,
    recall,
    segmentation_quality,
    v_rand,
    voi_merge,
    voi_split,
    warping_error,
)
from medseg.metrics.membranes import label_cells

pytestmark = pytest.mark.realdata

VALUES = json.loads((Path(__file__).parent / "references" / "real_data_vectors.json").read_text())


def png(path: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads these images")
    return np.asarray(image.open(path))


def tiff(path: Path) -> np.ndarray:
    return pytest.importorskip("tifffile", reason="tifffile reads these images").imread(path)


def nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    image = pytest.importorskip("nibabel", reason="nibabel reads these images").load(path)
    spacing = tuple(float(s) for s in image.header.get_zooms()[::-1])
    return np.asarray(image.dataobj).T, spacing


def only_existing(folder: Path) -> Path:
    if not folder.exists():
        pytest.skip(f"no {folder.name} among the real images")
    return folder


def keys(start: str):
    return [pytest.param(key, id=key[:45]) for key in VALUES if key.startswith(start)]


@pytest.mark.parametrize("key", keys("lung_mri_lobes"))
def test_the_atlas_estimate_of_the_lungs(data_root, key):
    folder = only_existing(data_root / "lung_mri_lobes")
    words = key.split()
    case, kind, label = words[1], words[2], int(words[4])
    reference, spacing = nifti(folder / f"labels_{kind}" / f"{case}.nii.gz")
    (estimate,) = sorted((folder / f"estimate_{case}").glob(f"*{kind.title()[:-1]}*.nii.gz"))
    prediction, _ = nifti(estimate)
    pair = MaskPair(reference == label, prediction == label, spacing, "mm")

    expected = VALUES[key]
    assert dice(pair) == pytest.approx(expected["dice"], abs=1e-6)
    assert hausdorff(pair) == pytest.approx(expected["hd100"], rel=1e-5)
    assert hd95(pair) == pytest.approx(expected["hd95"], rel=1e-5)
    there, back = (border.integral / border.area for border in pair.border_distances)
    assert [there, back] == pytest.approx(expected["asd"], abs=2e-5)
    assert nsd(pair, tolerance=4.0) == pytest.approx(expected["surface_dice_4mm"], abs=2e-6)


@pytest.mark.parametrize("key", keys("CHASE"))
def test_one_observer_of_retinal_vessels_against_the_other(data_root, key):
    folder = only_existing(data_root / "chase_db1")
    case = key.split()[1]
    masks = []
    for observer in ("1stHO", "2ndHO"):
        (path,) = sorted((folder / f"labels_{observer}").glob(f"*{case}*"))
        masks.append(png(path) > 0)
    pair = MaskPair(*masks)

    expected = VALUES[key]
    assert dice(pair) == pytest.approx(expected["dice"], abs=1e-6)
    assert iou(pair) == pytest.approx(expected["iou"], abs=1e-6)
    assert recall(pair) == pytest.approx(expected["sens"], abs=1e-6)
    assert 0 < precision(pair) < 1
    assert hausdorff(pair) == pytest.approx(expected["hd100"], rel=1e-6)
    assert hd95(pair) == pytest.approx(expected["hd95"], rel=1e-6)
    there, back = (border.integral / border.area for border in pair.border_distances)
    assert there == pytest.approx(expected["asd_gt_to_pred"], abs=1e-6)
    assert back == pytest.approx(expected["asd_pred_to_gt"], abs=1e-6)
    assert nsd(pair, tolerance=1) == pytest.approx(expected["surface_dice_1"], abs=1e-6)
    assert nsd(pair, tolerance=2) == pytest.approx(expected["surface_dice_2"], abs=1e-6)


@pytest.mark.parametrize("key", keys("stardist"))
def test_nuclei_moved_by_three_pixels(data_root, key):
    folder = only_existing(data_root / "stardist_nuclei_fixtures")
    labels = tiff(folder / "labels" / f"{key.split()[1].rstrip(':')}.tif")
    pair = InstancePair(labels, np.roll(labels, 3, axis=-2))
    for text, expected in VALUES[key].items():
        threshold = float(text)
        match = pair.matching(threshold)
        assert (match.found, match.invented, match.missed) == (
            expected["tp"], expected["fp"], expected["fn"],
        )  # fmt: skip
        for metric, name in (
            (instance_precision, "precision"),
            (instance_f1, "f1"),
            (average_precision, "AP_accuracy"),
            (segmentation_quality, "mean_matched_score"),
            (panoptic_quality, "panoptic_quality"),
        ):
            assert metric(pair, threshold=threshold) == pytest.approx(expected[name], abs=2e-6)


CROSS = ndimage.generate_binary_structure(2, 1)


def without_rows(cells: np.ndarray) -> np.ndarray:
    opened = cells.copy()
    opened[250:260] = True
    return opened


DAMAGE = {
    "erode_cells_3x3cross": lambda cells: ndimage.binary_erosion(cells, CROSS),
    "dilate_cells_3x3cross_1it": lambda cells: ndimage.binary_dilation(cells, CROSS),
    "remove_membrane_rows_250_259": without_rows,
}


@pytest.mark.parametrize("key", keys("isbi"))
def test_damaged_membranes(data_root, key):
    folder = only_existing(data_root / "isbi2012_em")
    _, _, number, damage = key.split()
    cells = png(folder / "labels" / f"{number}.png") > 0
    damaged = DAMAGE[damage](cells)
    pair = InstancePair(label_cells(cells), label_cells(damaged))
    expected = VALUES[key]

    assert (pair.reference_count, pair.predicted_count) == (expected["n_gt"], expected["n_pred"])
    rand = adapted_rand(pair, self_pairs=False)
    assert rand.error == pytest.approx(expected["skimage_adapted_rand_error"], abs=1e-6)
    # scikit-image returns these two the other way round.
    assert rand.recall == pytest.approx(expected["precision"], abs=1e-6)
    assert rand.precision == pytest.approx(expected["recall"], abs=1e-6)
    published = expected["V_rand_foreground_restricted_with_pred0_as_a_segment"]
    assert v_rand(pair) == pytest.approx(published, abs=1e-6)
    split_and_merge = expected["skimage_VOI_split_merge_ignore0"]
    assert [voi_split(pair), voi_merge(pair)] == pytest.approx(split_and_merge, abs=1e-6)
    membranes = MembranePair(cells, damaged)
    assert pixel_error(membranes) == pytest.approx(expected["pixel_error"], abs=1e-6)
    scores = membrane_scores(cells, damaged.astype(float), thresholds=[0.5], thinned=False)
    assert scores.curve[0].v_rand == pytest.approx(v_rand(pair))
    assert scores.curve[0].membrane_f1 == pytest.approx(expected["membrane_dice"], abs=1e-6)


def test_wide_membranes_cost_little_after_thinning_and_bending(data_root):
    folder = only_existing(data_root / "isbi2012_em")
    cells = png(folder / "labels" / "00.png") > 0
    wider = ndimage.binary_erosion(cells, CROSS)
    raw = membrane_scores(cells, wider.astype(float), thresholds=[0.5], thinned=False)
    thinned = membrane_scores(cells, wider.astype(float), thresholds=[0.5])
    assert raw.v_rand < thinned.v_rand
    assert warping_error(MembranePair(cells, wider)) < 0.05 * pixel_error(
        MembranePair(cells, wider)
    )


FRAMES = range(6)


def identity(labels: np.ndarray, frame: int) -> np.ndarray:
    return labels


def eroded(labels: np.ndarray, frame: int) -> np.ndarray:
    left = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        left[ndimage.binary_erosion(labels == label, CROSS, iterations=3)] = label
    return left


def deleted(labels: np.ndarray, frame: int) -> np.ndarray:
    return np.where((labels == 200) & (frame >= 3), 0, labels)


def merged(labels: np.ndarray, frame: int) -> np.ndarray:
    return np.where(labels == 240, 130, labels)


@pytest.mark.parametrize(
    ("key", "change"),
    list(zip([k for k in VALUES if k.startswith("CTC")], (identity, eroded, deleted, merged),
             strict=True)),
    ids=["identity", "eroded", "deleted", "merged"],
)  # fmt: skip
def test_seg_and_det_of_the_cell_tracking_challenge(data_root, key, change):
    folder = only_existing(data_root / "ctc_metric_fixture")
    seg, det = [], []
    for frame in FRAMES:
        outlines = tiff(folder / "GT" / "SEG" / f"man_seg{frame:03d}.tif")
        markers = tiff(folder / "GT" / "TRA" / f"man_track{frame:03d}.tif")
        result = change(tiff(folder / "res" / f"mask{frame:03d}.tif"), frame)
        # Every frame holds the same three cells, so the mean over frames is that over objects.
        assert InstancePair(outlines, markers).reference_count == 3
        seg.append(ctc_seg(InstancePair(outlines, result)))
        det.append(ctc_det(InstancePair(markers, result)))
    assert np.mean(seg) == pytest.approx(VALUES[key]["SEG"], abs=1e-8)
    assert np.mean(det) == pytest.approx(VALUES[key]["DET"], abs=1e-8)


def test_vertebrae_and_discs_as_panoptica_counts_them(data_root):
    folder = only_existing(data_root / "spine_instance_metric_fixture" / "matched_instance")
    reference, spacing = nifti(folder / "ref.nii.gz")
    prediction, _ = nifti(folder / "pred.nii.gz")
    pair = InstancePair(reference, prediction, spacing, "mm")
    match = pair.matching(0.5)
    assert (pair.reference_count, pair.predicted_count) == (22, 22)
    assert (match.found, match.invented, match.missed) == (19, 3, 3)
    assert instance_f1(pair) == pytest.approx(0.863636, abs=1e-6)
    assert segmentation_quality(pair) == pytest.approx(0.832818, abs=1e-6)
    assert panoptic_quality(pair) == pytest.approx(0.719252, abs=1e-6)
    assert dice(MaskPair(reference > 0, prediction > 0)) == pytest.approx(0.974437, abs=1e-6)
