"""Plots of a report as places in per cent; the template draws them as inline SVG.

Places in per cent keep the text at one size on a wide screen, on a telephone and on paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation.comparison import Comparison, Paired
from medseg.evaluation.records import FAILURES, Record
from medseg.evaluation.summary import Summary
from medseg.evaluation.wording import higher_is_better, metric_name, number, signed, unit_name

# Okabe & Ito: told apart by everyone, also in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STEP = 4
_REACH = 3
PAIRED = 12


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where (in per cent), and what it says."""

    place: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A case: where it lies (in per cent), how far aside (in pixels), and what it says."""

    place: float
    aside: int
    title: str


@dataclass(frozen=True)
class Lane:
    """One structure in a distribution: its cases, quartiles, mean and interval."""

    structure: str
    dots: tuple[Dot, ...]
    failures: tuple[str, ...]
    quartiles: tuple[float, float, float] | None
    mean: str
    mean_place: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Distribution:
    """One metric over all cases, a lane for each structure."""

    title: str
    unit: str
    better: str
    ticks: tuple[Tick, ...]
    lanes: tuple[Lane, ...]
    fails: bool


@dataclass(frozen=True)
class Axis:
    """A span of values on 0 to 100 per cent, with round ticks."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], *, at_most: int = 5) -> "Axis":
        """Return an axis with round ends that holds all values."""
        low, high = min(values), max(values)
        spread = (high - low) or max(abs(high) * 0.1, 1e-3)
        power = 10.0 ** math.floor(math.log10(spread / at_most))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if spread / (s * power) <= at_most)
        ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + step, step)

    def place(self, value: float) -> float:
        """Return where a value lies, in per cent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """The marks of the axis."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(count + 1)]
        return tuple(Tick(self.place(v), f"{round(v, 10):g}") for v in values)


def distributions(
    records: Sequence[Record], summaries: Sequence[Summary]
) -> tuple[Distribution, ...]:
    """Return how each metric spreads over the cases, structure by structure.

    Failures stand beside the axis: on it, an image's diagonal would push everything else together.
    """
    by_metric: dict[tuple[str, str, str, str], list[Summary]] = {}
    for summary in summaries:
        key = (summary.metric, summary.settings, summary.unit, summary.definition)
        by_metric.setdefault(key, []).append(summary)
    found = []
    for (metric, settings, unit, definition), parts in by_metric.items():
        same = (metric, settings, unit, definition)
        rows = [r for r in records if (r.metric, r.settings, r.unit, r.definition) == same]
        axis = _axis(rows, metric)
        named = {row.structure for row in rows}
        lanes = tuple(
            _lane([r for r in rows if r.structure == part.structure], part, axis)
            for part in parts
            if part.structure in named
        )
        found.append(
            Distribution(
                title=metric_name(metric, settings),
                unit=unit_name(unit),
                better="higher is better" if higher_is_better(metric) else "lower is better",
                ticks=axis.ticks,
                lanes=lanes,
                fails=any(lane.failures for lane in lanes),
            )
        )
    return tuple(found)


def _axis(rows: Sequence[Record], metric: str) -> Axis:
    fine = [r.value for r in rows if r.status == "ok" and r.value is not None]
    best = 1.0 if higher_is_better(metric) else 0.0
    return Axis.over([*fine, best])


def _lane(rows: Sequence[Record], summary: Summary, axis: Axis) -> Lane:
    fine = [(r.value, r) for r in rows if r.status == "ok" and r.value is not None]
    values = [value for value, _ in fine]
    quartiles = None
    if len(values) >= _STEP:
        first, middle, last = (axis.place(float(q)) for q in np.percentile(values, [25, 50, 75]))
        quartiles = (first, middle, last)
    unit = unit_name(summary.unit)
    low, high = _clipped(summary.low, summary.high, axis)
    on_axis = summary.mean is not None and axis.low <= summary.mean <= axis.high
    return Lane(
        structure=summary.structure,
        dots=_dots([(v, f"{r.case}: {number(v, r.unit)} {unit}".strip()) for v, r in fine], axis),
        failures=tuple(r.case for r in rows if r.status in FAILURES),
        quartiles=quartiles,
        mean=f"{number(summary.mean, summary.unit)} {unit}".strip(),
        mean_place=axis.place(summary.mean) if on_axis and summary.mean is not None else None,
        low=low,
        high=high,
    )


