"""Say whether one prediction is better than another, on the same cases."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.evaluation import (
    Comparison,
    comparison_json,
    comparison_table,
    read_table,
    summarise,
    write_report,
)
from medseg.evaluation import (
    compare as compare_records,
)


@dataclass(frozen=True)
class Compared:
    """A comparison and the folder of its tables and report."""

    comparison: Comparison
    folder: Path

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"folder": str(self.folder), **comparison_json(self.comparison)}


def compare(evaluations: Sequence[Path], output: Path) -> Compared:
    """Compare evaluations of the same cases by the same definitions.

    Args:
        evaluations: Folders of ``medseg evaluate`` or of runs; the first is the one that the
            report is about.
        output: Folder of ``comparison.csv``, ``comparison.json`` and ``report.html``.

    Raises:
        MedsegError: A folder holds no records, or cases or definitions differ.
    """
    if len(evaluations) < 2:
        raise MedsegError("compare needs two evaluations or more")
    tables = {_name(folder): read_table(_records(folder)) for folder in evaluations}
    if len(tables) < len(evaluations):
        raise MedsegError("two of the folders have the same name; rename one")
    comparison = compare_records(tables)
    output.mkdir(parents=True, exist_ok=True)
    comparison_table(comparison).to_csv(output / "comparison.csv", index=False)
    text = json.dumps(comparison_json(comparison), indent=2)
    (output / "comparison.json").write_text(text + "\n")
    first, records = next(iter(tables.items()))
    write_report(
        output / "report.html",
        title=" against ".join(tables),
        facts={"compared": ", ".join(tables), "summary and cases below": first},
        records=records,
        summary=summarise(records),
        cases=(),
        comparison=comparison,
    )
    return Compared(comparison, output)


def _records(folder: Path) -> Path:
    for place in (folder, folder / "evaluation"):
        if (place / "records.parquet").is_file():
            return place / "records.parquet"
    raise MedsegError(f"{folder}: no evaluation, there is no records.parquet in it")


def _name(folder: Path) -> str:
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == "evaluation" else resolved.name
