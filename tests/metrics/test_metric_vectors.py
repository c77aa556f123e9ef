"""Every vector of metric_vectors.json; what was run to get them stands in its ``meta``."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.metrics import (
    InstancePair,
    MaskPair,
    adapted_rand,
    assd,
    average_precision,
    boundary_iou,
    ctc_det,
    ctc_seg,
    dice,
    hausdorff,
    hd95,
    instance_f1,
    instance_precision,
    instance_recall,
    iou,
    masd,
    nsd,
    panoptic_quality,
    segmentation_quality,
    trimap_curve,
    v_info,
    v_rand,
    voi_merge,
    voi_split,
)

VECTORS = json.loads((Path(__file__).parent / "metric_vectors.json").read_text())["vectors"]
STATUS = {"empty_gt": "empty_reference", "empty_pred": "empty_prediction"}


def of_kind(kind: str) -> Any:
    chosen = [pytest.param(v, id=v["id"]) for v in VECTORS if v["kind"] == kind]
    return pytest.mark.parametrize("vector", chosen)


def build(vector: dict[str, Any], which: str) -> np.ndarray:
    array = np.zeros(vector["shape"], np.int32)
    for op, *args in vector[which]:
        if op == "box":
            lower, upper, value = args
            array[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))] = value
        elif op == "vox":
            for index in args[0]:
                array[tuple(index)] = args[1]
        elif op == "ball":
            centre, radius, value = args
            far = sum((i - c) ** 2 for i, c in zip(np.indices(array.shape), centre, strict=True))
            array[far <= radius**2] = value
        elif op == "fill":
            array[...] = args[0]
        else:
            array[...] = np.reshape(args[0], array.shape)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    assert digest[:16] == vector["sha256_16"][which]
    return array


@of_kind("surface")
@pytest.mark.parametrize("unit", ["px", "mm"])
def test_surface_vectors(vector, unit):
    reference, prediction = build(vector, "gt") > 0, build(vector, "pred") > 0
    pair = MaskPair(reference, prediction, vector["spacing"], unit)
    expected = dict(vector["recommended"])
    # Here a distance to nothing is NaN with a status; a summary puts the diagonal in its place.
    expected = {k: float("nan") if v in ("inf", "nan") else v for k, v in expected.items()}

    assert pair.status == STATUS.get(expected["status"], expected["status"])
    for name, metric in {
        "dice": dice, "iou": iou, "hd": hausdorff, "hd95": hd95, "assd": assd, "masd": masd,
    }.items():  # fmt: skip
        assert metric(pair) == pytest.approx(expected[name], rel=1e-4, nan_ok=True), name
    for tolerance, value in expected["nsd"].items():
        value = float("nan") if value == "nan" else value
        found = nsd(pair, tolerance=float(tolerance))
        assert found == pytest.approx(value, rel=1e-4, nan_ok=True)
    for name, border in zip(("asd_gt2pred", "asd_pred2gt"), pair.border_distances, strict=True):
        if name in expected:
            assert border.integral / border.area == pytest.approx(expected[name], rel=1e-4)


@of_kind("overlap")
def test_overlap_vectors(vector):
    reference, prediction = build(vector, "gt"), build(vector, "pred")
    expected = vector["expected"]["nnunet rule (nan if tp+fp+fn==0)"]
    for label in vector["labels"]:
        found = dice(MaskPair(reference == label, prediction == label))
        value = float(expected[str(label)])
        assert found == pytest.approx(value, nan_ok=True)


@of_kind("boundary_iou")
def test_boundary_iou_vectors(vector):
    pair = MaskPair(build(vector, "gt") > 0, build(vector, "pred") > 0)
    width = vector["dilation_px"]
    peeled = vector["expected"]["boundary_iou_api"]["boundary_iou"]
    euclidean = vector["expected"][f"metricsreloaded(boundary_dist={width})"]["boundary_iou"]

    assert boundary_iou(pair, distance=width, norm="chessboard") == pytest.approx(peeled)
    assert boundary_iou(pair, distance=width) == pytest.approx(euclidean)


@of_kind("instance")
def test_instance_vectors(vector):
    pair = InstancePair(build(vector, "gt"), build(vector, "pred"))
    for key, expected in vector["expected"].items():
        if key == "ctc":
            continue
        program, _, at = key.partition("@")
        threshold = float(at)
        # An IoU of exactly one half is a match to these two, and to MONAI and us it is none.
        if vector["id"] == "I03" and program != "monai_pq":
            continue
        # panoptica matches greedily below one half.
        if program == "panoptica" and threshold < 0.5:
            continue
        check_instance(pair, program, threshold, expected)
    check_ctc(pair, vector["expected"]["ctc"])


def check_instance(
    pair: InstancePair, program: str, threshold: float, expected: dict[str, Any]
) -> None:
    if pair.status == "both_empty":
        # Nothing to judge: NaN here, as in panoptica; 0 in the others.
        assert np.isnan(panoptic_quality(pair, threshold=threshold))
        return
    match = pair.matching(threshold)
    for name, found in {
        "tp": match.found,
        "fp": match.invented,
        "fn": match.missed,
        "precision": instance_precision(pair, threshold=threshold),
        "recall": instance_recall(pair, threshold=threshold),
        "f1": instance_f1(pair, threshold=threshold),
        "rq": instance_f1(pair, threshold=threshold),
        "sq": segmentation_quality(pair, threshold=threshold),
        "accuracy_AP": average_precision(pair, threshold=threshold),
        "mean_matched_score": segmentation_quality(pair, threshold=threshold),
        "pq": panoptic_quality(pair, threshold=threshold),
    }.items():
        if name in expected:
            # MONAI adds a millionth to its denominators.
            assert found == pytest.approx(expected[name], rel=1e-4), (program, name)


def check_ctc(pair: InstancePair, expected: dict[str, Any]) -> None:
    if pair.status == "both_empty":
        assert np.isnan(ctc_seg(pair))
    else:
        assert ctc_seg(pair) == pytest.approx(expected["SEG"])
    defined = expected["DET"] is not None
    assert ctc_det(pair) == pytest.approx(expected["DET"] if defined else np.nan, nan_ok=True)


@of_kind("rand_voi")
def test_rand_and_voi_vectors(vector):
    reference, prediction = (np.atleast_2d(build(vector, w)) for w in ("gt", "pred"))
    pair = InstancePair(reference, prediction)
    rand = adapted_rand(pair)
    funlib, isbi = vector["expected"]["funlib"], vector["expected"]["derived_ISBI2012"]
    assert rand.recall == pytest.approx(funlib["rand_split"])
    assert rand.precision == pytest.approx(funlib["rand_merge"])
    assert voi_split(pair) == pytest.approx(funlib["voi_split"], abs=1e-12)
    assert voi_merge(pair) == pytest.approx(funlib["voi_merge"], abs=1e-12)
    assert v_rand(pair) == pytest.approx(isbi["V_rand"])
    assert v_info(pair) == pytest.approx(isbi["V_info"], abs=1e-12)

    # scikit-image returns the two the other way round, and judges the background in VOI.
    skimage = vector["expected"]["skimage"]
    rand = adapted_rand(pair, self_pairs=False)
    assert rand.error == pytest.approx(skimage["adapted_rand_error"])
    assert rand.precision == pytest.approx(skimage["returned_recall"])
    assert rand.recall == pytest.approx(skimage["returned_precision"])
    assert voi_split(pair, background="segment") == pytest.approx(skimage["voi_split"], abs=1e-12)
    assert voi_merge(pair, background="segment") == pytest.approx(skimage["voi_merge"], abs=1e-12)


@of_kind("trimap")
def test_trimap_vectors(vector):
    expected = vector["expected"]["spec(this document)"]
    curve = trimap_curve(
        build(vector, "gt"), build(vector, "pred"), vector["spacing"], [float(w) for w in expected]
    )
    for band, values in zip(curve, expected.values(), strict=True):
        assert band.band_voxels == values["n_band"]
        assert band.band_accuracy == pytest.approx(values["acc_boundary"])
        assert band.rest_accuracy == pytest.approx(values["acc_interior"])


def test_no_vector_is_left_out():
    tested = {"surface", "overlap", "boundary_iou", "instance", "rand_voi", "trimap"}
    assert {v["kind"] for v in VECTORS} == tested
    assert len(VECTORS) == 40
