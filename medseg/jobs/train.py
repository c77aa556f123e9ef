"""Train a network: from a job to a judged, registered model."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from medseg import __version__
from medseg.config import Card, TrainJob, array_order, cases_of, read_job, to_yaml
from medseg.data import Split
from medseg.errors import MedsegError
from medseg.inference import Model
from medseg.jobs.evaluate import Evaluated, evaluate_files
from medseg.jobs.parts import (
    metric_requests,
    model_spec,
    preparation_of,
    sagittal_axis_of,
    split_of,
)
from medseg.jobs.predict import predict_cases

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
    device: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    workers: int = 0,
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
        device: Where to train.
        precision: Number format.
        workers: Loader processes.
        tracking_uri: The MLflow store.
        experiment: Its experiment; the data set's name if None.
        register_as: Name of the registered model; the data set's name if None, none if empty.
        console: Where progress is shown.

    Raises:
        MedsegError: The job, the card or a file is wrong, or the run has ended already.
    """
    from medseg.tracking import TrackedRun, environment, git_state

    job, card, card_file = read_job(job_file, settings)
    split = split_of(job, card, cases_of(card, card_file, data_root), job_file)
    identity = hashlib.sha256((job.hash + split.hash).encode()).hexdigest()
    folder = runs / f"{job_file.stem}-{identity[:8]}"
    if (folder / RESULT).exists():
        raise MedsegError(
            f"{folder}: this job has run on this split already; its report is "
            f"{folder / 'evaluation' / 'report.html'}\n"
            f"  change the job or its seed, or give --runs another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{card.name}: {len(split.train)} cases to train, {len(split.validation)} to validate, "
        f"{len(split.test)} to test; run folder {folder}"
    )
    files = _digests(split, console)
    provenance = {
        "job_hash": job.hash,
        "split_hash": split.hash,
        "data_sha256": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        "medseg": __version__,
    }
    run = TrackedRun.start(
        folder,
        experiment=experiment or card.name,
        name=folder.name,
        tracking_uri=tracking_uri,
        resume=(folder / "tracking.json").exists(),
        tags={**provenance, "network": job.network.name},
    )
    with run:
        run.tags({"git": git_state(Path(__file__).parent)})
        run.params({**job.model_dump(mode="json"), "time_budget_s": time_budget})
        run.params({"environment": environment()})
        papers = {
            "job.yaml": to_yaml(job),
            "card.yaml": to_yaml(card),
            "split.json": json.dumps(split.names, indent=2),
            "data_sha256.json": json.dumps(files, indent=2),
        }
        for name, text in papers.items():
            run.text(text, name)
        if not (folder / "model").is_dir():
            model = _fit(
                job,
                card,
                split,
                folder,
                provenance,
                run=run,
                time_budget=time_budget,
                device=device,
                precision=precision,
                workers=workers,
                console=console,
            )
            _save(model, papers, folder)
        model = Model.load(folder / "model")
        evaluated = _evaluate(job, card, split, model, run, console)
        registered = _register(
            run, model, evaluated, card.name if register_as is None else register_as, tracking_uri
        )
    result = Trained(folder, run.run_id, run.look(), registered, evaluated)
    (folder / RESULT).write_text(json.dumps(result.as_json, indent=2) + "\n")
    return result


