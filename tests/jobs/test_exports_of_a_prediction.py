"""What ``medseg predict --write`` gives to other programs says what the label map says."""

import json

import pandas as pd
import pytest
import shapely
from roifile import roiread

from medseg.images import read_labels


@pytest.fixture(scope="module")
def exported(discs, medseg, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported")
    ran = medseg(
        "predict",
        discs.folder,
        discs.root / "images" / "disc_0.png",
        *("-o", output, "--pixel-size", "0.5 um,0.5 um"),
        *("--write", "table, rois,geojson", "--json"),
    )
    assert ran.code == 0, ran.errors
    return output, ran.json


def test_every_file_asked_for_is_there_and_named(exported):
    output, told = exported
    names = ["disc_0.csv", "disc_0_rois.zip", "disc_0.geojson"]
    assert told["exported"] == {"disc_0": [str(output / name) for name in names]}
    assert {file.name for file in output.iterdir()} == {"disc_0.png", *names}


def test_all_of_them_tell_the_area_of_the_label_map(exported):
    output, _ = exported
    pixels = int((read_labels(output / "disc_0.png").array == 0).sum())
    row = pd.read_csv(output / "disc_0.csv").iloc[0]
    (feature,) = json.loads((output / "disc_0.geojson").read_text())["features"]

    assert (row["id"], row["class"], row["pixels"]) == (0, "disc", pixels)
    assert row["area_um2"] == pixels / 4
    assert 0.5 < row["score"] <= 1
    assert shapely.from_geojson(json.dumps(feature["geometry"])).area == pixels
    assert feature["properties"]["measurements"]["score"] == pytest.approx(row["score"], rel=1e-6)
    assert [roi.name for roi in roiread(output / "disc_0_rois.zip")] == ["0"]


def test_an_unknown_export_is_refused_before_anything_is_predicted(discs, medseg, tmp_path):
    ran = medseg(
        "predict", discs.folder, discs.root / "images", "-o", tmp_path / "out", "--write", "tabel"
    )
    assert ran.code == 1
    assert '--write: "tabel" is no export; did you mean "table"?' in ran.errors
    assert not (tmp_path / "out").exists()
