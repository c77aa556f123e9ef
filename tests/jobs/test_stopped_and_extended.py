"""A run that is stopped, goes on, and is made longer, by the command."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_studies import make_discs, runs_of

from medseg.signals import AGAIN


@pytest.fixture
def run(discs, tmp_path):
    """A finished run in a folder and a store of its own."""
    shutil.copytree(discs.folder, tmp_path / "runs" / discs.folder.name)
    shutil.copy(discs.store.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    return tmp_path / "runs" / discs.folder.name


@pytest.fixture
def extend(discs, medseg, run, tmp_path):
    def command(*words):
        where = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--device", "cpu")
        return medseg("train", discs.job, *words, "--extend", run, *where, "--json")

    return command


def test_a_finished_run_is_extended_in_the_same_mlflow_run(discs, run, extend, tmp_path):
    ran = extend("train.epochs=5")

    assert ran.code == 0, ran.errors
    assert ran.json["folder"] == str(run)
    assert ran.json["mlflow_run"] == discs.trained["mlflow_run"]
    assert ran.json["registered"] == "models:/discs/2"
    (tracked,) = runs_of(f"sqlite:///{tmp_path}/mlflow.db")
    assert tracked.data.metrics["fit/steps"] == 60
    assert tracked.data.params["train.epochs"] == "3"
    assert tracked.data.tags["resume.1.train.epochs"] == "5"
    fitted = json.loads((run / "model/model.json").read_text())["provenance"]["fit"]
    assert fitted["resumed"]
    assert fitted["steps"] == 60


def test_what_an_extension_may_not_change_is_listed(extend, run):
    ran = extend("train.epochs=5", "train.learning_rate=0.5")

    assert ran.code == 1
    assert "job.train.learning_rate: 0.5, was 0.01" in ran.errors
    assert (run / "result.json").exists()


@pytest.mark.parametrize("epochs", [2, 3])
def test_an_extension_that_is_none_is_refused(extend, epochs):
    ran = extend(f"train.epochs={epochs}")

    assert ran.code == 1
    assert f"it has 3 epochs, and was to have {epochs}; name more" in ran.errors


def test_an_extension_of_no_run_is_refused(discs, medseg, tmp_path):
    ran = medseg("train", discs.job, "--extend", tmp_path / "nowhere")

    assert ran.code == 1
    assert "no run of medseg train" in ran.errors


@pytest.mark.slow
def test_a_run_that_slurm_ends_is_saved_marked_and_goes_on_by_the_same_command(tmp_path):
    job, store = make_discs(tmp_path), f"sqlite:///{tmp_path}/mlflow.db"
    words = ["train", job, "train.epochs=12", "--device", "cpu", "--runs", tmp_path / "runs"]
    words += ["--tracking-uri", store, "--json"]
    command = [sys.executable, "-c", "from medseg.cli import main; main()", *map(str, words)]

    def metrics() -> bool:
        return any(Path(tmp_path).glob("runs/*/metrics.jsonl"))

    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not metrics() and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGUSR1)
    _, said = first.communicate()
    (stopped,) = runs_of(store)
    second = subprocess.run(command, capture_output=True, text=True)

    assert first.returncode == AGAIN, said
    assert "SIGUSR1: saved at step" in said
    assert stopped.info.status == "KILLED"
    assert second.returncode == 0, second.stderr
    (ended,) = runs_of(store)
    assert ended.info.run_id == stopped.info.run_id
    assert ended.info.status == "FINISHED"
