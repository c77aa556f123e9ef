"""Object metrics beside StarDist and py-ctcmetrics, run where these are installed."""

import numpy as np
import pytest

from medseg.metrics import (
    InstancePair,
    average_precision,
    ctc_det,
    ctc_seg,
    instance_f1,
    instance_precision,
    instance_recall,
    panoptic_quality,
    segmentation_quality,
)

SIDE = 64
SEEDS = range(8)


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def drawn_and_predicted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some ten discs, and the same moved, resized, dropped, joined, cut and invented."""
    rng = np.random.default_rng(seed)
    reference, prediction = np.zeros((2, SIDE, SIDE), np.uint16)
    for label in range(3, 36, 3):  # numbers with gaps
        centre, radius = rng.uniform(6, SIDE - 6, 2), rng.uniform(4, 8)
        reference[disc(centre, radius)] = label
        if rng.random() < 0.85:
            moved = centre + rng.normal(0, 1.2, 2)
            prediction[disc(moved, radius * rng.uniform(0.8, 1.2))] = 50 - label
    for label in (60, 61):
        prediction[disc(rng.uniform(4, SIDE - 4, 2), 3)] = label
    joined, other, cut = rng.permutation(np.unique(prediction[prediction > 0]))[:3]
    prediction[prediction == other] = joined
    rows = np.indices(prediction.shape)[0]
    prediction[(prediction == cut) & (rows > rows[prediction == cut].mean())] = 70
    return reference, prediction


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0.3, 0.51, 0.62, 0.77])
def test_counts_and_quality_of_objects_agree_with_stardist(seed, threshold):
    reason = "StarDist is not installed or does not import"
    stardist = pytest.importorskip("stardist.matching", reason=reason, exc_type=ImportError)
    reference, prediction = drawn_and_predicted(seed)
    pair = InstancePair(reference, prediction)
    # An IoU that equals the threshold counts there and not here; theirs has 32 bits.
    assert np.abs(pair.iou - threshold).min() > 1e-6

    theirs = stardist.matching(reference, prediction, thresh=threshold)
    ours = pair.matching(threshold)
    assert (ours.found, ours.invented, ours.missed) == (theirs.tp, theirs.fp, theirs.fn)
    for metric, value in {
        average_precision: theirs.accuracy,
        instance_precision: theirs.precision,
        instance_recall: theirs.recall,
        instance_f1: theirs.f1,
        segmentation_quality: theirs.mean_matched_score,
        panoptic_quality: theirs.panoptic_quality,
    }.items():
        assert metric(pair, threshold=threshold) == pytest.approx(value, abs=1e-6), metric.__name__


@pytest.mark.parametrize("seed", SEEDS)
def test_seg_and_det_of_a_frame_agree_with_py_ctcmetrics(seed, tmp_path):
    reason = "py-ctcmetrics is not installed or does not import"
    program = pytest.importorskip("ctc_metrics.metrics", reason=reason, exc_type=ImportError)
    frames = pytest.importorskip("ctc_metrics.utils.representations", exc_type=ImportError)
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    reference, prediction = drawn_and_predicted(seed)
    files = tmp_path / "drawn.tif", tmp_path / "predicted.tif"
    for file, labels in zip(files, (reference, prediction), strict=True):
        tifffile.imwrite(file, labels)

    *matched, ious = ([part] for part in frames.match(*map(str, files)))
    repairs = frames.count_acyclic_graph_correction_operations(None, None, *matched)
    pair = InstancePair(reference, prediction)
    assert ctc_seg(pair) == pytest.approx(program.seg(matched[0], ious), abs=1e-6)
    assert ctc_det(pair) == pytest.approx(program.det(**repairs), abs=1e-6)
