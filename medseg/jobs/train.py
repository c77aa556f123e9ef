"""Train a network: from a job to a judged, registered model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.config import to_yaml
from medseg.data import Case, Split
from medseg.errors import MedsegError
from medseg.evaluation import write_json
from medseg.files import held_alone
from medseg.geometry import Unit
from medseg.inference import Model
from medseg.jobs.crf import check_crf, with_chosen_crf
from medseg.jobs.evaluate import Evaluated, check_references, evaluate_files
from medseg.jobs.extend import RESULT, RUN, note_run, prepare_extension
from medseg.jobs.fitting import Work, fit_model, save_model
from medseg.jobs.objects import with_tuned_thresholds
from medseg.jobs.parts import finder_of, metric_requests
from medseg.jobs.predict import predict_cases
from medseg.jobs.setup import Setup

if TYPE_CHECKING:
    from medseg.tracking import TrackedRun


@dataclass(frozen=True)
class Trained:
    """What came out of a training run.

    Args:
        folder: The run's folder: model, metrics, evaluation.
        run_id: Of the MLflow run; None where tracking never answered.
        look: Where a person finds the run.
        registered: The model's version, ``models:/NAME/3``; None if it was not registered.
        evaluated: The evaluation on the test cases.
    """

    folder: Path
    run_id: str | None
    look: str
    registered: str | None
    evaluated: Evaluated

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "folder": str(self.folder),
            "mlflow_run": self.run_id,
            "mlflow_look": self.look,
            "registered": self.registered,
            "test": self.evaluated.as_json,
        }


def train(setup: Setup, *, extend: Path | None = None) -> Trained:
    """Train a job, evaluate the model on the test cases, and register it.

    The same command goes on where a stopped run was.

    Args:
        setup: The job and how to run it.
        extend: Folder of a run of the same job that is to be longer; None for a run of its own.

    Raises:
        MedsegError: A reference or the CRF cannot be used, the run has ended already, or is not one
            that can be extended.
    """
    folder = extend or setup.folder([setup.split])
    if extend is None:
        refuse_finished(folder)
    check_before(setup, [setup.split])
    if extend is not None:
        prepare_extension(setup, folder)
    return train_split(setup, setup.split, folder, register_as=setup.register_as)


def refuse_finished(folder: Path, report: str = "evaluation/report.html") -> None:
    """Refuse to do again what has ended, and name its report.

    Raises:
        MedsegError: It has.
    """
    if (folder / RESULT).exists():
        raise MedsegError(
            f"{folder}: this job has run on these images already; its report is "
            f"{folder / report}\n"
            f"  change the job or its seed, give --runs another folder, or let it go on with more "
            f"epochs or time: --extend {folder}"
        )


def check_before(setup: Setup, splits: Sequence[Split]) -> None:
    """Find out, before a night of work and not after it, what would fail at its end.

    Raises:
        MedsegError: A case cannot be judged, or the CRF cannot measure an image.
    """
    for split in splits:
        cases = judged_of(split)[1]
        check_references(cases, setup.card, metric_requests(setup.job.metrics))
        finder_of(setup.job, setup.card)
        check_crf(setup.job, setup.job_file, setup.card, split)


def train_split(
    setup: Setup, split: Split, folder: Path, *, register_as: str, parent: str | None = None
) -> Trained:
    """Train on a split, evaluate the model on its test cases, and register it.

    Args:
        setup: The job and how to run it.
        split: Which cases train, choose the checkpoint and are judged.
        folder: Of the run; one that was stopped goes on.
        register_as: Name of the registered model; empty for none.
        parent: The MLflow run of which this is a part.
    """
    job, card, console = setup.job, setup.card, setup.console
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{card.name}: {len(split.train)} cases to train, {len(split.validation)} to validate, "
        f"{len(split.test)} to test; run folder {folder}",
        markup=False,
    )
    provenance = setup.provenance(split)
    with held_alone(folder), tracked(setup, folder, tags=provenance, parent=parent) as run:
        if not (folder / RUN).exists():
            note_run(setup, folder)
        work = Work(
            job,
            setup.job_file,
            card,
            split,
            provenance,
            setup.how,
            run,
            console,
            setup.start,
            setup.stop,
        )
        papers = {
            "job.yaml": to_yaml(job),
            "card.yaml": to_yaml(card),
            "split.json": json.dumps(split.names, indent=2),
            "data_sha256.json": json.dumps(setup.files_of(split), indent=2),
        }
        for name, text in papers.items():
            run.text(text, name)
        if not (folder / "model").is_dir():
            model = _with_usual_grid(work, fit_model(work))
            if job.predict.crf == "choose":
                model = with_chosen_crf(work, model)
            if model.finder is not None:
                model = with_tuned_thresholds(work, model)
            save_model(model, papers, folder)
        model = Model.load(folder / "model", setup.how.device)
        evaluated = _evaluate(work, model)
        registered = register_model(run, model, evaluated, register_as, setup.tracking_uri)
    result = Trained(folder, run.run_id, run.look(), registered, evaluated)
    write_json(result.as_json, folder / RESULT)
    return result


@contextmanager
def tracked(
    setup: Setup, folder: Path, *, tags: Mapping[str, str], parent: str | None = None
) -> "Iterator[TrackedRun]":
    """Give the MLflow run of a folder, begun or gone on with, and end it."""
    from medseg.tracking import TrackedRun, environment, git_state

    nested = {} if parent is None else {"mlflow.parentRunId": parent}
    run = TrackedRun.start(
        folder,
        experiment=setup.experiment,
        name=folder.name,
        tracking_uri=setup.tracking_uri,
        resume=(folder / "tracking.json").exists(),
        tags={**tags, **nested, "network": setup.job.network.name},
    )
    with run:
        run.params({**setup.job.model_dump(mode="json"), "time_budget_s": setup.how.time_budget})
        run.params({"environment": environment()})
        run.tags({"git": git_state(Path(__file__).parent), "how": asdict(setup.how)})
        yield run


def judged_of(split: Split) -> tuple[str, Sequence[Case]]:
    """Return the cases on which a model is judged, and which part of the split they are."""
    return ("test", split.test) if split.test else ("validation", split.validation)


def _with_usual_grid(work: Work, model: Model) -> Model:
    """Return the model with the grid of the first training image, where its own says none.

    An array that comes to the registered model without a pixel size is taken to have that one.
    """
    preparation = model.preparation
    if None not in (preparation.spacing or (None,)) and preparation.unit is not Unit.PX:
        return model
    image = work.card.reading().image(work.split.train[0])
    grid = replace(preparation, spacing=None).prepared_grid(image.grid)
    usual = {"spacing": list(grid.spacing), "unit": str(grid.unit)}
    return Model(replace(model.spec, usual_grid=usual), model.network)


def _evaluate(work: Work, model: Model) -> Evaluated:
    """Judge the model on the test cases; on the validation cases, and say so, if there are none."""
    run, (part, cases) = work.run, judged_of(work.split)
    output = run.folder / "evaluation"
    predicted = predict_cases(
        model, cases, work.card.reading(), run.folder / "predictions", console=work.console
    )
    facts = {
        "data set": work.card.name,
        "judged on": f"{len(cases)} {part} cases"
        + (
            "" if part == "test" else ": they chose the checkpoint, so the scores flatter the model"
        ),
        "trained on": f"{len(work.split.train)} cases",
        "network": work.job.network.name,
        "job": work.job.hash[:12],
        "split": work.split.hash[:12],
    }
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in run.history.points:
        if point.value is not None and point.key.startswith(("train/loss", "validation/")):
            curves.setdefault(point.name or point.key, []).append((point.step, point.value))
    evaluated = evaluate_files(
        cases,
        predicted.written,
        work.card,
        metric_requests(work.job.metrics),
        output,
        title=f"{work.card.name}: {work.job.network.name}",
        facts=facts,
        curves=curves,
        console=work.console,
    )
    if part == "test":
        step = model.spec.provenance["fit"]["steps"]
        run.metrics({f"test/{k}": v for k, v in evaluated.headline.items()}, step)
    run.file(output, "evaluation")
    return evaluated


def register_model(
    run: "TrackedRun",
    model: Model,
    evaluated: Evaluated,
    name: str,
    tracking_uri: str | None,
    *,
    judged: str = "test",
) -> str | None:
    """Log the model with its run and make it the next version of a name, if it has one.

    The version's tags have its scores, below what was ``judged``.
    """
    from medseg.tracking import log_model, register, slug

    if not run.connected:
        return None
    spec = model.spec
    side = [min(64, size) for size in spec.window_voxels]
    depth = [] if spec.neighbours is None else [2 * spec.neighbours + 2]
    example = np.random.default_rng(0).normal(size=(2, len(spec.channels), *depth, *side))
    uri = log_model(run, run.folder / "model", input_example=example.astype(np.float32))
    if not name:
        return None
    scores = {slug(key): value for key, value in evaluated.headline.items()}
    tags = {**model.spec.provenance, judged: scores}
    return register(uri, name, tags=tags, tracking_uri=tracking_uri).uri
