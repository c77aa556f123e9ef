"""What a person sees while training runs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from medseg.training.schedule import Schedule

Metrics = Callable[[int, dict[str, float]], None]


class ProgressBar(Callback):
    """One line with the share done, loss, score and the time left.

    Where the output is no terminal, one plain line a validation is printed instead.
    """

    def __init__(self, schedule: Schedule, console: Console | None = None) -> None:
        self.schedule = schedule
        self.console = console or Console(stderr=True)
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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar."""
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

    def _text(self) -> str:
        left = self.schedule.seconds_left
        remaining = f"  {timedelta(seconds=round(left))} left" if left is not None else ""
        return f"step {self.schedule.steps}  loss {self._loss:.3f}{self._score}{remaining}"


class MetricStream(Callback):
    """Hands the loss and each validation's scores to a function, with their step."""

    def __init__(self, send: Metrics, *, every: int = 10) -> None:
        self.send = send
        self.every = every

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Send the loss and the learning rate of every n-th step."""
        if trainer.global_step % self.every == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.send(
                trainer.global_step,
                {"train/loss": float(outputs["loss"]), "train/learning_rate": rate},
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the validation's scores."""
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        self.send(trainer.global_step, scores)
