"""Size against error: whether it is the small ones that fail."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medseg.evaluation.details import CaseDetail, JudgedObject
from medseg.evaluation.plots import PALETTE, Axis, Tick
from medseg.evaluation.records import FAILURES, Record
from medseg.evaluation.wording import higher_is_better, metric_name, number, unit_name
from medseg.geometry import Unit

SHOWN = 1500  # more dots hide each other, and fill the file
_TITLED = 600
_TICKS = 6
# Marks in each power of ten: dense ones first; a wide span takes whole powers, then every other.
_ROUND = ((1, 2, 5), (1, 3), (1,))


@dataclass(frozen=True)
class Spot:
    """A structure in a case, or an object: where it lies (in per cent), and what it says."""

    across: float
    up: float
    colour: str
    failed: bool
    title: str


@dataclass(frozen=True)
class Scatter:
    """One value against the size of what was judged."""

    title: str
    unit: str
    note: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    spots: tuple[Spot, ...]
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Point:
    name: str
    size: float
    value: float
    failed: bool
    title: str


def size_plots(records: Sequence[Record], details: Sequence[CaseDetail]) -> tuple[Scatter, ...]:
    """Return size against error: of objects where there are any, else of structures in cases.

    Structures are shown by the first metric and by the first distance, objects by their IoU and
    by the distance of their borders. Sizes are those drawn: what was invented has none.

    Args:
        records: Records of all cases.
        details: Sizes and objects of the same cases; a unit other than the first one's is left
            out.
    """
    if not details:
        return ()
    alike = details[0].grid.unit, details[0].grid.spatial_dims
    same = [d for d in details if (d.grid.unit, d.grid.spatial_dims) == alike]
    size, divisor = _size_unit(*alike)
    if any(detail.objects for detail in same):
        return tuple(plot for plot in _of_objects(same, size, divisor) if plot is not None)
    sizes = {(d.case, name): value / divisor for d in same for name, value in d.sizes.items()}
    asked = list(dict.fromkeys((r.metric, r.settings, r.unit) for r in records))
    lengths = [metric for metric in asked if metric[2] in set(Unit)]
    chosen = dict.fromkeys([*asked[:1], *lengths[:1]])
    plots = (_of_structures(records, sizes, metric, size) for metric in chosen)
    return tuple(plot for plot in plots if plot is not None)


def _size_unit(unit: Unit, spatial_dims: int) -> tuple[str, float]:
    """Return how sizes are written, and what they are divided by for that."""
    if unit is Unit.PX:
        return ("pixels" if spatial_dims == 2 else "voxels"), 1.0
    if (unit, spatial_dims) == (Unit.MM, 3):
        return "ml", 1000.0
    return f"{unit_name(unit)}{'²' if spatial_dims == 2 else '³'}", 1.0


def _of_structures(
    records: Sequence[Record],
    sizes: Mapping[tuple[str, str], float],
    metric: tuple[str, str, str],
    size_unit: str,
) -> Scatter | None:
    points = []
    for r in records:
        size = sizes.get((r.case, r.structure), 0.0)
        if (r.metric, r.settings, r.unit) != metric or not size or r.value is None:
            continue
        failed = r.status in FAILURES
        said = "failed" if failed else f"{number(r.value, r.unit)} {unit_name(r.unit)}".strip()
        title = f"{r.case}, {r.structure}: {number(size, '')} {size_unit}, {said}"
        points.append(_Point(r.structure, size, r.value, failed, title))
    name, unit = metric_name(metric[0], metric[1]), metric[2]
    return _scatter(name, unit, points, size_unit, higher_is_better(metric[0]))


def _of_objects(
    details: Sequence[CaseDetail], size_unit: str, divisor: float
) -> list[Scatter | None]:
    drawn = [
        (d, replace(o, size=o.size / divisor))
        for d in details
        for o in d.objects
        if o.reference_id is not None
    ]
    invented = sum(len(d.objects) for d in details) - len(drawn)
    step = -(-len(drawn) // SHOWN) or 1
    shown = drawn[::step]
    notes = [f"{len(shown):,} of {len(drawn):,} objects"] if step > 1 else []
    notes += [f"{invented:,} invented objects have no drawn size"] if invented else []
    unit = str(details[0].grid.unit)
    overlaps = [_point(d, o, o.iou, o.predicted_id is None, size_unit) for d, o in shown]
    apart = [_point(d, o, o.assd, False, size_unit) for d, o in shown if o.assd is not None]
    return [
        _scatter("IoU of objects", "1", overlaps, size_unit, True, notes),
        _scatter("ASSD of found objects", unit, apart, size_unit, False, notes),
    ]


def _point(
    detail: CaseDetail, one: JudgedObject, value: float, failed: bool, size_unit: str
) -> _Point:
    said = "missed" if failed else f"IoU {one.iou:.3f}"
    name = f"{detail.case}, {detail.structure} {one.reference_id}"
    title = f"{name}: {number(one.size, '')} {size_unit}, {said}"
    return _Point(detail.structure, one.size, value, failed, title)


def _scatter(
    title: str,
    unit: str,
    points: Sequence[_Point],
    size_unit: str,
    higher_better: bool,
    notes: Sequence[str] = (),
) -> Scatter | None:
    fine = [p.value for p in points if not p.failed]
    if len(points) < 3 or not fine:
        return None
    up = Axis.over([*fine, 1.0 if higher_better else 0.0])
    low, high = (pick(math.log10(p.size) for p in points) for pick in (min, max))
    spare = max(0.05, 0.04 * (high - low))
    low, high = low - spare, high + spare
    names = list(dict.fromkeys(p.name for p in points))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    # What failed lies on the axis at its bad end: an image's diagonal would be off the plot.
    bad = 0.0 if higher_better else 100.0
    spots = tuple(
        Spot(
            across=round(100 * (math.log10(p.size) - low) / (high - low), 2),
            up=bad if p.failed else up.place(p.value),
            colour=colours[p.name],
            failed=p.failed,
            title=p.title if len(points) <= _TITLED else "",
        )
        for p in points
    )
    return Scatter(
        title=title,
        unit=unit_name(unit),
        note="; ".join([f"by size as drawn, {size_unit}", *notes]),
        across=_log_ticks(low, high),
        up=up.ticks,
        spots=spots,
        keys=tuple(colours.items()),
    )


def _log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Return round marks on a logarithmic axis, in per cent of it."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    ends = 10**low, 10**high
    choices = [[step * 10.0**power for power in powers for step in steps] for steps in _ROUND]
    choices += [[10.0**power for power in powers[::stride]] for stride in (2, 3, 5)]
    even = Axis.over(ends)
    choices.append([even.low + even.step * i for i in range(7)])
    inside = [[v for v in values if ends[0] <= v <= ends[1]] for values in choices]
    values = next((v for v in inside if 2 <= len(v) <= _TICKS), inside[-1][:_TICKS])
    places = [round(100 * (math.log10(value) - low) / (high - low), 2) for value in values]
    return tuple(Tick(place, f"{value:,.6g}") for place, value in zip(places, values, strict=True))
