"""From a module and its data to the best weights: the Trainer with what medseg adds to it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.apply_func import move_data_to_device
from pytorch_lightning.callbacks import Callback, EarlyStopping
from rich.console import Console

from medseg.data.module import DataModule
from medseg.errors import MedsegError
from medseg.signals import Stop
from medseg.training.module import SegmentationModule
from medseg.training.progress import MetricStream, ProgressBar, Waiting, spell
from medseg.training.resume import (
    BEST,
    Best,
    Checkpoints,
    DurableIO,
    StepSeeds,
    newest_checkpoint,
    read_checkpoint,
)
from medseg.training.schedule import CLOCKS, Clock, Schedule, moving_average

VALIDATIONS_IN_A_BUDGET = 12
SHARE_OF_VALIDATION = 0.2


@dataclass(frozen=True)
class FitResult:
    """What came out of training.

    Args:
        score: Which score chose the weights that were kept, e.g. ``dice``.
        best: Its mean over the whole validation images, of these weights.
        steps: Training steps taken.
        seconds: Time of training and validation by the run's clock, over all resumed parts.
        resumed: Whether the run went on from a checkpoint.
        idle_percent: Of the time of the steps, how much the network waited for patches.
        stopped_early: Whether it ended because the score got no better.
    """

    score: str
    best: float
    steps: int
    seconds: float
    resumed: bool
    idle_percent: float
    stopped_early: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, e.g. ``{"best_dice": 0.83, "steps": 2000, ...}``."""
        return {
            f"best_{self.score}": self.best,
            "steps": self.steps,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "idle_percent": self.idle_percent,
            "stopped_early": self.stopped_early,
        }


def fit(
    module: SegmentationModule,
    data: DataModule,
    *,
    folder: Path,
    epochs: int,
    iterations_per_epoch: int,
    validate_every: int,
    warmup: int = 0,
    time_budget: float | None = None,
    clock: Clock = "wall",
    patience: int | None = None,
    ema: float | None = None,
    gradient_clip: float | None = None,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    seed: int = 0,
    checkpoint_every: float = 300.0,
    stop: Stop | None = None,
    send: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    console: Console | None = None,
) -> FitResult:
    """Train, keep the weights that validate best in the module, and say how it went.

    A run that was stopped goes on from ``folder/last.ckpt``, and one that has ended goes on if it
    is now to be longer. On a CPU it ends with the weights of a run that was never stopped.

    Args:
        module: Network, loss and optimiser.
        data: Patches for training, whole images for validation.
        folder: Where checkpoints lie.
        epochs: Length of the run; ignored with a time budget.
        iterations_per_epoch: Training steps an epoch.
        validate_every: Epochs between validations; with a time budget they are spread over it.
        warmup: Steps of rising learning rate.
        time_budget: Seconds for training and validation.
        clock: Whether these are wall time or processor time.
        patience: Validations without a better score after which training stops early.
        ema: Decay of the moving average of the weights; None for none.
        gradient_clip: Largest norm of the gradient.
        device: Where to train.
        precision: Number format; ``auto`` takes bf16 where the processor or GPU multiplies it, else
            fp16 on a GPU and fp32 on a processor.
        seed: Of what is random within a step.
        checkpoint_every: Seconds between checkpoints.
        stop: Looked at after each step: when asked to stop, the run is saved and left.
        send: Gets the step and the metrics, as they come.
        console: Where progress is shown; the terminal if None.

    Raises:
        MedsegError: The loss is not finite, no checkpoint to go on from is whole, or one cannot be
            written.
        SystemExit: The run was asked to stop, and is saved.
    """
    console, stop = console or Console(stderr=True), stop or Stop()
    schedule = Schedule(
        iterations=epochs * iterations_per_epoch,
        warmup=warmup,
        time_budget=time_budget,
        clock=clock,
    )
    monitor = f"validation/{module.score}"
    best = Best(folder, monitor)
    checkpoints = Checkpoints(folder, every=checkpoint_every, stop=stop, console=console)
    found = newest_checkpoint(folder, console)
    saved = {} if found is None else found[1]["callbacks"]
    longer = found is not None and schedule.is_longer_than(saved[schedule.state_key])
    early = [] if patience is None else [Patience(monitor, patience=patience, anew=longer)]
    waiting = Waiting(data)
    if found is not None and saved[checkpoints.state_key]["ended"] and not longer:
        for callback in (schedule, *early):
            callback.load_state_dict(saved.get(callback.state_key, callback.state_dict()))
    else:
        averaging = [] if ema is None else [moving_average(ema)]
        callbacks: list[Callback] = [schedule, StepSeeds(seed), FiniteLoss(), *averaging, *early]
        callbacks += [waiting, MetricStream(send, waiting), ProgressBar(schedule, console)]
        if _on_gpu(device):
            planes = len(module.window_voxels) == 2
            layout = torch.channels_last if planes else torch.channels_last_3d
            module.network.to("cuda", memory_format=layout)  # type: ignore[call-overload]
        every: dict[str, Any] = {"check_val_every_n_epoch": validate_every}
        if time_budget is not None:
            interval = _validation_interval(module, data, time_budget, clock)
            every = {"check_val_every_n_epoch": None, "val_check_interval": interval}
            console.print(
                f"time budget {spell(time_budget)} ({clock} time), validations included; one about "
                f"every {spell(interval.total_seconds())} of wall time",
                highlight=False,
            )
        with quiet(), stop.deferred():
            trainer = pl.Trainer(
                accelerator=device,
                devices=1,
                precision=_precision(precision, device, console),
                max_epochs=-1 if time_budget is not None else epochs,
                gradient_clip_val=gradient_clip,
                # Checkpoints come last: they save what the others have counted.
                callbacks=[*callbacks, best, checkpoints],
                # The cluster's own way of going on would get between.
                plugins=[DurableIO(), LightningEnvironment()],
                default_root_dir=folder,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                **every,
            )
            trainer.fit(
                module, data, ckpt_path=None if found is None else found[0], weights_only=True
            )
    kept = folder / BEST
    if not kept.is_file():
        raise MedsegError("training ended before its first validation; give it more time")
    state = read_checkpoint(kept)
    module.load_state_dict(state["state_dict"])
    score = float(state["callbacks"][best.state_key]["best_model_score"])
    return FitResult(
        score=module.score,
        best=score,
        steps=schedule.steps,
        seconds=schedule.seconds,
        resumed=found is not None,
        idle_percent=waiting.percent,
        stopped_early=any(one.wait_count >= one.patience for one in early),
    )


