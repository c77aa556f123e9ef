"""Checkpoints that outlast whatever ends a training, and from which it goes on exactly.

A run that goes on is to end with the weights of the run that was never stopped. What is random in
a patch depends on the seed, the epoch and its number (:class:`medseg.data.module.Patches`); what is
random in a network depends on the seed and the step (:class:`StepSeeds`); all else is in the
checkpoint.
"""

import pickle
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from rich.console import Console

from medseg.errors import MedsegError
from medseg.files import flush
from medseg.signals import Stop

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
BROKEN = (
    zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, EOFError, KeyError,
    NotImplementedError,
)  # fmt: skip


class DurableIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and then moves it there.

    The ``last.ckpt`` of before stays as ``previous.ckpt``. A checkpoint is a zip file with a
    checksum (CRC-32) of each of its parts, so no kill can part a file from its checksum.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            MedsegError: It cannot be written, e.g. as the disk is full; the one of before is whole.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same name each time: what a kill leaves is overwritten by the next.
        aside = path.with_name(f".{path.name}.part")
        try:
            torch.save(checkpoint, aside)
            flush(aside)
            if path.name == LAST and path.exists():
                path.replace(path.with_name(PREVIOUS))
            aside.replace(path)
            flush(path.parent)
        except (OSError, RuntimeError) as error:
            aside.unlink(missing_ok=True)
            raise MedsegError(
                f"{path}: cannot be written ({str(error).splitlines()[0]})\n"
                f"  make room; the checkpoint of before is whole, and the same command goes on "
                f"from it"
            ) from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, after a look at its checksums.

    Raises:
        MedsegError: It is damaged, or would run code when opened.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            damaged = parts.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise MedsegError(
            f"{file}: damaged, or not written by medseg ({str(error).splitlines()[0]})\n"
            f"  remove the folder {file.parent} to train from the start"
        ) from None
    return state


def newest_checkpoint(folder: Path, console: Console) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint and what it holds, or None where there is none yet.

    One that is damaged is put aside as ``last.ckpt.damaged``, and the one before is taken.

    Raises:
        MedsegError: None of those that are there is whole.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        if last.is_file():
            return last, read_checkpoint(last)
    except MedsegError as error:
        if not previous.is_file():
            raise
        state = read_checkpoint(previous)
        last.replace(last.with_name(f"{LAST}.damaged"))
        console.print(
            f"{str(error).splitlines()[0]}: goes on from {PREVIOUS}, step {state['global_step']}",
            style="yellow",
            markup=False,
        )
        return previous, state
    return (previous, read_checkpoint(previous)) if previous.is_file() else None


class Best(ModelCheckpoint):
    """Keeps the weights that validate best in ``best.ckpt``.

    Args:
        folder: Where it is written.
        monitor: Name of the score.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder,
            filename=Path(BEST).stem,
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best score again, also where the run's folder has been moved."""
        moved: dict[str, Any] = {"dirpath": self.dirpath}
        if state_dict["best_model_path"]:
            here = str(Path(str(self.dirpath)) / BEST)
            moved |= {"best_model_path": here, "kth_best_model_path": here}
            moved["best_k_models"] = {here: state_dict["best_model_score"]}
        super().load_state_dict(state_dict | moved)


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` every so often, at the end, and when somebody asks the run to stop.

    Only where a run can go on exactly: between two steps of an epoch, or at its end, once its
    validation has been counted.

    Args:
        folder: Where it is written.
        every: Seconds between two.
        stop: Whether somebody asked.
        console: Where it is said.

    Attributes:
        ended: Whether the run has taken all its steps, or stopped early.
    """

    def __init__(self, folder: Path, *, every: float, stop: Stop, console: Console) -> None:
        self.path = folder / LAST
        self.every = every
        self.stop = stop
        self.console = console
        self.ended = False
        self._written = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear the signals, which Lightning would answer by leaving without a checkpoint."""
        self.stop.listen()
        self._written = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save between two steps of an epoch."""
        last_of_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if not (last_of_epoch or trainer.should_stop):
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch, and the end of the run in any case."""
        self.ended = trainer.should_stop
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        due = time.monotonic() - self._written >= self.every
        if not (due or self.ended or self.stop.asked):
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self._written = time.monotonic()
        if self.stop.asked and not self.ended:
            self.console.print(
                f"{self.stop.asked}: saved at step {trainer.global_step}; the same command goes on",
                highlight=False,
            )
            self.stop.leave()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on must know."""
        return {"ended": self.ended}


class StepSeeds(Callback):
    """Seeds what is random within a step, such as dropout, by the run's seed and the step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        mixed = np.random.SeedSequence((self.seed, trainer.global_step))
        torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
