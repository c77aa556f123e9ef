"""The part of a training that fits: from a job and its cases to the best weights."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import track

from medseg.config import Card, TrainJob, array_order
from medseg.data import Split
from medseg.errors import MedsegError
from medseg.inference import Model, ModelSpec
from medseg.jobs.parts import model_spec, preparation_of, sagittal_axis_of
from medseg.transforms import Preparation

if TYPE_CHECKING:
    from medseg.data.module import DataModule
    from medseg.tracking import TrackedRun
    from medseg.training import SegmentationModule


@dataclass(frozen=True)
class How:
    """What belongs to the command line: how long, and on which computer."""

    time_budget: float | None
    clock: Literal["wall", "cpu"]
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    workers: int


@dataclass(frozen=True)
class Work:
    """What the steps of one training share."""

    job: TrainJob
    job_file: Path
    card: Card
    split: Split
    provenance: Mapping[str, Any]
    how: How
    run: "TrackedRun"
    console: Console


def fit_model(work: Work) -> Model:
    """Return the model with the weights that validated best."""
    import pytorch_lightning as pl

    from medseg.training import fit

    job, settings = work.job, work.job.train
    preparation = preparation_of(
        job, work.card, work.split.train, work.card.reading(), work.card.label_map()
    )
    spec = model_spec(job, work.card, preparation, dict(work.provenance))
    pl.seed_everything(settings.seed, verbose=False)
    try:
        module = _module(work, spec)
        data = _data(work, preparation)
    except ValueError as error:
        raise MedsegError(f"{work.job_file}: {error}") from error
    fitted = fit(
        module,
        data,
        folder=work.run.folder / "checkpoints",
        epochs=settings.epochs,
        iterations_per_epoch=settings.iterations_per_epoch,
        validate_every=settings.validate_every,
        warmup=settings.warmup_iterations,
        time_budget=work.how.time_budget,
        clock=work.how.clock,
        patience=settings.patience,
        ema=settings.ema,
        gradient_clip=settings.gradient_clip,
        device="gpu" if work.how.device == "cuda" else "cpu",
        precision=work.how.precision,
        send=lambda step, values: work.run.metrics(values, step),
    )
    work.run.metrics({f"fit/{key}": float(v) for key, v in asdict(fitted).items()}, fitted.steps)
    work.console.print(
        f"trained {fitted.steps} steps in {timedelta(seconds=round(fitted.seconds))}; best "
        f"validation Dice {fitted.best_dice:.4f}"
    )
    return Model(
        replace(spec, provenance={**work.provenance, "fit": asdict(fitted)}), module.network
    )


def save_model(model: Model, papers: Mapping[str, str], folder: Path) -> None:
    """Write the model folder whole or not at all."""
    fresh = folder / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    model.save(fresh)
    for name, text in papers.items():
        (fresh / name).write_text(text, encoding="utf-8")
    fresh.rename(folder / "model")


def _module(work: Work, spec: ModelSpec) -> "SegmentationModule":
    from medseg.losses import LOSSES, DeepSupervision
    from medseg.training import SegmentationModule

    loss, settings = work.job.loss, work.job.train
    network = spec.build_network()
    return SegmentationModule(
        network,
        DeepSupervision(
            LOSSES.build(loss.name, **loss.settings), weights=network.supervision_weights
        ),
        structures=work.card.label_map().structures,
        window_voxels=spec.window_voxels,
        optimiser=settings.optimiser,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
    )


def _data(work: Work, preparation: Preparation) -> "DataModule":
    """Read and prepare the training and validation cases."""
    from medseg.data.module import DataModule, prepare_case
    from medseg.transforms import AUGMENTATIONS, PatchSampler, find_sided_pairs

    job, card = work.job, work.card
    labels, reading = card.label_map(), card.reading()
    patch = array_order(job.data.patch_voxels)
    augmentation = AUGMENTATIONS.build(
        job.augmentation.name,
        card.spatial_dims,
        patch,
        sagittal_axis_of(card),
        find_sided_pairs(labels.names),
        **job.augmentation.settings,
    )
    prepared = {
        part: [
            prepare_case(case, reading, labels, preparation)
            for case in track(
                cases,
                f"preparing {part}",
                console=work.console,
                disable=not work.console.is_terminal,
            )
        ]
        for part, cases in (("train", work.split.train), ("validation", work.split.validation))
    }
    return DataModule(
        prepared["train"],
        prepared["validation"],
        sampler=PatchSampler(patch, foreground=job.train.foreground),
        augmentation=augmentation,
        batch=job.train.batch,
        iterations_per_epoch=job.train.iterations_per_epoch,
        seed=job.train.seed,
        workers=work.how.workers,
    )