def _fit(
    job: TrainJob,
    card: Card,
    split: Split,
    folder: Path,
    provenance: Mapping[str, Any],
    *,
    run: "TrackedRun",
    time_budget: float | None,
    device: Any,
    precision: Any,
    workers: int,
    console: Console,
) -> Model:
    """Return the model with the weights that validated best."""
    import pytorch_lightning as pl

    from medseg.data.module import DataModule, prepare_case
    from medseg.losses import LOSSES, DeepSupervision
    from medseg.training import SegmentationModule, fit
    from medseg.transforms import AUGMENTATIONS, PatchSampler, find_sided_pairs

    labels, reading = card.label_map(), card.reading()
    preparation = preparation_of(job, card, split.train, reading, labels)
    prepared = {
        part: [
            prepare_case(case, reading, labels, preparation)
            for case in track(cases, f"preparing {part}", console=console, transient=True)
        ]
        for part, cases in (("train", split.train), ("validation", split.validation))
    }
    settings = job.train
    pl.seed_everything(settings.seed, verbose=False)
    patch = array_order(job.data.patch_voxels)
    spec = model_spec(job, card, preparation, dict(provenance))
    data = DataModule(
        prepared["train"],
        prepared["validation"],
        sampler=PatchSampler(patch, foreground=settings.foreground),
        augmentation=AUGMENTATIONS.build(
            job.augmentation.name,
            card.spatial_dims,
            patch,
            sagittal_axis_of(card),
            find_sided_pairs(labels.names),
            **job.augmentation.settings,
        ),
        batch=settings.batch,
        iterations_per_epoch=settings.iterations_per_epoch,
        seed=settings.seed,
        workers=workers,
    )
    network = spec.build_network()
    module = SegmentationModule(
        network,
        DeepSupervision(LOSSES.build(job.loss.name, **job.loss.settings)),
        structures=labels.structures,
        window_voxels=spec.window_voxels,
        optimiser=settings.optimiser,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
    )
    fitted = fit(
        module,
        data,
        folder=folder / "checkpoints",
        epochs=settings.epochs,
        iterations_per_epoch=settings.iterations_per_epoch,
        validate_every=settings.validate_every,
        warmup=settings.warmup_iterations,
        time_budget=time_budget,
        patience=settings.patience,
        ema=settings.ema,
        gradient_clip=settings.gradient_clip,
        device=device,
        precision=precision,
        send=lambda step, values: run.metrics(values, step),
    )
    run.metrics({f"fit/{key}": float(v) for key, v in asdict(fitted).items()}, fitted.steps)
    console.print(
        f"trained {fitted.steps} steps in {timedelta(seconds=round(fitted.seconds))}; best "
        f"validation Dice {fitted.best_dice:.4f}"
    )
    spec = replace(spec, provenance={**provenance, "fit": asdict(fitted)})
    return Model(spec, network)


def _save(model: Model, papers: Mapping[str, str], folder: Path) -> None:
    """Write the model folder whole or not at all."""
    fresh = folder / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    model.save(fresh)
    for name, text in papers.items():
        (fresh / name).write_text(text, encoding="utf-8")
    fresh.rename(folder / "model")


def _evaluate(
    job: TrainJob, card: Card, split: Split, model: Model, run: "TrackedRun", console: Console
) -> Evaluated:
    """Judge the model on the test cases; on the validation cases, and say so, if there are none."""
    part, cases = ("test", split.test) if split.test else ("validation", split.validation)
    output = run.folder / "evaluation"
    reading = card.reading()
    predicted = predict_cases(model, cases, reading, run.folder / "predictions", console=console)
    facts = {
        "data set": card.name,
        "judged on": f"{len(cases)} {part} cases"
        + ("" if split.test else ": they chose the checkpoint, so the scores flatter the model"),
        "trained on": f"{len(split.train)} cases",
        "network": job.network.name,
        "job": job.hash[:12],
        "split": split.hash[:12],
    }
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in run.history.points:
        if point.value is not None and point.key.startswith(("train/loss", "validation/")):
            curves.setdefault(point.name or point.key, []).append((point.step, point.value))
    evaluated = evaluate_files(
        cases,
        predicted.written,
        card,
        metric_requests(job.metrics),
        output,
        title=f"{card.name}: {job.network.name}",
        facts=facts,
        curves=curves,
        console=console,
    )
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


def _digests(split: Split, console: Console) -> dict[str, str]:
    """Return the SHA-256 of each file that the split uses."""
    cases = (*split.train, *split.validation, *split.test)
    files = [file for case in cases for file in (*case.images, case.labels) if file is not None]
    digests = {}
    for path in track(files, "hashing files", console=console, transient=True):
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.read_bytes())
        digests["/".join(path.parts[-2:])] = digest.hexdigest()
    return digests
