"""What a training command knows before it trains: the job, its data, and how to run it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from medseg import __version__
from medseg.config import Card, TrainJob, cases_of, read_job, to_yaml
from medseg.data import Split, file_digests
from medseg.errors import MedsegError
from medseg.inference import Ensemble, Model
from medseg.jobs.fitting import How
from medseg.jobs.parts import split_of
from medseg.jobs.predict import load_model, torch_device
from medseg.signals import Stop


@dataclass(frozen=True)
class Setup:
    """A job with its data, and what the command line says about running it.

    Args:
        job: The job.
        job_file: Where it is written.
        card: Its data set.
        split: As the job or the card says.
        files: Digests of the files of each case in the split.
        how: How long, and on which computer.
        runs: Folder of the runs' folders.
        start: Model whose weights are taken over first.
        tracking_uri: The MLflow store.
        experiment: Its experiment.
        register_as: Name of the registered model; empty for none.
        console: Where progress is shown.
        stop: Whether somebody asked the command to stop.
    """

    job: TrainJob
    job_file: Path
    card: Card
    split: Split
    files: Mapping[str, Mapping[str, str]]
    how: How
    runs: Path
    start: Model | None
    tracking_uri: str | None
    experiment: str
    register_as: str
    console: Console
    stop: Stop

    def files_of(self, split: Split) -> dict[str, Mapping[str, str]]:
        """Return the digests of the files that a split uses."""
        return {case.name: self.files[case.name] for case in split.cases}

    def provenance(self, split: Split) -> dict[str, str]:
        """Return what tells a training on this split from any other."""
        return {
            "job_hash": self.job.hash,
            "split_hash": split.hash,
            "data_sha256": sha256(self.files_of(split)),
            "medseg": __version__,
        } | ({} if self.start is None else {"start_from": self.start.weights_sha256})

    def folder(self, splits: Sequence[Split], kind: str = "") -> Path:
        """Return the folder of the training on one split, or of a ``kind`` of study on several."""
        parts = [self.provenance(split) for split in splits]
        seconds, clock = self.how.time_budget, self.how.clock
        budget = seconds if clock == "wall" else [seconds, clock]
        identity = sha256([parts if kind else parts[0], to_yaml(self.card), budget])
        return self.runs / "-".join(filter(None, [self.job_file.stem, kind, identity[:8]]))


def read_setup(
    job_file: Path,
    *,
    settings: Sequence[str] = (),
    data_root: Path | None = None,
    runs: Path = Path("runs"),
    time_budget: float | None = None,
    clock: Literal["wall", "cpu"] = "wall",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    workers: int = 0,
    cache: float = 0.5,
    checkpoint_every: float = 300.0,
    start_from: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    register_as: str | None = None,
    console: Console,
    stop: Stop | None = None,
) -> Setup:
    """Read a job with its card, and hash the files of its cases.

    Args:
        job_file: The job.
        settings: ``key=value`` overrides.
        data_root: Folder below which the card's root lies.
        runs: Folder of the runs' folders.
        time_budget: Seconds for training and validation; the job's epochs are ignored then.
        clock: Whether these are wall time or processor time.
        device: Where to train.
        precision: Number format.
        workers: Loader processes.
        cache: Part of the free memory that prepared cases may fill; the others are read from disk.
        checkpoint_every: Seconds between checkpoints.
        start_from: A model folder, run or ``models:/NAME/3`` whose weights are taken over first.
        tracking_uri: The MLflow store.
        experiment: Its experiment; the data set's name if None.
        register_as: Name of the registered model; the data set's name if None, none if empty.
        console: Where progress is shown.
        stop: Whether somebody asked the command to stop.

    Raises:
        MedsegError: The job, the card or a file is wrong, or an image is in two parts of the split.
    """
    job, card, card_file = read_job(job_file, settings)
    how = How(time_budget, clock, torch_device(device), precision, workers, cache, checkpoint_every)
    split = split_of(job, card, cases_of(card, card_file, data_root), job_file)
    files = file_digests(
        track(split.cases, "hashing files", console=console, disable=not console.is_terminal)
    )
    split.refuse_copies(files)
    start = None
    if start_from is not None:
        start = load_model(start_from, tracking_uri=tracking_uri, device="cpu")
        if isinstance(start, Ensemble):
            raise MedsegError(
                f"--start-from {start_from}: is an ensemble of {len(start.members)} models, and a "
                f"training begins with one: name one of its folders"
            )
    return Setup(
        job=job,
        job_file=job_file,
        card=card,
        split=split,
        files=files,
        how=how,
        runs=runs,
        start=start,
        tracking_uri=tracking_uri,
        experiment=experiment or card.name,
        register_as=card.name if register_as is None else register_as,
        console=console,
        stop=stop or Stop(),
    )


def sha256(content: Any) -> str:
    """Return the SHA-256 of plain values, 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