def _clipped(
    low: float | None, high: float | None, axis: Axis
) -> tuple[float, float] | tuple[None, None]:
    """Return the part of an interval that is on the axis: failures may pull it off."""
    if low is None or high is None or low > axis.high or high < axis.low:
        return None, None
    return axis.place(max(low, axis.low)), axis.place(min(high, axis.high))


def _dots(values: Sequence[tuple[float, str]], axis: Axis) -> tuple[Dot, ...]:
    """Return the cases, moved aside where they would hide each other."""
    crowd: dict[int, int] = {}
    dots = []
    for value, title in sorted(values):
        place = axis.place(value)
        before = crowd.get(round(place), 0)
        crowd[round(place)] = before + 1
        turn = (before + 1) // 2 % (_REACH + 1)
        dots.append(Dot(place, _STEP * (turn if before % 2 else -turn), title))
    return tuple(dots)


@dataclass(frozen=True)
class PairedPlot:
    """The differences of the cases between two predictions, by one metric."""

    title: str
    structure: str
    unit: str
    left: str
    right: str
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    mean: float
    low: float | None
    high: float | None


def paired_plots(comparison: Comparison) -> tuple[PairedPlot, ...]:
    """Return how the differences spread over the cases, for the first pairs of a comparison."""
    return tuple(_paired(pair) for pair in comparison.headlines[:PAIRED])


def _paired(pair: Paired) -> PairedPlot:
    ends = [end for end in (pair.low, pair.high) if end is not None]
    axis = Axis.over([0.0, *ends, *(case.difference for case in pair.cases)])
    unit = unit_name(pair.unit)
    dots = [
        (case.difference, f"{case.case}: {signed(case.difference, pair.unit)} {unit}".strip())
        for case in pair.cases
    ]
    # A positive difference means that the second one is higher.
    left, right = (pair.first, pair.second) if higher_is_better(pair.metric) else (
        pair.second, pair.first)  # fmt: skip
    return PairedPlot(
        title=metric_name(pair.metric, pair.settings),
        structure=pair.structure,
        unit=unit,
        left=left,
        right=right,
        ticks=axis.ticks,
        dots=_dots(dots, axis),
        mean=axis.place(pair.difference),
        low=None if pair.low is None else axis.place(pair.low),
        high=None if pair.high is None else axis.place(pair.high),
    )


@dataclass(frozen=True)
class Curve:
    """One line of a chart: points as SVG wants them, in per cent."""

    name: str
    colour: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis."""

    title: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    note: str


def charts(curves: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[Chart, ...]:
    """Return the training curves, those of the same quantity in one chart.

    Args:
        curves: Points (epoch or step, value) by name, e.g. ``train/loss``, ``val/dice``. The part
            after the first slash names the quantity.
    """
    grouped: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in curves.items():
        finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        if finite:
            grouped.setdefault(_quantity(name), {})[name] = finite
    return tuple(_chart(title, lines) for title, lines in grouped.items())


def _quantity(name: str) -> str:
    last = name.replace("_", "/").lower().split("/")
    return next((q for q in ("loss", "dice", "iou") if q in last), name.partition("/")[2] or name)


def _chart(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    points = [point for line in lines.values() for point in line]
    across = Axis.over([x for x, _ in points])
    up = Axis.over([y for _, y in points])
    drawn = [
        Curve(
            name=name,
            colour=PALETTE[index % len(PALETTE)],
            points=" ".join(
                f"{across.place(x):.2f},{100 - up.place(y):.2f}" for x, y in _thin(line)
            ),
            last=f"{line[-1][1]:.3g}",
        )
        for index, (name, line) in enumerate(lines.items())
    ]
    name = "IoU" if title == "iou" else title.capitalize()
    note = "by epoch or step, as logged"
    return Chart(name, across.ticks, up.ticks, tuple(drawn), note)


def _thin(line: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return at most 400 points: more are not seen."""
    return line[:: -(-len(line) // 400)]
