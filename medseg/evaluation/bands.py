"""The trimap over all cases: right near the ground-truth border, and right away from it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from medseg.evaluation.details import CaseDetail
from medseg.evaluation.intervals import RESAMPLES, interval
from medseg.evaluation.plots import Axis, Chart, Curve, Tick
from medseg.evaluation.wording import length, unit_name

_VALUES = ("band_accuracy", "band_iou", "rest_accuracy", "rest_iou")
_CHARTS = {"Accuracy": "accuracy", "IoU": "iou"}
_LINES = {"band": ("near the border", "#0072B2"), "rest": ("elsewhere", "#D55E00")}


@dataclass(frozen=True)
class MeanWithin:
    """The mean of one value over the cases, with its 95 % interval over groups if there is one."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BandSummary:
    """One band width over all cases.

    Args:
        width: Half of the band, from the border outwards and inwards; None for the whole image.
        unit: Its unit.
        n: Cases; those without a prediction count, with nothing right.
        band_accuracy: Share of the band's voxels that carry the right label.
        band_iou: IoU in the band, mean over the labels that occur there.
        rest_accuracy: The same share outside the band.
        rest_iou: The IoU outside.
    """

    width: float | None
    unit: str
    n: int
    band_accuracy: MeanWithin
    band_iou: MeanWithin
    rest_accuracy: MeanWithin
    rest_iou: MeanWithin


def summarise_bands(
    details: Sequence[CaseDetail], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[BandSummary]:
    """Return each band width over all cases, narrow ones first, the whole image last.

    Widths in different units (cases with and without a known pixel size) are never mixed. Cases
    in which a band holds no voxel do not count in it.

    Args:
        details: What the cases show.
        resamples: Resamples of the groups for the intervals.
        seed: The same seed gives the same intervals.
    """
    found: dict[tuple[str, float], list[tuple[str, tuple[float, ...]]]] = {}
    for detail in details:
        for band in detail.bands:
            # Rounded: the same width may come from spacings that differ in the last digit.
            key = (str(detail.grid.unit), float(f"{band.width:.6g}"))
            values = tuple(float(getattr(band, value)) for value in _VALUES)
            found.setdefault(key, []).append((detail.group, values))
    return [
        BandSummary(
            None if math.isinf(width) else width,
            unit,
            len(rows),
            *(_mean(rows, column, resamples, seed) for column in range(len(_VALUES))),
        )
        for (unit, width), rows in sorted(found.items())
    ]


def _mean(
    rows: Sequence[tuple[str, tuple[float, ...]]], column: int, resamples: int, seed: int
) -> MeanWithin:
    kept = [(group, values[column]) for group, values in rows if math.isfinite(values[column])]
    if not kept:
        return MeanWithin(None, None, None)
    groups, values = [group for group, _ in kept], np.array([value for _, value in kept])
    ends = interval(groups, values, resamples=resamples, seed=seed) or (None, None)
    return MeanWithin(float(values.mean()), *ends)


def bands_table(summaries: Iterable[BandSummary]) -> pd.DataFrame:
    """Return the band widths as a table, one row each; an empty width is the whole image."""
    rows = []
    for summary in summaries:
        row = {"width": summary.width, "unit": summary.unit, "n": summary.n}
        for value in _VALUES:
            for key, part in asdict(getattr(summary, value)).items():
                row[value if key == "mean" else f"{value}_{key}"] = part
        rows.append(row)
    ends = [field.name for field in fields(MeanWithin)][1:]
    columns = ["width", "unit", "n"]
    columns += [name for v in _VALUES for name in (v, *(f"{v}_{end}" for end in ends))]
    return pd.DataFrame(rows, columns=columns)


def band_charts(summaries: Sequence[BandSummary]) -> tuple[Chart, ...]:
    """Return accuracy and IoU against the width of the band, a chart of each for each unit."""
    made = []
    for unit in dict.fromkeys(summary.unit for summary in summaries):
        rows = [s for s in summaries if s.unit == unit and s.width is not None]
        for title, value in _CHARTS.items():
            chart = _chart(title, value, rows, unit)
            if chart is not None:
                made.append(chart)
    return tuple(made)


def _chart(title: str, value: str, rows: Sequence[BandSummary], unit: str) -> Chart | None:
    lines = {
        part: [
            (place, mean)
            for place, row in enumerate(rows)
            if (mean := getattr(row, f"{part}_{value}").mean) is not None
        ]
        for part in _LINES
    }
    drawn = [mean for line in lines.values() for _, mean in line]
    if len(rows) < 2 or not drawn:
        return None
    up = Axis.over([*drawn, 1.0])
    step = 100 / (len(rows) - 1)
    across = tuple(
        Tick(round(step * place, 2), length(row.width or 0.0)) for place, row in enumerate(rows)
    )
    curves = tuple(
        Curve(
            name=_LINES[part][0],
            colour=_LINES[part][1],
            points=" ".join(f"{step * x:.2f},{100 - up.place(y):.2f}" for x, y in line),
            last="",
        )
        for part, line in lines.items()
        if line
    )
    note = f"by the width of the band, {unit_name(unit)}"
    return Chart(title, across, up.ticks, curves, note=note)
