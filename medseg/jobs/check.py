"""Read every case of a data set before a night of training does."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from medseg.config import Card, TrainJob, cases_of, read_card, read_job, split_settings
from medseg.data import SPLITS, Case, Split, UnpairedError
from medseg.doctor import (
    CaseFacts,
    DataFacts,
    Finding,
    diagnose,
    examine_cases,
    finding_of,
    sorted_findings,
    write_report,
)
from medseg.doctor.forecast import Forecast
from medseg.errors import MedsegError

MOST_WORKERS = 8


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        name: The data set.
        facts: Numbers of cases and groups, sizes, share of each structure.
        findings: What must be mended or looked at, the gravest first.
        report: The HTML file with pictures; None if none was asked for.
        forecast: Memory and time of a job; None without a job, or if it cannot run.
    """

    name: str
    facts: dict[str, str]
    findings: tuple[Finding, ...] = ()
    report: Path | None = None
    forecast: Forecast | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be mended."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self) | {
            "report": None if self.report is None else str(self.report),
            "forecast": None if self.forecast is None else self.forecast.as_json,
        }


def check(
    card_file: Path,
    *,
    job_file: Path | None = None,
    data_root: Path | None = None,
    report: Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    console: Console,
) -> Checked:
    """Read every image and label of a data set and list what is wrong.

    Args:
        card_file: The dataset card.
        job_file: A job on this card: its split is checked, and its memory and time foretold.
        data_root: Folder below which the card's root lies.
        report: HTML file to write, with pictures of the cases; an existing one is replaced.
        workers: Cases that are read at the same time; by default one a processor, at most eight.
        device: Where the job would run: ``auto``, ``cpu`` or ``gpu``.
        console: Where progress is shown.

    Raises:
        MedsegError: The card or the job itself is wrong, or the job is on another card.
    """
    card = read_card(card_file)
    job = None if job_file is None else _job_on(card_file, job_file)
    alone: list[Finding] = []
    try:
        cases = cases_of(card, card_file, data_root)
    except UnpairedError as error:
        alone, cases = [finding_of(error, "files")], list(error.paired)
    except MedsegError as error:
        return _reported(Checked(card.name, {}, (finding_of(error, "files"),), report))
    split, refused = _split_of(card, job, cases)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=len(cases))
        examined = examine_cases(
            cases,
            card.reading(),
            card.label_map(),
            kind=card.kind,
            workers=workers or min(MOST_WORKERS, os.cpu_count() or 1),
            progress=lambda: progress.advance(task),
        )
    data = DataFacts(
        cases=examined,
        labels=card.label_map(),
        kind=card.kind,
        spatial_dims=card.spatial_dims,
        grouped=card.groups is not None,
        split=split,
    )
    found = [*alone, *refused, *diagnose(data)]
    facts, expected = _facts(card, examined), None
    if job is not None and job_file is not None:
        from medseg.jobs.forecast import forecast
        from medseg.jobs.predict import torch_device

        expected, more = forecast(
            job,
            job_file,
            card,
            data,
            leave_out={one.case for one in found if one.severity == "error"},
            device=torch_device(device),
            console=console,
        )
        found += more
        facts |= expected.facts if expected else {}
    return _reported(Checked(card.name, facts, sorted_findings(found), report, expected), data)


def _job_on(card_file: Path, job_file: Path) -> TrainJob:
    """Return the job, which must be on this card.

    Raises:
        MedsegError: It is on another, or it is wrong.
    """
    job, _, other = read_job(job_file)
    if other.resolve() != card_file.resolve():
        raise MedsegError(
            f"{job_file}: is a job on {other}, not on {card_file}\n"
            f"  check that card, or correct data.dataset in the job"
        )
    return job


def _reported(checked: Checked, data: DataFacts | None = None) -> Checked:
    """Write the report, if there is to be one."""
    if checked.report is not None:
        write_report(
            checked.report,
            name=checked.name,
            facts=checked.facts,
            findings=checked.findings,
            cases=data.cases if data else (),
            part_of=data.part_of if data else {},
        )
    return checked


def _split_of(
    card: Card, job: TrainJob | None, cases: Sequence[Case]
) -> tuple[Split | None, list[Finding]]:
    """Return the job's split, the card's or the default one, and why it cannot be made."""
    name, settings = split_settings(card, job)
    try:
        return SPLITS.build(name, cases, **settings), []
    except (MedsegError, ValueError) as error:
        return None, [finding_of(error, "split")] if card.split or job else []


def _facts(card: Card, cases: Sequence[CaseFacts]) -> dict[str, str]:
    """Return the numbers of cases and groups, the sizes, and the share of each structure."""
    grids = Counter(case.image.grid.describe() for case in cases if case.image is not None)
    facts = {
        "cases": str(len(cases)),
        "groups": str(len({case.group for case in cases})),
        "images": "; ".join(f"{n} of {grid}" for grid, n in grids.most_common(3))
        + (f"; {len(grids) - 3} other sizes" if len(grids) > 3 else ""),
    }
    drawn = [case.labels for case in cases if case.labels is not None]
    ignored = -1 if card.ignore is None else card.ignore
    total = sum(math.prod(labels.grid.shape) - labels.values.get(ignored, 0) for labels in drawn)
    of = {
        name: [labels.structures[name].voxels for labels in drawn]
        for name in card.label_map().structures
    }
    for name, voxels in of.items():
        share = sum(voxels) / total if total else 0.0
        facts[name] = f"{share:.2%} of the voxels, in {sum(v > 0 for v in voxels)} cases"
    if card.kind == "instance":
        count = sum(labels.objects.count for labels in drawn if labels.objects)
        facts["objects"] = f"{count:,}"
    return facts
