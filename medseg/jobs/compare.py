"""Say whether one prediction is better than another, on the same cases."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg.config import cases_of, read_card
from medseg.errors import MedsegError
from medseg.evaluation import (
    Comparison,
    Record,
    ReportCase,
    comparison_json,
    comparison_table,
    pick_cases,
    read_table,
    summarise,
    write_json,
    write_report,
)
from medseg.evaluation import (
    compare as compare_records,
)
from medseg.files import written_whole
from medseg.jobs.evaluate import CASES_SHOWN, PREDICTIONS, evaluate
from medseg.jobs.labels import pictured

_OF_A_RUN = ("evaluation", "predictions")  # folders that are called after their run


@dataclass(frozen=True)
class Compared:
    """A comparison and the folder of its tables and report."""

    comparison: Comparison
    folder: Path

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"folder": str(self.folder), **comparison_json(self.comparison)}


def compare(
    predictions: Sequence[str],
    output: Path,
    *,
    card_file: Path | None = None,
    metrics: Sequence[str] = (),
    cases: Sequence[str] = (),
    file_name: str = "{case}",
    data_root: Path | None = None,
    tracking_uri: str | None = None,
    device: str = "auto",
    console: Console,
) -> Compared:
    """Compare predictions of the same cases by the same definitions.

    Args:
        predictions: Folders of ``medseg evaluate`` or of runs, which are taken as they are; with a
            card also folders of label images and models, which are evaluated first, each into a
            folder of its own below the output. The first is the one that the report is about.
        output: Folder of ``comparison.csv``, ``comparison.json`` and ``report.html``.
        card_file: The data set; with it the report shows the worst cases.
        metrics: What to compute of what is not evaluated yet.
        cases: Names of the cases for that; all if empty.
        file_name: Name of a prediction's file without its suffix; ``{case}`` stands for the case.
        data_root: Folder below which the card's root lies.
        tracking_uri: Where ``models:/`` and runs are looked up.
        device: Where a model predicts.
        console: Where progress is shown.

    Raises:
        MedsegError: Something is no evaluation and there is no card, or cases or definitions
            differ.
    """
    if len(predictions) < 2:
        raise MedsegError("compare needs two predictions or more")
    folders: dict[str, Path] = {}
    for name, prediction in zip(_names(predictions), predictions, strict=True):
        folder = _evaluation(Path(prediction))
        if folder is None:
            if card_file is None:
                raise MedsegError(
                    f"{prediction}: no evaluation, there is no records.parquet in it\n"
                    f"  to compare label images or models, give the ground truth: --card CARD"
                )
            folder = output / name
            evaluate(
                prediction,
                card_file,
                folder,
                metrics=metrics,
                cases=cases,
                file_name=file_name,
                data_root=data_root,
                tracking_uri=tracking_uri,
                device=device,
                console=console,
            )
        folders[name] = folder
    tables = {name: read_table(folder / "records.parquet") for name, folder in folders.items()}
    comparison = compare_records(tables)
    first, records = next(iter(tables.items()))
    shown = () if card_file is None else _shown(records, folders, card_file, data_root)
    output.mkdir(parents=True, exist_ok=True)
    with written_whole(output / "comparison.csv") as aside:
        comparison_table(comparison).to_csv(aside, index=False)
    write_json(comparison_json(comparison), output / "comparison.json")
    write_report(
        output / "report.html",
        title=" against ".join(tables),
        facts={"compared": ", ".join(tables), "summary and cases below": first},
        records=records,
        summary=summarise(records),
        cases=shown,
        comparison=comparison,
    )
    return Compared(comparison, output)


def _evaluation(folder: Path) -> Path | None:
    """Return the folder of the records, if this is an evaluation or a run."""
    for place in (folder, folder / "evaluation"):
        if (place / "records.parquet").is_file():
            return place
    return None


def _names(predictions: Sequence[str]) -> list[str]:
    """Return a short name for each: its folder's, with the parent's where two would be alike."""
    paths = [Path(prediction).resolve() for prediction in predictions]
    paths = [path.parent if path.name in _OF_A_RUN else path for path in paths]
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    long = [f"{path.parent.name}-{path.name}" for path in paths]
    twice = [name for name in long if long.count(name) > 1]
    if twice:
        raise MedsegError(f"two of the folders are called {twice[0]}; rename one")
    return long


def _shown(
    records: Sequence[Record],
    folders: Mapping[str, Path],
    card_file: Path,
    data_root: Path | None,
) -> list[ReportCase]:
    """Return the cases to show, with the first two predictions where their files are known."""
    card = read_card(card_file)
    known = {case.name: case for case in cases_of(card, card_file, data_root)}
    first, second = [files_of(folder) for folder in folders.values()][:2]
    return [
        pictured(known[name], first.get(name), card, other=second.get(name))
        for name in pick_cases(records, CASES_SHOWN)
        if name in known
    ]


def files_of(folder: Path) -> dict[str, Path]:
    """Return the label files that an evaluation was made of, where they still are."""
    listed = folder / PREDICTIONS
    if not listed.is_file():
        return {}
    places = json.loads(listed.read_text(encoding="utf-8"))
    files = {str(case): folder / place for case, place in places.items()}
    return {case: file for case, file in files.items() if file.is_file()}
