"""A learning curve by the command: trainings on nested sets under one run, and advice."""

import json
from pathlib import Path

import pytest
from PIL import Image as Picture
from small_studies import Study, make_discs, runs_of

QUICK = ["train.epochs=1", "train.iterations_per_epoch=2", "train.validate_every=1"]


def curve(medseg, root: Path, *words: object):
    return medseg(
        *("learning-curve", root / "job.yaml", *QUICK, "metrics=[dice]", *words),
        *("--runs", root / "runs", "--tracking-uri", f"sqlite:///{root / 'mlflow.db'}"),
        *("--device", "cpu", "--json"),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory, medseg) -> Study:
    """Eight discs: five to train, one to validate, two to test."""
    root = tmp_path_factory.mktemp("curve")
    make_discs(root, count=8)
    ran = curve(medseg, root, "--fractions", "0.2,0.25,1")
    assert ran.code == 0, ran.errors
    return Study(root, root / "job.yaml", f"sqlite:///{root / 'mlflow.db'}", ran.json)


def test_training_sets_grow_and_all_else_stays(study):
    splits = [
        json.loads((study.folder / f"cases_{n}" / "model" / "split.json").read_text())
        for n in (1, 5)
    ]

    assert [step["cases"] for step in study.trained["steps"]] == [1, 5], "0.25 is 0.2 of five"
    assert set(splits[0]["train"]) < set(splits[1]["train"])
    for part in ("validation", "test"):
        assert splits[0][part] == splits[1][part]


def test_the_scores_are_those_of_the_trainings(study):
    for step in study.trained["steps"]:
        folder = study.folder / f"cases_{step['cases']}"
        (of_run,) = json.loads((folder / "evaluation" / "summary.json").read_text())
        assert step["score"] == of_run


def test_advice_and_picture_are_there_and_with_the_run(study):
    parent, *_ = [r for r in runs_of(study.store) if r.info.run_id == study.trained["mlflow_run"]]

    assert study.trained["judged"] == "2 test cases"
    assert "too few to tell whether more labels would help" in study.trained["advice"]
    assert parent.data.tags["advice"] == study.trained["advice"]
    assert "learning_curve/dice" in parent.data.metrics
    Picture.open(study.folder / "curve.png").verify()
    children = [r for r in runs_of(study.store) if r.info.run_id != parent.info.run_id]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    assert len(children) == 2


def test_trainings_that_have_ended_are_not_done_again(study, medseg):
    (study.folder / "result.json").unlink()
    before = (study.folder / "cases_5" / "result.json").stat().st_mtime

    ran = curve(medseg, study.root, "--fractions", "0.2,1")

    assert ran.code == 0, ran.errors
    assert ran.json["steps"] == study.trained["steps"]
    assert (study.folder / "cases_5" / "result.json").stat().st_mtime == before
    again = curve(medseg, study.root, "--fractions", "0.2,1")
    assert again.code == 1
    assert "has run on these images already; its report is" in again.errors


@pytest.mark.parametrize(
    ("fractions", "code", "said"),
    [
        ("0.1,0.15", 1, "of 5 training group(s) they are one and the same training set"),
        ("0.5,2", 1, "--fractions: shares of the training groups are above 0 to 1, got 2.0"),
        ("half", 2, "half: write 0.1,0.5,1"),
    ],
)
def test_fractions_that_make_no_curve_are_refused(study, medseg, fractions, code, said):
    ran = curve(medseg, study.root, "--fractions", fractions)

    assert ran.code == code
    assert said in " ".join(ran.errors.split())
