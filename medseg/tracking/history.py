"""The metrics of a run in its own folder: the source of truth, whatever the server does.

``metrics.jsonl`` has one line a value: ``{"step": 3, "key": "dice/cell", "value": 0.91, "time":
1767225600000}``. The time (milliseconds since 1970) belongs to the value: a line sent twice is
stored once, so lines can be sent again by anyone at any time.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.tracking.names import Slugs

METRICS_FILE = "metrics.jsonl"
NOT_FINITE = "not_finite/"


@dataclass(frozen=True)
class Point:
    """One value of one metric.

    Args:
        step: Epoch or step of training.
        key: Slug under which a store knows the metric.
        value: The value, or None if it was not finite.
        time: Milliseconds since 1970.
        name: The name as given, where the slug differs from it.
        status: ``inf``, ``-inf`` or ``nan`` where there is no value.
    """

    step: int
    key: str
    value: float | None
    time: int
    name: str | None = None
    status: str | None = None

    def line(self) -> str:
        """Return the line of the file, without what is not stated."""
        fields = {
            "step": self.step,
            "key": self.key,
            "value": self.value,
            "time": self.time,
        }
        stated = {"name": self.name, "status": self.status}
        fields.update({key: value for key, value in stated.items() if value is not None})
        return json.dumps(fields, ensure_ascii=False) + "\n"


class History:
    """Metrics of a run, appended to a file and read back on resume.

    Args:
        folder: The run's folder; it is made if need be.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_FILE
        self.points = _read(self.path) if self.path.exists() else []
        self._seen = {(point.key, point.step) for point in self.points}
        self._slugs = Slugs({point.name or point.key: point.key for point in self.points})
        self._undefined: dict[str, int] = {}
        for point in self.points:
            if point.status is not None:
                self._undefined[point.key] = self._undefined.get(point.key, 0) + 1

    def skip(self, known: Iterable[tuple[str, int]]) -> None:
        """Leave out these keys and steps from now on; they are stored elsewhere."""
        self._seen.update(known)

    def add(self, values: Mapping[str, float], step: int, time: int) -> list[Point]:
        """Write values to the file and return what was new, in the file's order.

        A value that is not finite is written without a value, and counted under
        ``not_finite/<key>``. A key that already has a value at this step is left out: after a
        resume some steps are trained twice, and one history has room for one of them.
        """
        fresh: list[Point] = []
        for name, value in values.items():
            key = self._slugs(name)
            if (key, step) in self._seen:
                continue
            self._seen.add((key, step))
            given = name if name != key else None
            if math.isfinite(value):
                fresh.append(Point(step, key, float(value), time, given))
                continue
            self._undefined[key] = self._undefined.get(key, 0) + 1
            fresh.append(Point(step, key, None, time, given, status=str(float(value))))
            fresh.append(Point(step, NOT_FINITE + key, float(self._undefined[key]), time))
        self._append(fresh)
        self.points += fresh
        return fresh

    def _append(self, points: list[Point]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(point.line() for point in points))
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> list[Point]:
    """Read the lines; one that a kill left half written is cut off the file."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [_point(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]


def _point(path: Path, number: int, line: bytes) -> Point:
    try:
        fields: dict[str, Any] = json.loads(line)
        return Point(**fields)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}, line {number}: not a metric ({error}); the file is written by training and "
            f"not to be edited: restore it, or start a new run in another folder"
        ) from None
