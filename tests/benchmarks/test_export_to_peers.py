"""What the other tools are given is what the card says, and never the test labels."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg.geometry import Grid, Unit
from medseg.images import Image, read_image, write_image, write_labels

EXPORT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "peers" / "export.py"))
PARTS = {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
CARD = """
name: small
root: .
layout: {{name: paired_folders, images: images, labels: labels}}
spatial_dims: {spatial_dims}
kind: {kind}
channels: {channels}
labels: {labels}
split: {{name: stated, train: [a, b], validation: [c], test: [d]}}
"""
JOB = """
data: {{dataset: card.yaml, patch_voxels: {patch}}}
network: {{name: unet}}
"""


def exported(folder: Path, layout: str) -> Path:
    EXPORT["export"](folder / "job.yaml", layout, folder / "data", data_root=folder)
    return folder / "data"


def named(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def volumes(tmp_path):
    """Volumes whose structures are written as 7 and 3, on a grid with an origin of its own."""
    grid = Grid((3, 4, 5), (2.0, 0.5, 0.25), Unit.MM, origin=(9.0, 8.0, 7.0))
    card = {"spatial_dims": 3, "kind": "semantic", "channels": "[t1]"}
    labels = "{background: 0, anterior: 7, posterior: 3}"
    (tmp_path / "card.yaml").write_text(CARD.format(**card, labels=labels))
    (tmp_path / "job.yaml").write_text(JOB.format(patch="[4, 4, 4]"))
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in "abcd":
        array = np.arange(60, dtype=np.float32).reshape(grid.shape)
        drawn = np.zeros(grid.shape, np.uint8)
        drawn[1], drawn[2] = 7, 3
        write_image(tmp_path / "images" / f"{name}.nii.gz", Image(array, grid, "ZYX"))
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", drawn, grid)
    return tmp_path


@pytest.fixture
def pictures(tmp_path):
    """RGB images with an object each, whose number fits into no byte."""
    card = {"spatial_dims": 2, "kind": "instance", "channels": "[red, green, blue]"}
    (tmp_path / "card.yaml").write_text(CARD.format(**card, labels="{background: 0, nucleus: 1}"))
    (tmp_path / "job.yaml").write_text(JOB.format(patch="[8, 8]"))
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in "abcd":
        colours = np.zeros((6, 8, 3), np.uint8)
        colours[2, 5] = 10, 20, 30
        drawn = np.zeros((6, 8), np.uint16)
        drawn[2, 5] = 300
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", colours, photometric="rgb")
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", drawn)
    return tmp_path


def test_nnunet_gets_classes_in_order_on_the_grid_of_the_image(volumes):
    data = exported(volumes, "nnunet")
    raw = data / "nnUNet_raw" / "Dataset001_small"

    assert named(raw / "imagesTr") == ["a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz"]
    assert named(raw / "imagesTs") == ["d_0000.nii.gz"]
    image, drawn = (
        read_image(raw / file) for file in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    )
    source = read_image(volumes / "images" / "a.nii.gz")
    assert image.grid.matches(source.grid)
    assert drawn.grid.matches(source.grid)
    np.testing.assert_array_equal(image.array, source.array)
    assert [np.unique(plane).tolist() for plane in drawn.array] == [[0], [1], [2]]
    described = json.loads((raw / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "anterior": 1, "posterior": 2}
    assert json.loads((data / "cases.json").read_text())["file_values"] == [0, 7, 3]


def test_nnunet_gets_our_split_as_its_only_fold(volumes):
    data = exported(volumes, "nnunet")

    folds = json.loads((data / "splits_final.json").read_text())
    assert folds == [{"train": PARTS["train"], "val": PARTS["validation"]}]
    assert json.loads((data / "cases.json").read_text())["split"] == PARTS


def test_folders_hold_colours_last_and_the_objects_own_numbers(pictures):
    data = exported(pictures, "folders")

    image = tifffile.imread(data / "train" / "images" / "a.tif")
    drawn = tifffile.imread(data / "train" / "labels" / "a.tif")
    assert image.shape == (6, 8, 3)
    assert image[2, 5].tolist() == [10, 20, 30]
    assert drawn[2, 5] == 300


@pytest.mark.parametrize(("source", "layout"), [("volumes", "nnunet"), ("pictures", "folders")])
def test_the_labels_of_the_test_cases_are_not_given(source, layout, request):
    data = exported(request.getfixturevalue(source), layout)

    written = [path for path in data.rglob("*") if path.parent.name.startswith("labels")]
    assert written
    assert not [path for path in written if path.name.startswith("d")]
