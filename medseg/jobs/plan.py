"""Plan a job from a data set: its fingerprint, and the reason of every choice."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from medseg.config import (
    Card,
    TrainJob,
    cases_of,
    commented_yaml,
    parsed,
    read_card,
    split_settings,
    write_new,
)
from medseg.data import SPLITS, Case
from medseg.errors import MedsegError
from medseg.planning import Choice, Fingerprint, Machine, choose, take_fingerprint


@dataclass(frozen=True)
class Planned:
    """A job that has been written.

    Args:
        job_file: Where.
        choices: Its settings with their reasons.
    """

    job_file: Path
    choices: Sequence[Choice]

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"job": str(self.job_file), "choices": [c.as_json for c in self.choices]}

    def show(self, console: Console) -> None:
        """Show the choices and where the job lies."""
        show_settings([(c.path, c.value, c.reason) for c in self.choices], console)
        console.print(f"job  {self.job_file}", highlight=False, markup=False, soft_wrap=True)


def plan(
    card_file: Path,
    *,
    job_file: Path | None = None,
    network: str | None = None,
    memory_gb: float | None = None,
    data_root: Path | None = None,
    console: Console,
) -> Planned:
    """Write a job for a data set.

    Args:
        card_file: Its card.
        job_file: Where the job goes; ``NAME_job.yaml`` beside the card if None.
        network: The network; that which learnt best if None.
        memory_gb: Memory of the GPU, 0 for none; that of this machine's if None.
        data_root: Folder below which the card's root lies.
        console: Where progress is shown.

    Raises:
        MedsegError: The job is there already, or a case cannot be read.
    """
    card = read_card(card_file)
    if job_file is None:
        job_file = card_file.with_name(f"{card.name}_job.yaml")
    cases = cases_of(card, card_file, data_root)
    choices = planned(
        card, cases, source=card_file, network=network, memory_gb=memory_gb, console=console
    )
    write_new({job_file: job_text(card, card_file, job_file, choices)})
    return Planned(job_file, choices)


def planned(
    card: Card,
    cases: Sequence[Case],
    *,
    source: Path,
    network: str | None,
    memory_gb: float | None,
    console: Console,
) -> list[Choice]:
    """Return a job's settings for the training cases of a data set."""
    name, settings = split_settings(card)
    machine = Machine(_memory_gb() if memory_gb is None else memory_gb)
    try:
        train = SPLITS.build(name, cases, **settings).train
        found = fingerprint_of(card, train, console)
        return choose(found, machine=machine, network=network)
    except ValueError as error:
        raise MedsegError(f"{source}: {error}") from None


def fingerprint_of(card: Card, train: Sequence[Case], console: Console) -> Fingerprint:
    """Read the training cases once and return what they have in common."""
    reading, labels = card.reading(), card.label_map()
    shown = track(train, "measuring", console=console, disable=not console.is_terminal)
    pairs = ((case.name, *reading.pair(case)) for case in shown)
    return take_fingerprint(
        (
            (
                image.channels_first,
                reference.array,
                image.grid,
                labels.voxels(reference.array, case),
            )
            for case, image, reference in pairs
        ),
        kind=card.kind,
        channels=card.channels,
        structures=tuple(labels.structures),
    )


def job_text(card: Card, card_file: Path, job_file: Path, choices: Sequence[Choice]) -> str:
    """Return a job as it is written, with every choice's reason."""
    dataset = os.path.relpath(card_file, job_file.parent)
    heading = [
        f"{card.name}: planned by medseg from its training cases. Say here what it scored.",
        f"medseg train {job_file.name}",
    ]
    settings = [("data.dataset", Path(dataset).as_posix(), "")]
    settings += [(choice.path, choice.value, choice.reason) for choice in choices]
    text = commented_yaml(settings, heading=heading)
    parsed(TrainJob, text, job_file)
    return text


def show_settings(settings: Sequence[tuple[str, Any, str]], console: Console) -> None:
    """Show settings, each with its value and the reason for it."""
    table = Table("setting", "value", "why", box=None)
    for path, value, reason in settings:
        table.add_row(path, escape(str(value)), escape(reason))
    console.print(table)


def _memory_gb() -> float:
    """Return the memory of this machine's GPU; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return float(round(torch.cuda.get_device_properties(0).total_memory / 1e9))
