"""Train a network: from a job to a judged, registered model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from medseg import __version__
from medseg.config import cases_of, read_job, to_yaml
from medseg.data import Case, Split, file_digests
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.inference import Model
from medseg.jobs.crf import check_crf, with_chosen_crf
from medseg.jobs.evaluate import Evaluated, check_references, evaluate_files
from medseg.jobs.fitting import How, Work, fit_model, save_model
from medseg.jobs.parts import metric_requests, split_of
from medseg.jobs.predict import load_model, predict_cases, torch_device

if TYPE_CHECKING:
    from medseg.tracking import TrackedRun

RESULT = "result.json"


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


def train(
    job_file: Path,
    *,
    settings: Sequence[str] = (),
    data_root: Path | None = None,
    runs: Path = Path("runs"),
    time_budget: float | None = None,
    clock: Literal["wall", "cpu"] = "wall",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    workers: int = 0,
    start_from: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    register_as: str | None = None,
    console: Console,
) -> Trained:
    """Train a job, evaluate the model on the test cases, and register it.

    The same command goes on where a stopped run was.

    Args:
        job_file: The job.
        settings: ``key=value`` overrides.
        data_root: Folder below which the card's root lies.
        runs: Folder of the runs' folders.
        time_budget: Seconds for training and validation; the job's epochs are ignored then.
        clock: Whether these are wall time or processor time.
        device: Where to train.
        precision: Number format.
        workers: Loader processes.
        start_from: A model folder, run or ``models:/NAME/3`` whose weights are taken over first.
        tracking_uri: The MLflow store.
        experiment: Its experiment; the data set's name if None.
        register_as: Name of the registered model; the data set's name if None, none if empty.
        console: Where progress is shown.

    Raises:
        MedsegError: The job, the card or a file is wrong, or the run has ended already.
    """
    from medseg.tracking import TrackedRun, environment, git_state

    job, card, card_file = read_job(job_file, settings)
    how = How(time_budget, clock, torch_device(device), precision, workers)
    split = split_of(job, card, cases_of(card, card_file, data_root), job_file)
    files = file_digests(
        track(split.cases, "hashing files", console=console, disable=not console.is_terminal)
    )
    split.refuse_copies(files)
    start = None
    if start_from is not None:
        start = load_model(start_from, tracking_uri=tracking_uri, device="cpu")
    provenance = {
        "job_hash": job.hash,
        "split_hash": split.hash,
        "data_sha256": _sha256(files),
        "medseg": __version__,
    } | ({} if start is None else {"start_from": start.weights_sha256})
    budget = time_budget if clock == "wall" else [time_budget, clock]
    identity = _sha256([provenance, to_yaml(card), budget])
    folder = runs / f"{job_file.stem}-{identity[:8]}"
    if (folder / RESULT).exists():
        raise MedsegError(
            f"{folder}: this job has run on these images already; its report is "
            f"{folder / 'evaluation' / 'report.html'}\n"
            f"  change the job or its seed, or give --runs another folder"
        )
    check_references(judged_of(split)[1], card, metric_requests(job.metrics))
    check_crf(job, job_file, card, split)
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{card.name}: {len(split.train)} cases to train, {len(split.validation)} to validate, "
        f"{len(split.test)} to test; run folder {folder}",
        markup=False,
    )
    run = TrackedRun.start(
        folder,
        experiment=experiment or card.name,
        name=folder.name,
        tracking_uri=tracking_uri,
        resume=(folder / "tracking.json").exists(),
        tags={**provenance, "network": job.network.name},
    )
    papers = {
        "job.yaml": to_yaml(job),
        "card.yaml": to_yaml(card),
        "split.json": json.dumps(split.names, indent=2),
        "data_sha256.json": json.dumps(files, indent=2),
    }
    work = Work(job, job_file, card, split, provenance, how, run, console, start)
    with run:
        run.params({**job.model_dump(mode="json"), "time_budget_s": time_budget})
        run.params({"environment": environment()})
        run.tags({"git": git_state(Path(__file__).parent), "how": asdict(how)})
        for name, text in papers.items():
            run.text(text, name)
        if not (folder / "model").is_dir():
            model = _with_usual_grid(work, fit_model(work))
            if job.predict.crf == "choose":
                model = with_chosen_crf(work, model)
            save_model(model, papers, folder)
        model = Model.load(folder / "model", how.device)
        evaluated = _evaluate(work, model)
        name = card.name if register_as is None else register_as
        registered = _register(run, model, evaluated, name, tracking_uri)
    result = Trained(folder, run.run_id, run.look(), registered, evaluated)
    (folder / RESULT).write_text(json.dumps(result.as_json, indent=2) + "\n", encoding="utf-8")
    return result


def judged_of(split: Split) -> tuple[str, Sequence[Case]]:
    """Return the cases on which a model is judged, and which part of the split they are."""
    return ("test", split.test) if split.test else ("validation", split.validation)


def _with_usual_grid(work: Work, model: Model) -> Model:
    """Return the model with the grid of the first training image, where its own says none.

    An array that comes to the registered model without a pixel size is taken to have that one.
    """
    preparation = model.preparation
    if preparation.spacing is not None and preparation.unit is not Unit.PX:
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
        run.metrics({f"test/{k}": v for k, v in evaluated.headline.items()}, 0)
    run.file(output, "evaluation")
    return evaluated


def _register(
    run: "TrackedRun", model: Model, evaluated: Evaluated, name: str, tracking_uri: str | None
) -> str | None:
    """Log the model with its run and make it the next version of a name, if it has one."""
    from medseg.tracking import log_model, register, slug

    if not run.connected:
        return None
    side = [min(64, size) for size in model.spec.window_voxels]
    example = np.random.default_rng(0).normal(size=(2, len(model.spec.channels), *side))
    uri = log_model(run, run.folder / "model", input_example=example.astype(np.float32))
    if not name:
        return None
    scores = {slug(key): value for key, value in evaluated.headline.items()}
    tags = {**model.spec.provenance, "test": scores}
    return register(uri, name, tags=tags, tracking_uri=tracking_uri).uri


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
