"""Touching cells, from a job to numbered objects, by the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import read_table
from medseg.geometry import Grid, Unit
from medseg.images import read_labels, write_labels
from medseg.inference import Model

CARD = """\
name: cells
licence: CC0-1.0
citation: made here
layout: paired_folders
spatial_dims: 2
kind: instance
pixel_size: [0.5 um, 0.5 um]
labels: {background: 0, cell: 1}
ignore: 99
"""
JOB = """\
data: {dataset: cells.yaml, patch_voxels: [32, 32]}
network: {name: unet, channels: [8, 16]}
objects: {name: border, width: 1 um, gap_weight: 5, gap_sigma: 2 um}
augmentation: light
train: {epochs: 4, iterations_per_epoch: 25, validate_every: 4, learning_rate: 1e-2, ema: 0.9}
"""
GRID = Grid((64, 64), (0.5, 0.5), Unit.UM)


def make_cells(folder: Path) -> Path:
    """Write images of pairs of touching discs, whose seam is dark; return the job."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(8):
        labels = np.zeros((64, 64), np.uint32)
        for pair in range(2):
            middle = 16 + 30 * pair + rng.integers(0, 4), rng.integers(26, 38)
            for side in (0, 1):
                away = np.hypot(rows - middle[0], columns - middle[1] - (2 * side - 1) * 9)
                labels[(away < 9.5) & (labels == 0)] = 1000 * (2 * pair + side + 1)
        seam = np.zeros(labels.shape, bool)
        seam[:, 1:] = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0)
        image = 40 + 140 * ((labels > 0) & ~seam) + rng.normal(0, 10, labels.shape)
        labels[:2] = 99
        Picture.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            folder / "images" / f"well_{number}.png"
        )
        write_labels(folder / "labels" / f"well_{number}.tif", labels, GRID)
    (folder / "cells.yaml").write_text(CARD)
    (folder / "job.yaml").write_text(JOB)
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def cells(tmp_path_factory, medseg):
    root = tmp_path_factory.mktemp("cells")
    store = f"sqlite:///{root / 'mlflow.db'}"
    job = make_cells(root)
    ran = medseg(
        "train", job, "--runs", root / "runs", "--tracking-uri", store, "--device", "cpu", "--json"
    )
    assert ran.code == 0, ran.errors
    return root, Path(ran.json["folder"]), store, ran.json


def test_touching_cells_are_told_apart(cells):
    _, folder, _, trained = cells
    records = read_table(folder / "evaluation" / "records.parquet")

    found = [r.value for r in records if r.metric == "average_precision"]
    assert len(found) == len(json.loads((folder / "model" / "split.json").read_text())["test"])
    assert np.mean(found) > 0.5, "pairs that merge would have 0"
    assert trained["registered"].startswith("models:/cells/")


def test_the_model_keeps_its_method_and_the_sweep_that_chose_its_thresholds(cells):
    _, folder, _, _ = cells
    model = json.loads((folder / "model" / "model.json").read_text())

    assert model["objects"]["name"] == "border"
    assert model["objects"]["unit"] == "um"
    assert model["objects"]["settings"] == {"width": 1.0, "gap_weight": 5, "gap_sigma": 2.0}
    sweep = model["provenance"]["thresholds"]["sweep"]
    best = max(sweep, key=lambda tried: tried["panoptic_quality"])
    assert model["objects"]["thresholds"] == best["thresholds"]
    assert "best_panoptic_quality" in model["provenance"]["fit"]


def test_new_images_get_numbers_and_the_registered_model_gives_the_same(cells, medseg, tmp_path):
    import mlflow

    root, _, store, trained = cells
    image = root / "images" / "well_0.png"
    ran = medseg(
        "predict", trained["registered"], image, "-o", tmp_path, "--tracking-uri", store,
        "--pixel-size", "0.5 um,0.5 um", "--probabilities",
    )  # fmt: skip
    assert ran.code == 0, ran.errors
    found = read_labels(tmp_path / "well_0.png").array
    assert set(np.unique(found)) == set(range(int(found.max()) + 1))
    assert found.max() >= 3
    names = {file.stem for file in (tmp_path / "probabilities").iterdir()}
    assert names == {"well_0_background", "well_0_interior", "well_0_border"}

    mlflow.set_tracking_uri(store)
    loaded = mlflow.pyfunc.load_model(trained["registered"])
    pixels = np.asarray(Picture.open(image), np.float32)[None, None]
    assert np.array_equal(loaded.predict(pixels)[0], found)


