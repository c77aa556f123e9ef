"""One row for each case, structure and metric, and the table of them.

A record holds what was measured and everything that is needed to read it later: the unit, whether
something was there to measure, which definition was used, on which grid, by which version.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from medseg.errors import MedsegError
from medseg.files import written_whole
from medseg.geometry import Unit

Outcome = Literal[
    "ok", "both_empty", "empty_reference", "empty_prediction", "missing_prediction", "error"
]
FAILURES = frozenset({"empty_reference", "empty_prediction", "missing_prediction", "error"})


@dataclass(frozen=True)
class Record:
    """One metric of one structure in one case.

    Args:
        case: The image.
        group: What must not be split between train and test, e.g. the patient; intervals are
            taken over groups.
        structure: Which structure was outlined.
        metric: Name of the metric.
        value: What counts in a mean: the measured value; the worst possible one where the status
            is a failure and nothing can be measured (a missed organ has no border distance, so it
            counts with the image's diagonal). None where both masks are empty, and for failures of
            metrics without a worst value, such as a number of splits.
        unit: Unit of the value: ``mm``, ``um``, ``nm``, ``px``, or ``1`` for a ratio.
        status: ``ok``; ``both_empty``: nothing to find and nothing found; ``empty_reference``:
            something was invented; ``empty_prediction``: the structure was missed;
            ``missing_prediction``: there was no prediction for the case; ``error``: there was one,
            but it cannot be used.
        definition: Identifies how the value was computed, e.g. ``nsd/surfel-area/v1``.
        spacing: Distance of neighbouring voxels along each array axis.
        spacing_unit: Unit of the spacing.
        version: Version of medseg that computed the value.
        settings: Settings of the metric as they were asked for, e.g. ``tolerance=2 mm``.
        ignored_voxels: Voxels that were left out because the reference does not judge them.

    Raises:
        ValueError: The value is not finite, or the status is unknown, or the two contradict.
    """

    case: str
    group: str
    structure: str
    metric: str
    value: float | None
    unit: str
    status: Outcome
    definition: str
    spacing: tuple[float, ...]
    spacing_unit: Unit
    version: str
    settings: str = ""
    ignored_voxels: int = 0

    def __post_init__(self) -> None:
        whose = f"{self.case}, {self.structure}, {self.metric}"
        if self.status not in get_args(Outcome):
            raise ValueError(f"{whose}: status {self.status!r} is none of {get_args(Outcome)}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{whose}: value {self.value} is not finite; write None and a status")
        wants = {"ok": False, "both_empty": True}.get(self.status)
        if wants is not None and wants != (self.value is None):
            raise ValueError(f"{whose}: value {self.value} with status {self.status}")

    @property
    def label(self) -> str:
        """The metric with its settings, e.g. ``nsd (tolerance=2 mm)``."""
        return f"{self.metric} ({self.settings})" if self.settings else self.metric

    @property
    def uncounted(self) -> bool:
        """Whether this is a failure that no mean can count: its metric has no worst value."""
        return self.value is None and self.status in FAILURES


COLUMNS = tuple(field.name for field in fields(Record) if field.name != "spacing_unit")


def to_table(records: Iterable[Record]) -> pd.DataFrame:
    """Return the records as a table, one row each.

    The spacing becomes one text for people, in the order x, y, z: ``0.8 x 0.8 x 2.5 mm``.
    """
    rows = []
    for record in records:
        row = asdict(record)
        spacing = " x ".join(repr(float(step)) for step in reversed(record.spacing))
        row["spacing"] = f"{spacing} {row.pop('spacing_unit')}"
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"value": float, "ignored_voxels": int})


def from_table(table: pd.DataFrame, source: str = "table") -> list[Record]:
    """Return the records of a table that :func:`to_table` made.

    Args:
        table: The table.
        source: Where it is from, for messages.

    Raises:
        MedsegError: A column is missing, or a row is no record.
    """
    lacking = [column for column in COLUMNS if column not in table.columns]
    if lacking:
        raise MedsegError(
            f"{source}: not a table of medseg's records: no column {', '.join(lacking)}; "
            f"give the records.csv or records.parquet that medseg evaluate wrote"
        )
    records = []
    for number, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=1):
        try:
            records.append(_record(row))
        except (ValueError, TypeError) as error:
            raise MedsegError(f"{source}, row {number}: {error}") from error
    return records


def _record(row: dict[str, Any]) -> Record:
    numbers, unit = str(row["spacing"]).rsplit(" ", 1)
    texts = {key: str(value) for key, value in row.items()}
    return Record(
        case=texts["case"],
        group=texts["group"],
        structure=texts["structure"],
        metric=texts["metric"],
        value=None if texts["value"] in ("", "nan") else float(row["value"]),
        unit=texts["unit"],
        status=row["status"],
        definition=texts["definition"],
        spacing=tuple(float(step) for step in reversed(numbers.split(" x "))),
        spacing_unit=Unit(unit),
        version=texts["version"],
        settings=texts["settings"],
        ignored_voxels=int(row["ignored_voxels"]),
    )


def write_table(records: Sequence[Record], path: Path) -> None:
    """Write the records to a ``.csv`` or ``.parquet`` file; an existing file is replaced whole.

    Raises:
        ValueError: The file's suffix is neither.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: a table is written as .csv or .parquet")
    table = to_table(records)
    with written_whole(path) as aside:
        if path.suffix == ".csv":
            table.to_csv(aside, index=False, lineterminator="\n")
        else:
            table.to_parquet(aside, index=False)


def read_table(path: Path) -> list[Record]:
    """Read the records of a ``.csv`` or ``.parquet`` file that :func:`write_table` wrote.

    Raises:
        MedsegError: The file cannot be read, or holds no records.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise MedsegError(f"{path}: a table of records is a .csv or .parquet file")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            # As text: a case may be called 007 or NA.
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise MedsegError(f"{path}: cannot be read as a table of records: {error}") from error
    return from_table(table, source=str(path))


def write_json(content: Any, path: Path) -> None:
    """Write plain values as JSON; an existing file is replaced whole.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    with written_whole(Path(path)) as aside:
        aside.write_text(text + "\n", encoding="utf-8")
