"""Cross-validation by the command: folds one by one, then together."""

import json
import shutil
from collections import Counter
from pathlib import Path

import mlflow
import numpy as np
import pytest
from small_studies import Study, make_discs, runs_of

from medseg.evaluation import read_table, summarise
from medseg.images import read_image

QUICK = ["train.epochs=1", "train.iterations_per_epoch=2", "train.validate_every=1"]


def crossval(medseg, root: Path, *words: object):
    return medseg(
        *("crossval", root / "job.yaml", *QUICK, "metrics=[dice]", *words),
        *("--runs", root / "runs", "--tracking-uri", f"sqlite:///{root / 'mlflow.db'}"),
        *("--device", "cpu", "--json"),
    )


@pytest.fixture(scope="module")
def second(tmp_path_factory, medseg):
    """Six discs of which one is for the test, and the second of three folds trained."""
    root = tmp_path_factory.mktemp("crossval")
    make_discs(root)
    ran = crossval(medseg, root, "--folds", 3, "data.split={name: group, test: 0.17}", "--only", 2)
    assert ran.code == 0, ran.errors
    return root, ran


@pytest.fixture(scope="module")
def study(second, medseg) -> Study:
    """The same with all folds."""
    root, _ = second
    began = (root / "runs").stat().st_mtime
    ran = crossval(medseg, root, "--folds", 3, "data.split={name: group, test: 0.17}")
    assert ran.code == 0, ran.errors
    assert "fold 1 of 3" in ran.errors
    assert "fold 2 of 3" not in ran.errors, "what has been trained is not trained again"
    assert (root / "runs").stat().st_mtime == began, "it is the same study"
    return Study(root, root / "job.yaml", f"sqlite:///{root / 'mlflow.db'}", ran.json)


def split_of(fold: Path) -> dict[str, list[str]]:
    return json.loads((fold / "model" / "split.json").read_text())


def test_one_fold_can_be_trained_alone_and_says_what_is_missing(second):
    _, ran = second

    assert [fold["fold"] for fold in ran.json["folds"]] == [2]
    assert ran.json["missing"] == [1, 3]
    assert ran.json["held_out"] is None


def test_every_case_but_the_test_ones_is_judged_once_by_a_model_that_never_saw_it(study):
    records = read_table(study.folder / "evaluation" / "records.parquet")
    judged = Counter(record.case for record in records)
    splits = [split_of(study.folder / f"fold_{n}") for n in (1, 2, 3)]

    assert set(judged.values()) == {1}
    assert len(judged) == 5, "the sixth is for the end"
    assert [sorted(split["test"]) for split in splits] == [
        sorted(r.case for r in read_table(study.folder / f"fold_{n}/evaluation/records.parquet"))
        for n in (1, 2, 3)
    ]
    assert sorted(judged) == sorted(case for split in splits for case in split["test"])
    assert not any(set(s["test"]) & {*s["train"], *s["validation"]} for s in splits)


def test_the_table_over_all_cases_is_that_of_the_folds_with_intervals_by_group(study):
    of_folds = [
        record
        for n in (1, 2, 3)
        for record in read_table(study.folder / f"fold_{n}" / "evaluation" / "records.parquet")
    ]
    (row,) = study.trained["held_out"]["summary"]

    assert row["n"] == row["n_groups"] == 5
    assert row["mean"] == pytest.approx(sum(r.value for r in of_folds) / 5)
    (expected,) = summarise(of_folds)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_the_folds_are_children_of_one_run(study):
    runs = {run.info.run_id: run for run in runs_of(study.store)}
    parent = runs.pop(study.trained["mlflow_run"])

    assert len(runs) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert set(runs) == {fold["mlflow_run"] for fold in study.trained["folds"]}
    assert "held_out/dice/disc" in parent.data.metrics
    assert parent.data.params["folds"] == "3"
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}


def test_the_study_predicts_as_the_mean_of_its_folds_by_whatever_name(
    study, medseg, tmp_path, monkeypatch
):
    images = study.root / "images"

    def predicted(model, *words) -> dict[str, np.ndarray]:
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)
        ran = medseg("predict", model, images, "-o", output, "--tracking-uri", study.store, *words)
        assert ran.code == 0, ran.errors
        return {
            str(file.relative_to(output)): read_image(file).array
            for file in sorted(output.rglob("*.*"))
        }

    single = [predicted(study.folder / f"fold_{n}", "--probabilities") for n in (1, 2, 3)]
    together = predicted(study.folder, "--probabilities")

    shares = [name for name in together if name.startswith("probabilities/")]
    assert len(shares) == 12, "background and disc of six images"
    for name in shares:
        expected = np.mean([one[name] for one in single], axis=0)
        np.testing.assert_allclose(together[name], expected, atol=1e-5)
    assert study.trained["registered"] == "models:/discs/1"
    registered = predicted("models:/discs/1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study.store)
    loaded = mlflow.pyfunc.load_model("models:/discs/1")
    for name, labels in registered.items():
        np.testing.assert_array_equal(labels, together[name])
        image = read_image(images / name).channels_first[None].astype(np.float32)
        np.testing.assert_array_equal(loaded.predict(image)[0], labels)


def test_the_version_says_how_the_folds_were_judged(study):
    version = mlflow.MlflowClient(study.store).get_model_version("discs", "1")

    assert "held_out.dice/disc" in version.tags
    assert version.tags["folds"] == "3"


def test_a_training_begins_with_one_model_and_not_with_several(study, medseg):
    ran = crossval(medseg, study.root, "--start-from", study.folder)

    assert ran.code == 1
    assert "is an ensemble of 3 models, and a training begins with one" in ran.errors


def test_a_finished_study_is_not_done_again(study, medseg):
    ran = crossval(medseg, study.root, "--folds", 3, "data.split={name: group, test: 0.17}")

    assert ran.code == 1
    assert "this job has run on these images already" in ran.errors


def test_a_fold_that_is_not_there_is_refused(study, medseg):
    ran = crossval(medseg, study.root, "--folds", 2, "--only", 3)

    assert ran.code == 1
    assert "--only 3: the folds are 1 to 2" in ran.errors