class Patience(EarlyStopping):
    """Stops a run whose score gets no better; counts anew where a run has been made longer."""

    def __init__(self, monitor: str, *, patience: int, anew: bool) -> None:
        super().__init__(monitor, mode="max", patience=patience, check_on_train_epoch_end=False)
        self.anew = anew

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget how long the shorter run had waited."""
        if self.anew:
            self.wait_count = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice and advertisements out of the terminal, but no warning of its own."""
    said = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = said.level
    said.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The number of workers is the command line's choice.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings(
            "ignore", message=".*Checkpoint directory .* exists and is not empty.*"
        )
        try:
            yield
        finally:
            said.setLevel(level)


class FiniteLoss(Callback):
    """Stops a run whose loss is no number any more; the best weights so far are untouched."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check the loss."""
        if not torch.isfinite(outputs["loss"]):
            names = ", ".join(batch.get("case", []))
            raise MedsegError(
                f"the loss became {float(outputs['loss'])} at step {trainer.global_step} "
                f"(cases {names})\n  lower train.learning_rate, or look at these images"
            )


def _on_gpu(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available()


def _precision(wanted: str, device: str, console: Console) -> Any:
    gpu = _on_gpu(device)
    bf16 = torch.cuda.is_bf16_supported() if gpu else _processor_multiplies_bf16()
    if wanted == "auto":
        wanted = "bf16" if bf16 else "fp16" if gpu else "fp32"
    elif wanted == "bf16" and not (bf16 or gpu):
        console.print(
            "this processor cannot multiply bf16 numbers (it has no AVX-512 BF16 and no AMX): "
            "training takes ten times as long or more; leave --precision out",
            style="yellow",
            highlight=False,
        )
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[wanted]


def _processor_multiplies_bf16() -> bool:
    """Say whether bf16 is faster than fp32 on this processor, rather than emulated by it."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _validation_interval(
    module: SegmentationModule, data: pl.LightningDataModule, time_budget: float, clock: Clock
) -> timedelta:
    """Return how often to validate, so that validation takes at most a fifth of the budget.

    Lightning counts wall time, whatever the budget's clock: the answer is in its seconds, as many
    as pass for one of the clock now.
    """
    loader = data.val_dataloader()
    now, wall = CLOCKS[clock], CLOCKS["wall"]
    started, wall_started = now(), wall()
    where = next(module.network.parameters()).device
    module.eval()
    module.judge(move_data_to_device(next(iter(loader)), where))
    module.train()
    one = now() - started
    wall_seconds = (wall() - wall_started) / one
    rounds = min(VALIDATIONS_IN_A_BUDGET, SHARE_OF_VALIDATION * time_budget / (one * len(loader)))
    return timedelta(seconds=max(1.0, wall_seconds * time_budget / max(2.0, rounds)))
