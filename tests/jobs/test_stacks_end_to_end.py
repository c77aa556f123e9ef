"""A stack is trained on and predicted whole: plane by plane, with neighbours, or in 3D."""

import re

import mlflow
import numpy as np
import pytest
import torch

from medseg.geometry import Grid, Unit
from medseg.images import Image, read_image, read_labels, write_image, write_labels
from medseg.inference import Model, sliding_window

CARD = """\
name: balls
layout: paired_folders
spatial_dims: 3
labels: {background: 0, ball: 1}
"""
JOB = """\
data: {dataset: balls.yaml, %s}
network: {name: unet, channels: [4, 8]}
augmentation: light
train: {epochs: 1, iterations_per_epoch: 60, learning_rate: 1e-2, ema: null}
metrics: [dice]
"""
WAYS = {
    "2d": "stack: 2d, patch_voxels: [24, 24]",
    "2.5d": "stack: 2.5d, patch_voxels: [24, 24], spacing: [0.6 um, 0.6 um]",
    "3d": "stack: 3d, patch_voxels: [24, 24, 4]",
}


def make_stacks(folder):
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(4):
        inside = np.zeros((12, 32, 32), bool)  # a bar from plane 3 to 8
        inside[3:9, 6 + number : 20 + number, 8:24] = True
        image = (60 + 90 * inside + rng.normal(0, 20, inside.shape)).clip(0, 255).astype(np.uint8)
        grid = Grid(image.shape, (2.0, 0.5, 0.5), Unit.UM)
        write_image(folder / "images" / f"s{number}.ome.tif", Image(image, grid, "ZYX"))
        write_labels(folder / "labels" / f"s{number}.ome.tif", inside.astype(np.uint8), grid)
    (folder / "balls.yaml").write_text(CARD)


@pytest.fixture(scope="module", params=WAYS)
def trained(request, tmp_path_factory, medseg):
    root = tmp_path_factory.mktemp("stacks")
    make_stacks(root)
    (root / "job.yaml").write_text(JOB % WAYS[request.param])
    store = f"sqlite:///{root / 'mlflow.db'}"
    ran = medseg(
        *("train", root / "job.yaml", "--runs", root / "runs", "--tracking-uri", store),
        *("--device", "cpu", "--json"),
    )
    assert ran.code == 0, ran.errors
    return request.param, root, ran.json, store


def test_a_whole_stack_is_labelled_and_keeps_its_spacing(trained, medseg, tmp_path):
    way, root, told, _ = trained
    image = root / "images" / "s0.ome.tif"

    ran = medseg("predict", told["folder"], image, "-o", tmp_path, "--write", "geojson")

    assert ran.code == 0, ran.errors
    labels = read_labels(tmp_path / "s0.ome.tif")
    drawn = read_labels(root / "labels" / "s0.ome.tif")
    assert labels.grid == drawn.grid
    assert labels.grid.spacing == (2.0, 0.5, 0.5)
    both = 2 * ((labels.array == 1) & (drawn.array == 1)).sum()
    assert both / (labels.array.sum() + drawn.array.sum()) > 0.6, way
    spec = Model.load(f"{told['folder']}/model").spec
    assert (spec.neighbours, len(spec.window_voxels)) == {
        "2d": (0, 2),
        "2.5d": (1, 2),
        "3d": (None, 3),
    }[way]


def test_the_registered_model_takes_a_stack_and_gives_the_same(trained):
    _, root, told, store = trained
    image = read_image(root / "images" / "s1.ome.tif")
    try:
        mlflow.set_tracking_uri(store)
        theirs = mlflow.pyfunc.load_model(told["registered"]).predict(
            image.channels_first[None].astype(np.float32)
        )
    finally:
        mlflow.set_tracking_uri(None)
    ours = Model.load(f"{told['folder']}/model").predict(image.channels_first, image.grid)
    np.testing.assert_array_equal(theirs[0], ours)


def test_each_plane_of_a_stack_is_labelled_as_if_it_were_an_image_of_its_own():
    image = torch.rand(1, 5, 20, 20)

    def scores(windows):
        return torch.cat([windows, windows.mean((2, 3), keepdim=True).expand_as(windows)], 1)

    whole = torch.cat(list(sliding_window(scores, image, window=(8, 8))), 1)

    for number in range(5):
        alone = torch.cat(list(sliding_window(scores, image[:, number], window=(8, 8))), 1)
        torch.testing.assert_close(whole[:, number], alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stack: 2d, patch_voxels: [24, 24, 4]", "patch_voxels has 3 axes.*seen as stack: 2d"),
        ("patch_voxels: [24, 24]", "patch_voxels has 2 axes, the data set balls is 3D"),
        ("stack: 2d, neighbours: 2, patch_voxels: [24, 24]", "needs stack: 2.5d"),
        ("stack: 4d, patch_voxels: [24, 24]", "data.stack"),
    ],
)
def test_a_stack_that_makes_no_sense_is_refused(medseg, tmp_path, change, message):
    (tmp_path / "balls.yaml").write_text(CARD)
    (tmp_path / "job.yaml").write_text(JOB % change)
    ran = medseg("train", tmp_path / "job.yaml")
    assert ran.code == 1
    assert re.search(message, ran.errors), ran.errors


def test_images_that_are_no_stacks_have_none(medseg, tmp_path):
    (tmp_path / "balls.yaml").write_text(CARD.replace("dims: 3", "dims: 2"))
    (tmp_path / "job.yaml").write_text(JOB % WAYS["2d"])
    ran = medseg("train", tmp_path / "job.yaml")
    assert ran.code == 1
    assert "its images are no stacks; leave 'stack' out" in ran.errors