def test_objects_are_for_cards_of_objects_and_judged_by_their_metrics(cells, medseg):
    root, *_ = cells
    (root / "classes.yaml").write_text(CARD.replace("kind: instance\n", ""))

    refused = medseg("train", root / "job.yaml", "data.dataset=classes.yaml")
    assert refused.code == 1
    assert "objects.name: border finds objects, but the labels of cells are classes" in (
        refused.errors
    )
    refused = medseg("train", root / "job.yaml", "metrics=[dice]")
    assert '"dice" judges structures; the labels are objects' in refused.errors
    refused = medseg("train", root / "job.yaml", "objects.width=1 px")
    assert "all lengths in px, or all in physical units" in refused.errors


@pytest.mark.parametrize("method", ["distance", "affinities"])
def test_the_other_methods_tell_touching_cells_apart_too(cells, medseg, tmp_path, method):
    root, *_ = cells
    (tmp_path / "job.yaml").write_text(job_with(method))
    shutil.copy(root / "cells.yaml", tmp_path)
    for name in ("images", "labels"):
        shutil.copytree(root / name, tmp_path / name)
    ran = medseg(
        *("train", tmp_path / "job.yaml", "--runs", tmp_path / "runs", "--register", ""),
        *("--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--json"),
    )

    assert ran.code == 0, ran.errors
    records = read_table(Path(ran.json["folder"]) / "evaluation" / "records.parquet")
    assert np.mean([r.value for r in records if r.metric == "average_precision"]) > 0.5


def test_views_of_affinities_are_not_averaged(cells, medseg):
    root, *_ = cells
    (root / "affinities.yaml").write_text(job_with("affinities"))
    refused = medseg("train", root / "affinities.yaml", "predict.mirror=true")

    assert refused.code == 1
    assert "leave out predict.mirror and predict.scales" in refused.errors


def test_an_image_in_slabs_has_the_objects_of_the_whole(cells, monkeypatch):
    _, folder, _, _ = cells
    model = Model.load(folder / "model")
    # Eight wells below each other: one image of 512 rows.
    images = sorted((cells[0] / "images").iterdir())
    tall = np.concatenate([np.asarray(Picture.open(file)) for file in images])[None]
    grid = Grid(tall.shape[1:], (0.5, 0.5), Unit.UM)
    whole = model.predict(tall, grid)
    monkeypatch.setattr("medseg.inference.model.MOST_SCORES", 1)
    found = model.predict(tall, grid)

    assert whole.max() > 16
    pairs = np.unique(np.stack([found.ravel(), whole.ravel()]), axis=1)
    assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]


def job_with(method: str) -> str:
    return "\n".join(
        f"objects: {method}" if line.startswith("objects:") else line for line in JOB.splitlines()
    )


def test_two_folds_judge_each_cell_image_once_and_find_objects_together(cells, medseg, tmp_path):
    root, *_ = cells
    ran = medseg(
        *("crossval", root / "job.yaml", "--folds", 2, "train.epochs=2", "train.validate_every=2"),
        *("data.split={name: group, test: 0}", "--runs", tmp_path / "runs", "--register", ""),
        *("--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--device", "cpu", "--json"),
    )
    assert ran.code == 0, ran.errors
    folder = Path(ran.json["folder"])
    records = read_table(folder / "evaluation" / "records.parquet")
    judged = [record.case for record in records if record.metric == "panoptic_quality"]
    assert sorted(judged) == [f"well_{n}" for n in range(8)]

    predicted = medseg(
        *("predict", folder, root / "images" / "well_0.png", "-o", tmp_path / "out"),
        *("--pixel-size", "0.5 um,0.5 um"),
    )
    assert predicted.code == 0, predicted.errors
    found = read_labels(tmp_path / "out" / "well_0.png").array
    assert set(np.unique(found)) == set(range(int(found.max()) + 1))
