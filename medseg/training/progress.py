"""What a person sees while training runs."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from medseg.data.module import DataModule
from medseg.training.schedule import Schedule

# Steps that are left out of the measured time, as the first are slow, and steps that are measured.
SLOW_STEPS, MEASURED_STEPS = 5, 20

Metrics = Callable[[int, dict[str, float]], None]


class ProgressBar(Callback):
    """One line with the share done, loss, score and the time left.

    Where the output is no terminal, one plain line a validation is printed instead.
    """

    def __init__(self, schedule: Schedule, console: Console) -> None:
        self.schedule = schedule
        self.console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._loss = float("nan")
        self._score = ""
        self._taken, self._measured_from = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, and with a budget of time what is left of it."""
        self._bar.start()
        budget = self.schedule.time_budget
        if budget is not None and self.schedule.steps:
            left = max(0.0, budget - self.schedule.seconds)
            self.console.print(
                f"goes on at step {self.schedule.steps} with {spell(left)} of {spell(budget)} left",
                highlight=False,
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar; once, say how many steps fit into a budget of time."""
        self._taken += 1
        if self.schedule.time_budget is not None:
            self._foresee(self.schedule.time_budget)
        loss = float(outputs["loss"])
        self._loss = loss if self._loss != self._loss else 0.95 * self._loss + 0.05 * loss
        self._bar.update(self._task, completed=self.schedule.progress, description=self._text())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new score."""
        value = float(trainer.callback_metrics[f"validation/{pl_module.score}"])
        self._score = f"  {pl_module.score_name} {value:.4f}"
        if not self.console.is_terminal:
            self.console.print(f"{self.schedule.progress:4.0%}  {self._text()}", highlight=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._bar.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._bar.stop()

    def _foresee(self, budget: float) -> None:
        seconds = self.schedule.seconds - self.schedule.validating
        if self._taken == SLOW_STEPS:
            self._measured_from = seconds
        if self._taken == SLOW_STEPS + MEASURED_STEPS:
            step = max(1e-9, (seconds - self._measured_from) / MEASURED_STEPS)
            more = max(0.0, budget - self.schedule.seconds) / step
            self.console.print(
                f"a step takes {step:.3g} s: about {self.schedule.steps + more:,.0f} steps, less "
                f"what validation takes",
                highlight=False,
            )

    def _text(self) -> str:
        left = self.schedule.seconds_left
        remaining = f"  {spell(left)} left" if left is not None else ""
        return f"step {self.schedule.steps}  loss {self._loss:.3f}{self._score}{remaining}"


class Waiting(Callback):
    """Measures how much of the time of the steps the network waits for patches.

    Validations and the writing of checkpoints count on neither side.
    """

    def __init__(self, data: DataModule) -> None:
        self.data = data
        self._computing = self._began = 0.0

    @property
    def percent(self) -> float:
        """Share of the time so far in which the network waited, 0 to 100."""
        waited = self.data.waited
        return 100 * waited / max(waited + self._computing, 1e-9)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note when a step begins."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count how long it took."""
        self._computing += time.perf_counter() - self._began


class MetricStream(Callback):
    """Hands the loss and each validation's scores to a function, with their step."""

    def __init__(self, send: Metrics, waiting: Waiting, *, every: int = 10) -> None:
        self.send = send
        self.waiting = waiting
        self.every = every

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Send the loss, the learning rate and how idle the network is, of every n-th step."""
        if trainer.global_step % self.every == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.send(
                trainer.global_step,
                {
                    "train/loss": float(outputs["loss"]),
                    "train/learning_rate": rate,
                    "train/idle_percent": self.waiting.percent,
                },
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the validation's scores."""
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        self.send(trainer.global_step, scores)


def spell(seconds: float) -> str:
    """Return a duration as people write it, e.g. ``0:20:00``."""
    return str(timedelta(seconds=round(seconds)))
