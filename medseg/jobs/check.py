"""Read every case of a data set before a night of training does."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from medseg.config import Card, cases_of, read_card
from medseg.data import SPLITS, Case, Split
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
    """

    name: str
    facts: dict[str, str]
    findings: tuple[Finding, ...] = ()
    report: Path | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be mended."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self) | {"report": None if self.report is None else str(self.report)}


def check(
    card_file: Path,
    *,
    data_root: Path | None = None,
    report: Path | None = None,
    workers: int | None = None,
    console: Console,
) -> Checked:
    """Read every image and label of a data set and list what is wrong.

    Args:
        card_file: The dataset card.
        data_root: Folder below which the card's root lies.
        report: HTML file to write, with pictures of the cases; an existing one is replaced.
        workers: Cases that are read at the same time; by default one a processor, at most eight.
        console: Where progress is shown.

    Raises:
        MedsegError: The card itself is wrong.
    """
    card = read_card(card_file)
    try:
        cases = cases_of(card, card_file, data_root)
    except MedsegError as error:
        return _reported(Checked(card.name, {}, (finding_of(error, "files"),), report))
    split, refused = _split_of(card, cases)
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
    found = sorted_findings([*refused, *diagnose(data)])
    return _reported(Checked(card.name, _facts(card, examined), found, report), data)


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


def _split_of(card: Card, cases: Sequence[Case]) -> tuple[Split | None, list[Finding]]:
    """Return the card's split, or the default one, and why the card's cannot be made."""
    name, settings = (card.split.name, card.split.settings) if card.split else ("group", {})
    try:
        return SPLITS.build(name, cases, **settings), []
    except (MedsegError, ValueError) as error:
        return None, [finding_of(error, "split")] if card.split else []


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
    ignored = sum(labels.values.get(card.ignore, 0) for labels in drawn) if card.ignore else 0
    total = sum(sum(labels.values.values()) for labels in drawn) - ignored
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
