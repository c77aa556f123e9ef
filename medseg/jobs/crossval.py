"""Cross-validate a job: a training a fold, and one table of all cases, each judged unseen."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.data import Split
from medseg.errors import MedsegError
from medseg.evaluation import write_json
from medseg.files import folder_written_whole
from medseg.inference import Ensemble, save_ensemble
from medseg.jobs.compare import files_of
from medseg.jobs.evaluate import Evaluated, evaluate_files
from medseg.jobs.extend import RESULT
from medseg.jobs.parts import folds_of, metric_requests
from medseg.jobs.setup import Setup
from medseg.jobs.train import (
    check_before,
    refuse_finished,
    register_model,
    tracked,
    train_split,
)


@dataclass(frozen=True)
class Fold:
    """One fold that has been trained.

    Args:
        number: From 1 on.
        split: Its ``test`` part was held out.
        result: What ``medseg train --json`` would print of it.
    """

    number: int
    split: Split
    result: dict[str, Any]


@dataclass(frozen=True)
class CrossValidated:
    """What came out of a cross-validation, or of the folds of it that have run.

    Args:
        folder: The study's folder, with a run's folder a fold.
        run_id: Of the parent run in MLflow; None where tracking never answered.
        look: Where a person finds the runs.
        folds: Those that have been trained.
        missing: Numbers of those that have not.
        untouched: Names of the job's test cases, which are in no fold.
        evaluated: The evaluation of all held-out cases; None until no fold is missing.
        registered: The version of the folds' ensemble, ``models:/NAME/3``; None if there is none.
    """

    folder: Path
    run_id: str | None
    look: str
    folds: tuple[Fold, ...]
    missing: tuple[int, ...]
    untouched: tuple[str, ...]
    evaluated: Evaluated | None
    registered: str | None

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "folder": str(self.folder),
            "mlflow_run": self.run_id,
            "mlflow_look": self.look,
            "folds": [{"fold": one.number, **one.result} for one in self.folds],
            "missing": list(self.missing),
            "untouched": list(self.untouched),
            "registered": self.registered,
            "held_out": None if self.evaluated is None else self.evaluated.as_json,
        }


def crossval(setup: Setup, *, folds: int = 5, only: int | None = None) -> CrossValidated:
    """Train a job once for each fold, and judge every case by the model that never saw it.

    The job's test cases are in no fold. Folds that have been trained are not trained again. In the
    end the folds' models are saved and registered as one, their ensemble.

    Args:
        setup: The job and how to run it; a time budget is that of one fold.
        folds: How many; as many as groups if there are fewer.
        only: The number of the one fold to train now; all that are missing if None.

    Raises:
        MedsegError: There are too few groups, no such fold, a case cannot be judged, or the study
            has ended already.
    """
    splits = folds_of(setup.job, setup.card, setup.split, folds)
    if only is not None and not 1 <= only <= len(splits):
        raise MedsegError(f"--only {only}: the folds are 1 to {len(splits)}")
    folder = setup.folder(splits, "crossval")
    refuse_finished(folder)
    for split in splits:
        split.refuse_copies(setup.files)
    check_before(setup, splits)
    folder.mkdir(parents=True, exist_ok=True)
    tags = {**setup.provenance(setup.split), "study": "crossval"}
    with tracked(setup, folder, tags=tags) as run:
        run.params({"folds": len(splits)})
        for number, split in enumerate(splits, 1):
            of_fold = _folder(folder, number)
            if only not in (None, number) or (of_fold / RESULT).exists():
                continue
            setup.console.rule(f"fold {number} of {len(splits)}")
            train_split(setup, split, of_fold, register_as="", parent=run.run_id)
        done = {n: s for n, s in enumerate(splits, 1) if (_folder(folder, n) / RESULT).exists()}
        missing = tuple(n for n in range(1, len(splits) + 1) if n not in done)
        evaluated, registered = None, None
        if not missing:
            evaluated = _evaluate(setup, splits, folder)
            run.metrics({f"held_out/{key}": v for key, v in evaluated.headline.items()}, 0)
            run.file(evaluated.folder, "evaluation")
            model = _ensemble(setup, splits, folder)
            name, uri = setup.register_as, setup.tracking_uri
            registered = register_model(run, model, evaluated, name, uri, judged="held_out")
    result = CrossValidated(
        folder=folder,
        run_id=run.run_id,
        look=run.look(),
        folds=tuple(Fold(n, split, _result(folder, n)) for n, split in done.items()),
        missing=missing,
        untouched=tuple(setup.split.names["test"]),
        evaluated=evaluated,
        registered=registered,
    )
    if not missing:
        write_json(result.as_json, folder / RESULT)
    return result


def _evaluate(setup: Setup, splits: list[Split], folder: Path) -> Evaluated:
    """Judge all held-out cases together, by the label maps that the folds left."""
    files: dict[str, Path] = {}
    for number in range(1, len(splits) + 1):
        files |= files_of(_folder(folder, number) / "evaluation")
    cases = [case for split in splits for case in split.test]
    network = setup.job.network.name
    return evaluate_files(
        cases,
        files,
        setup.card,
        metric_requests(setup.job.metrics),
        folder / "evaluation",
        title=f"{setup.card.name}: {network}, {len(splits)} folds",
        facts={
            "data set": setup.card.name,
            "judged on": f"{len(cases)} cases of {len(splits)} folds, each by the model that was "
            f"trained without its group",
            "left for the end": f"{len(setup.split.test)} test cases",
            "network": network,
            "job": setup.job.hash[:12],
        },
        console=setup.console,
    )


def _ensemble(setup: Setup, splits: list[Split], folder: Path) -> Ensemble:
    """Return the ensemble of the folds' models, saved whole or not at all."""
    folds = [_folder(folder, n) for n in range(1, len(splits) + 1)]
    members = {fold.name: fold / "model" for fold in folds}
    provenance = {**setup.provenance(setup.split), "folds": len(splits)}
    with folder_written_whole(folder / "model") as fresh:
        return save_ensemble(members, fresh, provenance=provenance)


def _folder(folder: Path, number: int) -> Path:
    return folder / f"fold_{number}"


def _result(folder: Path, number: int) -> dict[str, Any]:
    text = (_folder(folder, number) / RESULT).read_text(encoding="utf-8")
    return dict(json.loads(text))
