"""Prepared cases in memory: patches to train on, whole images to validate on."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from medseg.data.cases import Case, LabelMap, Reading
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.signals import SIGNALS
from medseg.transforms import Augmentation, PatchSampler, PatchSource, Preparation

Targets = Callable[[NDArray[Any], Sequence[float]], NDArray[np.float32]]


@dataclass(frozen=True)
class PreparedCase:
    """A case on the network's grid, ready for patches to be cut from it.

    Args:
        name: Of the case.
        source: Its image and what is learnt from.
        spacing: Of its voxels, in the unit that was asked for; only who measures needs it.
    """

    name: str
    source: PatchSource
    spacing: tuple[float, ...] = ()


def prepare_case(
    case: Case,
    reading: Reading,
    labels: LabelMap,
    preparation: Preparation,
    unit: Unit = Unit.PX,
) -> PreparedCase:
    """Read and prepare a case.

    Args:
        case: Where its files lie.
        reading: How they are to be understood.
        labels: What they mean.
        preparation: What happens to the image.
        unit: Of lengths that will be measured in it; ``px`` counts voxels.

    Raises:
        MedsegError: A file is unreadable, image and labels do not fit, a label is not named, or
            the preparation refuses the image, or its pixel size is not known and lengths are
            physical; names the case.
    """
    image, reference = reading.pair(case)
    classes = labels.learnt(reference.array, case.name)
    try:
        prepared = preparation.prepare(image.channels_first, image.grid)
        label = preparation.prepare_labels(classes, image.grid)
        spacing = prepared.grid.spacing_in(unit)
    except ValueError as error:
        raise MedsegError(f"{case.name}: {error}") from None
    return PreparedCase(case.name, PatchSource.of(prepared.tensor, label), spacing)


def repeat_hard(
    cases: Sequence[PreparedCase], factors: Mapping[int, int]
) -> tuple[PreparedCase, ...]:
    """Return the cases, those that hold a hard class as many times as its factor says.

    So images with a structure that is rare or hard are drawn more often.

    Args:
        cases: Prepared cases; a repeated one costs no memory.
        factors: How many times a case with this class is there; of several, the largest counts.

    Source:
        The bootstrapping of hard images in Chen et al., arXiv:1706.05587.
    """
    times = (max((factors.get(value, 1) for value in c.source.voxels), default=1) for c in cases)
    return tuple(case for case, count in zip(cases, times, strict=True) for _ in range(count))


def count_classes(cases: Sequence[PreparedCase], classes: int) -> tuple[list[int], list[int]]:
    """Return for each class its voxels, and the judged voxels of the cases that hold it."""
    voxels, in_cases = [0] * classes, [0] * classes
    for case in cases:
        label = case.source.label
        counts = label[label >= 0].flatten().long().bincount(minlength=classes).tolist()
        for index, count in enumerate(counts):
            voxels[index] += count
            in_cases[index] += sum(counts) if count else 0
    return voxels, in_cases


class Patches(Dataset[dict[str, Any]]):
    """Endless augmented patches; an item is a function of (seed, epoch, number) alone.

    So a resumed run sees what the uninterrupted one would have seen, whatever the number of
    workers.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        sampler: PatchSampler,
        augmentation: Augmentation,
        *,
        seed: int,
        targets: Targets | None = None,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.sampler = sampler
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, at: tuple[int, int]) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, *at))
        case = self.cases[int(rng.integers(len(self.cases)))]
        patch = self.sampler.sample(case.source, rng, self.augmentation)
        if self.targets is not None:
            target = self.targets(patch["label"][0].numpy(), case.spacing)
            patch["label"] = torch.from_numpy(target)
        return {**patch, "case": case.name}


class Epochs(Sampler[tuple[int, int]]):
    """Indices (epoch, number) of one epoch's patches, from number ``first`` on."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, number) for number in range(self.first, self.length))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch


def _ignore_signals(worker: int) -> None:
    """Leave to the main process what a signal to all processes of a job means: it saves first."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class PatchLoader(DataLoader[dict[str, Any]]):
    """Batches of patches, which go on in the middle of an epoch.

    Lightning keeps the state of a loader that has one in its checkpoints.

    Attributes:
        waited: Seconds that somebody waited for a batch.
    """

    def __init__(self, patches: Patches, epochs: Epochs, *, batch: int, workers: int) -> None:
        super().__init__(
            patches,
            batch_size=batch,
            sampler=epochs,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_signals,
        )
        self.epochs = epochs
        self._taken = self._resumed_at = 0
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        self._taken, self._resumed_at = self._resumed_at, 0
        self.epochs.first = self._taken * (self.batch_size or 1)
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were taken; none of the next if all were."""
        return {"taken": self._taken % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave out as many batches when the epoch goes on."""
        self._resumed_at = state_dict["taken"]


class WholeImages(Dataset[dict[str, Any]]):
    """Whole prepared images."""

    def __init__(self, cases: Sequence[PreparedCase]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self.cases[index]
        return {
            "image": case.source.image,
            "label": case.source.label,
            "case": case.name,
            "spacing": case.spacing,
        }


def _alone(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch of one; what is no tensor stays as it is."""
    (item,) = items
    return {k: v[None] if isinstance(v, torch.Tensor) else [v] for k, v in item.items()}


class DataModule(pl.LightningDataModule):
    """Patches of the training cases and whole validation images.

    Args:
        train: Prepared training cases.
        validation: Prepared validation cases.
        sampler: Cuts patches.
        augmentation: Changes a patch at random.
        batch: Patches a step.
        iterations_per_epoch: Steps an epoch.
        seed: Of all that is random here.
        workers: Loader processes; 0 does the work between the steps.
        targets: Makes of the labels of an augmented patch (*patch), and the spacing of its voxels,
            what the network is to say, (channels, *patch); None for the labels themselves.
    """

    def __init__(
        self,
        train: Sequence[PreparedCase],
        validation: Sequence[PreparedCase],
        *,
        sampler: PatchSampler,
        augmentation: Augmentation,
        batch: int,
        iterations_per_epoch: int,
        seed: int,
        workers: int = 0,
        targets: Targets | None = None,
    ) -> None:
        super().__init__()
        self._patches = Patches(train, sampler, augmentation, seed=seed, targets=targets)
        self._images = WholeImages(validation)
        self._batch = batch
        self._iterations = iterations_per_epoch
        self._workers = workers
        self._loader: PatchLoader | None = None

    @property
    def waited(self) -> float:
        """Seconds that the training waited for patches so far."""
        return 0.0 if self._loader is None else self._loader.waited

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return batches of patches."""
        epochs = Epochs(self._batch * self._iterations)
        self._loader = PatchLoader(self._patches, epochs, batch=self._batch, workers=self._workers)
        return self._loader

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return whole images, one at a time."""
        return DataLoader(self._images, batch_size=1, collate_fn=_alone)
