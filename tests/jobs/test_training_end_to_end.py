"""From a job to a judged, registered model, by the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_studies import runs_of

from medseg.evaluation import read_table


def test_a_run_leaves_its_papers_model_and_report(discs):
    names = {str(f.relative_to(discs.folder)) for f in discs.folder.rglob("*") if f.is_file()}

    assert {
        "result.json",
        "metrics.jsonl",
        "tracking.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "model/model.json",
        "model/weights.safetensors",
        "model/job.yaml",
        "model/card.yaml",
        "model/split.json",
        "model/data_sha256.json",
        "evaluation/records.csv",
        "evaluation/records.parquet",
        "evaluation/summary.json",
        "evaluation/report.html",
    } <= names
    assert not (discs.folder / "model.new").exists()


def test_records_hold_every_test_case_structure_and_metric(discs):
    split = json.loads((discs.folder / "model" / "split.json").read_text())
    records = read_table(discs.folder / "evaluation" / "records.parquet")

    assert {(r.case, r.structure, r.metric) for r in records} == {
        (case, "disc", metric) for case in split["test"] for metric in ("dice", "hd95", "nsd")
    }
    assert {r.unit for r in records if r.metric == "hd95"} == {"um"}
    assert all(r.value > 0.5 for r in records if r.metric == "dice"), "it has learned something"


def test_the_report_stands_alone(discs):
    page = (discs.folder / "evaluation" / "report.html").read_text()

    assert "discs" in page
    assert 'src="http' not in page
    assert "data:image/png;base64," in page


def test_the_run_in_mlflow_says_what_was_trained_on_what(discs):
    (run,) = runs_of(discs.store)

    assert run.info.status == "FINISHED"
    assert run.info.run_id == discs.trained["mlflow_run"]
    assert run.data.params["network.name"] == "unet"
    assert run.data.params["train.learning_rate"] == "0.01"
    for tag in ("job_hash", "split_hash", "data_sha256"):
        assert len(run.data.tags[tag]) == 64
    assert {"train/loss", "validation/dice", "fit/steps"} <= set(run.data.metrics)
    assert run.data.metrics["fit/steps"] == 36
    assert any(name.startswith("test/") for name in run.data.metrics)


def test_the_model_is_registered_with_the_run_s_provenance(discs):
    from mlflow import MlflowClient

    version = MlflowClient(discs.store).get_model_version("discs", "1")

    assert discs.trained["registered"] == "models:/discs/1"
    assert version.run_id == discs.trained["mlflow_run"]
    assert len(version.tags["job_hash"]) == 64
    assert any(tag.startswith("test.") for tag in version.tags)


def test_the_saved_job_is_the_whole_job(discs):
    saved = yaml.safe_load((discs.folder / "model" / "job.yaml").read_text())

    assert saved["train"]["batch"] == 4
    assert saved["train"]["seed"] == 7
    assert saved["network"] == {"name": "unet", "channels": [4, 8]}


def again(medseg, study, *words, runs: Path | None = None):
    return medseg(
        "train",
        study.job,
        *words,
        "--runs",
        runs or study.folder.parent,
        "--tracking-uri",
        study.store,
        "--json",
    )


def test_the_same_job_on_the_same_images_is_not_run_twice(discs, medseg):
    ran = again(medseg, discs)

    assert ran.code == 1
    assert "this job has run on these images already" in ran.errors
    assert str(discs.folder / "evaluation" / "report.html") in ran.errors


def test_a_run_that_was_killed_goes_on_as_the_same_run(discs, medseg, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(discs.folder, runs / discs.folder.name)
    (runs / discs.folder.name / "result.json").unlink()
    shutil.rmtree(runs / discs.folder.name / "model")

    ran = again(medseg, discs, "--register", "discs_resumed", runs=runs)

    assert ran.code == 0, ran.errors
    assert ran.json["mlflow_run"] == discs.trained["mlflow_run"]
    assert ran.json["registered"] == "models:/discs_resumed/1"
    ((run),) = runs_of(discs.store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["medseg.resumes"] == "1"
    fit = json.loads((runs / discs.folder.name / "model" / "model.json").read_text())["provenance"]
    assert fit["fit"]["resumed"]
    assert fit["fit"]["steps"] == 36, "nothing was left to train"
    assert fit["fit"]["best_dice"] > 0.5


@pytest.fixture
def copy(discs, tmp_path):
    """The data set again, to be spoilt."""
    for name in ("images", "labels"):
        shutil.copytree(discs.root / name, tmp_path / name)
    for name in ("discs.yaml", "job.yaml"):
        shutil.copy(discs.root / name, tmp_path)
    return tmp_path


def refused(medseg, folder: Path, *words) -> str:
    """Train in a folder; return the message with which that is refused before any training."""
    ran = medseg(
        "train", folder / "job.yaml", *words, "--runs", folder / "runs",
        "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}",
    )  # fmt: skip
    assert ran.code == 1, ran.errors
    assert "Traceback" not in ran.errors
    assert not list(folder.glob("runs/*/checkpoints")), "nothing was trained"
    return ran.errors


def test_an_image_that_is_in_training_and_test_under_two_names_is_refused(copy, medseg):
    shutil.copy(copy / "images" / "disc_0.png", copy / "images" / "disc_5.png")

    message = refused(
        medseg,
        copy,
        "data.split={name: stated, train: [disc_0, disc_1], validation: [disc_2], test: [disc_5]}",
    )

    assert "disc_5 (test) is the same image as disc_0 (train): the files are equal" in message


def test_a_label_of_a_test_case_that_the_card_does_not_name_is_found_before_training(copy, medseg):
    from PIL import Image as Picture

    mask = np.array(Picture.open(copy / "labels" / "disc_5.png"))
    mask[:3, :3] = 77
    Picture.fromarray(mask).save(copy / "labels" / "disc_5.png")

    message = refused(
        medseg,
        copy,
        "data.split={name: stated, train: [disc_0-1], validation: [disc_2], test: [disc_5]}",
    )

    assert "disc_5: the labels hold values that the card does not name: 77 (9 voxels)" in message


def test_millimetres_without_a_pixel_size_are_refused_before_training(copy, medseg):
    card = (copy / "discs.yaml").read_text()
    (copy / "discs.yaml").write_text(card.replace("pixel_size: [0.5 um, 0.5 um]\n", ""))

    message = refused(medseg, copy)

    assert "1 um cannot be expressed in px" in message


def test_a_network_that_cannot_be_built_is_refused_with_the_job(copy, medseg):
    assert "job.yaml: " in refused(medseg, copy, "network.channels=[]")


def test_a_gpu_that_is_not_there_is_not_looked_for_in_vain(copy, medseg, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    assert "--device gpu: PyTorch finds no GPU here" in refused(medseg, copy, "--device", "gpu")


@pytest.mark.slow
def test_volumes_are_trained_on_their_spacing_and_judged_on_their_own_grid(balls):
    from medseg.images import read_labels

    records = read_table(balls.folder / "evaluation" / "records.parquet")
    (predicted,) = (balls.folder / "predictions").iterdir()
    drawn = read_labels(balls.root / "labels" / predicted.name)

    assert {r.spacing for r in records} == {(2.0, 1.0, 1.0)}
    assert all(r.value > 0.5 for r in records if r.metric == "dice")
    assert read_labels(predicted).grid.matches(drawn.grid)


@pytest.mark.slow
def test_with_a_budget_of_time_training_ends_in_time(copy, medseg):
    ran = medseg(
        "train", copy / "job.yaml", "--runs", copy / "runs", "--time-budget", "5s", "--register",
        "", "--tracking-uri", f"sqlite:///{copy / 'mlflow.db'}", "--device", "cpu", "--json",
    )  # fmt: skip

    assert ran.code == 0, ran.errors
    assert ran.json["registered"] is None
    model = json.loads((Path(ran.json["folder"]) / "model" / "model.json").read_text())
    assert 3 < model["provenance"]["fit"]["seconds"] < 8


def test_a_job_begins_with_another_models_weights_and_says_what_it_took(discs, tmp_path, medseg):
    settings = ["train.epochs=1", "train.iterations_per_epoch=2", "network.preset=small"]
    settings += ["loss={name: dice_ce, class_weights: median_frequency}", "train.repeat={disc: 2}"]
    settings += ["predict.scales=[0.75, 1]", "metrics=[dice]"]
    ran = medseg(
        *("train", discs.job, *settings, "--runs", tmp_path, "--start-from", discs.folder),
        *("--tracking-uri", discs.store, "--register", "", "--json"),
    )
    assert ran.code == 0, ran.errors
    said = " ".join(ran.errors.split())
    assert "took over" in said
    assert "class weights by median frequency: background" in said
    model = json.loads((Path(ran.json["folder"]) / "model" / "model.json").read_text())
    assert model["network_settings"]["channels"] == [4, 8], "what a job sets goes before its preset"
    assert model["scales"] == [0.75, 1]
    assert len(model["provenance"]["start_from"]) == 64


def test_a_crf_is_chosen_on_validation_and_the_choice_is_kept(discs, tmp_path, medseg):
    ran = medseg(
        *("train", discs.job, "train.epochs=1", "predict.crf=choose", "metrics=[dice]"),
        *("--runs", tmp_path, "--tracking-uri", discs.store, "--register", "", "--json"),
    )

    assert ran.code == 0, ran.errors
    folder = Path(ran.json["folder"])
    model = json.loads((folder / "model" / "model.json").read_text())
    choice = model["provenance"]["crf"]
    helped = choice["dice_with"] > choice["dice_without"]
    assert model["crf"] == choice["crf"]
    assert (model["crf"] is not None) == helped
    assert ("CRF chosen" if helped else "no CRF: mean Dice") in ran.errors
    sent = {json.loads(line)["key"] for line in (folder / "metrics.jsonl").open()}
    assert {"validation/crf/dice_with", "validation/crf/dice_without"} <= sent


def test_an_unknown_hard_structure_is_refused_with_the_nearest(discs, tmp_path, medseg):
    ran = medseg(
        *("train", discs.job, "train.repeat={disk: 2}", "--runs", tmp_path),
        *("--tracking-uri", discs.store, "--register", ""),
    )
    assert ran.code == 1
    assert 'did you mean "disc"' in ran.errors


def test_cases_that_do_not_fit_into_the_cache_are_read_from_disk_and_leave_nothing(
    discs, tmp_path, medseg
):
    ran = medseg(
        *("train", discs.job, "metrics=[dice]", "--cache", 0, "--runs", tmp_path),
        *("--tracking-uri", discs.store, "--register", "", "--json"),
    )

    assert ran.code == 0, ran.errors
    said = " ".join(ran.errors.split())
    assert "0.0 GB of prepared cases in memory, 0.0 GB read from" in said
    assert "the network waited for patches" in said
    folder = Path(ran.json["folder"])
    assert not (folder / "prepared").exists()
    fits = [
        json.loads((place / "model" / "model.json").read_text())["provenance"]["fit"]
        for place in (folder, discs.folder)
    ]
    assert fits[0]["best_dice"] == pytest.approx(fits[1]["best_dice"], abs=1e-3)
