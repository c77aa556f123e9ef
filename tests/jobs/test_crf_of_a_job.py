"""The CRF of a training job: checked before the fit, chosen after it, never the end of it."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image as Picture

from medseg.inference import DenseCRF
from medseg.jobs.crf import check_crf

CRF = "predict.crf={sigma_position: 2 um, sigma_intensity: 0.5, sigma_smooth: 500 nm}"
SHORT = ("train.epochs=1", "train.iterations_per_epoch=2", "metrics=[dice]")


@pytest.fixture
def train(discs, tmp_path, medseg):
    """Train the discs for two steps; return what the command did and the model's description."""

    def run(*settings, job=discs.job):
        ran = medseg(
            *("train", job, *SHORT, *settings, "--runs", tmp_path / "runs", "--device", "cpu"),
            *("--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--json"),
        )
        files = list((tmp_path / "runs").glob("*/model/model.json"))
        return ran, json.loads(files[0].read_text()) if files else {}

    return run


def without_pixel_size(discs, folder: Path) -> Path:
    """Return a job on the same images of which nobody says the pixel size."""
    card = (discs.root / "discs.yaml").read_text()
    card = card.replace("pixel_size: [0.5 um, 0.5 um]\n", f"root: {discs.root}\n")
    (folder / "discs.yaml").write_text(card)
    (folder / "job.yaml").write_text(discs.job.read_text())
    return folder / "job.yaml"


def test_a_registered_model_with_a_crf_in_um_predicts_arrays(discs, train, tmp_path, monkeypatch):
    ran, model = train(CRF)

    assert ran.code == 0, ran.errors
    assert model["usual_grid"] == {"spacing": [0.5, 0.5], "unit": "um"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    image = np.array(Picture.open(discs.root / "images" / "disc_0.png"), np.float32)
    labels = mlflow.pyfunc.load_model("models:/discs/1").predict(image[None, None])
    assert labels.shape == (1, 64, 64)


def test_a_crf_in_um_on_images_without_a_pixel_size_is_refused_before_the_fit(
    discs, train, tmp_path
):
    ran, _ = train(CRF, job=without_pixel_size(discs, tmp_path))

    assert ran.code == 1
    said = " ".join(ran.errors.split())
    assert "predict.crf.sigma_position is 2 um, but the pixel size of" in said
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_in_px_the_same_images_are_trained_and_predicted(discs, train, tmp_path):
    job = without_pixel_size(discs, tmp_path)

    ran, model = train(CRF.replace("2 um", "4 px").replace("500 nm", "1 px"), job=job)

    assert ran.code == 0, ran.errors
    assert model["usual_grid"] == {"spacing": [1.0, 1.0], "unit": "px"}
    assert "left out" not in ran.errors


def test_a_crf_that_cannot_be_chosen_leaves_the_model_without_one(train, monkeypatch):
    def refuse(*_):
        raise ValueError("the grid bursts")

    monkeypatch.setattr(DenseCRF, "refine", refuse)
    ran, model = train("predict.crf=choose")

    assert ran.code == 0, ran.errors
    assert "no CRF: the grid bursts" in ran.errors
    assert model["crf"] is None
    assert model["provenance"]["crf"] == {"crf": None, "reason": "the grid bursts"}


def test_a_choice_among_images_of_which_some_have_a_pixel_size_is_refused_first(
    discs, tmp_path, monkeypatch
):
    from medseg.config import cases_of, read_job
    from medseg.data import Reading
    from medseg.errors import MedsegError
    from medseg.jobs.parts import split_of

    job, card, card_file = read_job(discs.job, ["predict.crf=choose"])
    split = split_of(job, card, cases_of(card, card_file, None), discs.job)
    check_crf(job, discs.job, card, split)
    bare = read_job(without_pixel_size(discs, tmp_path))[1].reading().image(split.test[0])
    whole = Reading.image
    monkeypatch.setattr(
        Reading, "image", lambda self, case: bare if case == split.test[0] else whole(self, case)
    )

    with pytest.raises(MedsegError) as refused:
        check_crf(job, discs.job, card, split)
    assert "predict.crf: choose" in str(refused.value)
    assert f"the pixel size of {split.test[0].name} is not known" in str(refused.value)
