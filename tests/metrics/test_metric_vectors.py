"""Every vector of metric_vectors.json; what was run to get them stands in its ``meta``."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.metrics import MaskPair, assd, dice, hausdorff, hd95, iou, masd, nsd

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
