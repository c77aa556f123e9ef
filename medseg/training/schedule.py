"""When the learning rate falls and when training ends: after so many steps, or after so long."""

import time
from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {
    "wall": lambda: time.monotonic(),
    "cpu": lambda: time.process_time(),
}


class Schedule(Callback):
    """Polynomial decay of the learning rate over the steps, or over a budget of time.

    With a budget, progress is the share of the time that has passed, so that the learning rate
    reaches zero just when the time is up, on a fast machine and on a slow one. The time that the
    last validation took is kept in reserve for the one at the end.

    Args:
        iterations: Training steps of the whole run; ignored with a budget.
        warmup: Steps over which the learning rate rises to its full value.
        time_budget: Seconds for training with its validations, from the first step on.
        clock: What the seconds are: ``wall`` time, or ``cpu`` time of this process's threads, by
            which runs on a busy machine compare.
        exponent: Of the decay.
    """

    def __init__(
        self,
        *,
        iterations: int,
        warmup: int = 0,
        time_budget: float | None = None,
        clock: Clock = "wall",
        exponent: float = 0.9,
    ) -> None:
        if time_budget is not None and time_budget <= 0:
            raise ValueError(f"a time budget is positive, got {time_budget} s")
        self.iterations = iterations
        self.warmup = warmup
        self.time_budget = time_budget
        self.now = CLOCKS[clock]
        self.exponent = exponent
        self.steps = 0
        self._spent = 0.0
        self._since: float | None = None
        self._validation_began = 0.0
        self._validation_took = 0.0
        self.validating = 0.0  # seconds of all validations of this part of the run

    @property
    def seconds(self) -> float:
        """Time spent training and validating so far, over all resumed parts."""
        return self._spent + (self.now() - self._since if self._since is not None else 0.0)

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.time_budget is None:
            return min(1.0, self.steps / self.iterations)
        return min(1.0, self.seconds / max(self.time_budget - self._validation_took, 1e-9))

    @property
    def seconds_left(self) -> float | None:
        """Expected time to the end, None before the first steps."""
        if not self.progress:
            return None
        return self.seconds * (1 - self.progress) / self.progress

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = self.now()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of this step."""
        factor = (1 - self.progress) ** self.exponent
        if self.warmup:
            factor *= min(1.0, (self.steps + 1) / self.warmup)
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the step and stop when the run is done."""
        self.steps = trainer.global_step
        if self.progress >= 1:
            trainer.should_stop = True
            if trainer.check_val_every_n_epoch is not None:
                # The end is validated, whether or not it is its epoch's turn.
                trainer.check_val_every_n_epoch = 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when a validation begins."""
        self._validation_began = self.now()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how long it took."""
        self._validation_took = self.now() - self._validation_began
        self.validating += self._validation_took

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on needs."""
        return {
            "seconds": self.seconds,
            "steps": self.steps,
            "validation_took": self._validation_took,
            "iterations": self.iterations,
            "time_budget": self.time_budget,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self._spent, self.steps = state_dict["seconds"], state_dict["steps"]
        self._validation_took = state_dict["validation_took"]

    def is_longer_than(self, state_dict: dict[str, Any]) -> bool:
        """Say whether this run is to be longer than that of a checkpoint was."""
        if self.time_budget is None or state_dict["time_budget"] is None:
            return bool(self.iterations > state_dict["iterations"])
        return bool(self.time_budget > state_dict["time_budget"])


def moving_average(decay: float) -> WeightAveraging:
    """Return a callback that keeps an exponential moving average of the weights.

    The average is what is validated, saved and used in the end. It starts short, (1 + n) / (10 + n)
    after n steps, and grows to ``decay``, so that the first validations do not judge the initial
    weights.
    """

    def average(averaged: torch.Tensor, current: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        n = float(steps)
        keep = min(decay, (1 + n) / (10 + n))
        return averaged * keep + current * (1 - keep)

    return WeightAveraging(avg_fn=average)
