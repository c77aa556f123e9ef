"""The part of a training that fits: from a job and its cases to the best weights."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import track

from medseg.config import Card, TrainJob, array_order
from medseg.data import Split
from medseg.errors import MedsegError, nearest
from medseg.files import folder_written_whole
from medseg.geometry import Unit
from medseg.images.trust import free_memory
from medseg.inference import Model, ModelSpec
from medseg.jobs.parts import model_spec, preparation_of, sagittal_axis_of, sampler_of
from medseg.networks import take_over
from medseg.signals import Stop
from medseg.transforms import Preparation

if TYPE_CHECKING:
    from torch import nn

    from medseg.data.module import DataModule, PreparedCase
    from medseg.tracking import TrackedRun
    from medseg.training import SegmentationModule


IDLE_PERCENT = 20.0  # above this the patches are what training waits for


@dataclass(frozen=True)
class How:
    """What belongs to the command line: how long, and on which computer."""

    time_budget: float | None
    clock: Literal["wall", "cpu"]
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    workers: int
    cache: float = 0.5  # part of the free memory that prepared cases may fill
    checkpoint_every: float = 300.0  # seconds


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
    start: Model | None = None  # whose weights the network takes over before it is trained
    stop: Stop = field(default_factory=Stop)


def fit_model(work: Work) -> Model:
    """Return the model with the weights that validated best."""
    from medseg.data.cache import cache_cases
    from medseg.training import fit

    settings, how = work.job.train, work.how
    with cache_cases(work.run.folder / "prepared", how.cache * free_memory()) as cache:
        spec, module, data = parts_to_fit(work, cache.keep)
        if cache.on_disk:
            work.console.print(
                f"{cache.in_memory / 1e9:.1f} GB of prepared cases in memory, "
                f"{cache.on_disk / 1e9:.1f} GB read from {cache.folder} (--cache)",
                markup=False,
            )
        fitted = fit(
            module,
            data,
            folder=work.run.folder / "checkpoints",
            epochs=settings.epochs,
            iterations_per_epoch=settings.iterations_per_epoch,
            validate_every=settings.validate_every,
            warmup=settings.warmup_iterations,
            time_budget=how.time_budget,
            clock=how.clock,
            patience=settings.patience,
            ema=settings.ema,
            gradient_clip=settings.gradient_clip,
            device="gpu" if how.device == "cuda" else "cpu",
            precision=how.precision,
            seed=settings.seed,
            checkpoint_every=how.checkpoint_every,
            stop=work.stop,
            send=lambda step, values: work.run.metrics(values, step),
            console=work.console,
        )
    work.run.metrics({f"fit/{key}": float(v) for key, v in fitted.to_dict().items()}, fitted.steps)
    work.console.print(
        f"trained {fitted.steps} steps in {timedelta(seconds=round(fitted.seconds))}; best "
        f"validation {module.score_name} {fitted.best:.4f}"
    )
    if fitted.stopped_early:
        work.console.print(
            f"stopped early: no better {module.score_name} on the whole validation images for "
            f"{settings.patience} validations (train.patience)"
        )
    _say_idle(work, fitted.idle_percent)
    provenance = {**work.provenance, "fit": fitted.to_dict()}
    return Model(replace(spec, provenance=provenance), module.network)


def parts_to_fit(
    work: Work, keep: "Callable[[PreparedCase], PreparedCase]" = lambda case: case
) -> "tuple[ModelSpec, SegmentationModule, DataModule]":
    """Return the network with its loss, and the prepared cases, as the job says.

    Args:
        work: The training.
        keep: Puts each prepared case where it will be kept.

    Raises:
        MedsegError: A file cannot be read, or parts do not fit together.
    """
    import pytorch_lightning as pl

    job = work.job
    preparation = preparation_of(
        job, work.card, work.split.train, work.card.reading(), work.card.label_map()
    )
    spec = model_spec(job, work.card, preparation, dict(work.provenance))
    pl.seed_everything(job.train.seed, verbose=False)
    try:
        prepared = _prepared(work, spec, preparation, keep)
        module = _module(work, spec, prepared["train"])
        data = _data(work, spec, prepared)
    except ValueError as error:
        raise MedsegError(f"{work.job_file}: {error}") from error
    return spec, module, data


def _say_idle(work: Work, percent: float) -> None:
    """Say how much the network waited for patches, and what to do where it is a lot."""
    said = f"the network waited for patches {percent:.0f} % of the time"
    if percent <= IDLE_PERCENT:
        work.console.print(said)
        return
    cores, workers = os.cpu_count() or 1, work.how.workers
    remedy = "choose a lighter augmentation (augmentation: light)"
    if workers < cores - 1:
        remedy = f"prepare them beside it: --workers {cores - 1}"
    work.console.print(f"{said}; {remedy}", style="yellow", highlight=False)


def save_model(model: Model, papers: Mapping[str, str], folder: Path) -> None:
    """Write the model folder whole or not at all."""
    with folder_written_whole(folder / "model") as fresh:
        model.save(fresh)
        for name, text in papers.items():
            (fresh / name).write_text(text, encoding="utf-8")


def _prepared(
    work: Work,
    spec: ModelSpec,
    preparation: Preparation,
    keep: "Callable[[PreparedCase], PreparedCase]",
) -> "dict[str, list[PreparedCase]]":
    """Read and prepare the training and validation cases."""
    from medseg.data.module import prepare_case

    labels, reading = work.card.label_map(), work.card.reading()
    unit = Unit.PX if spec.finder is None else spec.finder.unit
    return {
        part: [
            keep(prepare_case(case, reading, labels, preparation, unit))
            for case in track(
                cases,
                f"preparing {part}",
                console=work.console,
                disable=not work.console.is_terminal,
            )
        ]
        for part, cases in (("train", work.split.train), ("validation", work.split.validation))
    }


def _module(work: Work, spec: ModelSpec, train: "Sequence[PreparedCase]") -> "SegmentationModule":
    from medseg.losses import LOSSES, DeepSupervision
    from medseg.training import ObjectsModule, SegmentationModule

    settings, finder = work.job.train, spec.finder
    loss: nn.Module = LOSSES.build(work.job.loss.name, **_loss_settings(work, train))
    network = spec.build_network()
    if work.start is not None:
        taken = take_over(network, work.start.network)
        work.console.print(taken.describe(), markup=False)
    if finder is not None:
        loss = finder.method.loss(loss)
    supervised = DeepSupervision(loss, weights=network.supervision_weights)
    how: dict[str, Any] = {
        "structures": work.card.label_map().structures,
        "window_voxels": spec.window_voxels,
        "neighbours": spec.neighbours or 0,
        "optimiser": settings.optimiser,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "momentum": settings.momentum,
    }
    if finder is not None:
        return ObjectsModule(network, supervised, finder=finder, **how)
    return SegmentationModule(network, supervised, **how)


def _loss_settings(work: Work, train: "Sequence[PreparedCase]") -> dict[str, Any]:
    """Return the loss's settings, with class weights that are to be counted in the labels."""
    settings = work.job.loss.settings
    if settings.get("class_weights") != "median_frequency":
        return settings
    from medseg.data.module import count_classes
    from medseg.losses import median_frequency_weights

    names = work.card.label_map().names
    weights = median_frequency_weights(*count_classes(train, len(names)))
    listed = ", ".join(f"{name} {w:.3g}" for name, w in zip(names, weights, strict=True))
    work.console.print(f"class weights by median frequency: {listed}", markup=False)
    return {**settings, "class_weights": weights}


def _data(
    work: Work, spec: ModelSpec, prepared: "Mapping[str, Sequence[PreparedCase]]"
) -> "DataModule":
    from medseg.data.module import DataModule, repeat_hard
    from medseg.transforms import AUGMENTATIONS, find_sided_pairs

    job, card = work.job, work.card
    labels = card.label_map()
    patch = array_order(job.data.patch_voxels)
    augmentation = AUGMENTATIONS.build(
        job.augmentation.name,
        len(patch),
        patch,
        sagittal_axis_of(job, card),
        find_sided_pairs(labels.names),
        **job.augmentation.settings,
    )
    factors = {}
    for name, factor in job.train.repeat.items():
        if name not in labels.structures:
            raise ValueError(
                f'train.repeat: no structure "{name}"{nearest(name, labels.structures)}'
            )
        factors[labels.structures[name]] = factor
    return DataModule(
        repeat_hard(prepared["train"], factors),
        prepared["validation"],
        sampler=sampler_of(job),
        augmentation=augmentation,
        batch=job.train.batch,
        iterations_per_epoch=job.train.iterations_per_epoch,
        seed=job.train.seed,
        workers=work.how.workers,
        targets=None if spec.finder is None else spec.finder.method.targets,
    )
