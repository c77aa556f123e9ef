"""The report: one HTML file that stands alone, for the person who must decide.

Everything is inside the file (style, script, pictures); it asks no server for anything, so it can
be opened offline, mailed and archived. The template escapes every text it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from medseg import __version__
from medseg.evaluation.bands import MeanWithin, band_charts, summarise_bands
from medseg.evaluation.borders import ALONE, COLOURS, Share, border_map
from medseg.evaluation.comparison import Comparison
from medseg.evaluation.details import CaseDetail, band_widths
from medseg.evaluation.figures import Projection, Slice, projections, slices
from medseg.evaluation.intervals import FEWEST_GROUPS
from medseg.evaluation.overlay import BLUE, YELLOW
from medseg.evaluation.plots import charts, distributions, paired_plots
from medseg.evaluation.records import FAILURES, Outcome, Record
from medseg.evaluation.sizes import size_plots
from medseg.evaluation.summary import (
    ALL_STRUCTURES,
    Summary,
    pick_by_rank,
    worst_first,
)
from medseg.evaluation.views import ReportCase
from medseg.evaluation.wording import (
    STATUS_TEXT,
    first_line,
    higher_is_better,
    length,
    metric_name,
    number,
    probability,
    signed,
    unit_name,
    value_title,
)
from medseg.files import written_whole

BUDGET = 10_000_000
SHOWN = 12
LISTED = 30


@dataclass(frozen=True)
class Cell:
    """One value in a table: what is written, what it is sorted by, and what stands behind it."""

    text: str
    sort: float | None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """One structure of one case in the table of all cases."""

    case: str
    group: str
    structure: str
    status: str
    failed: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """One metric as a column of the table of all cases."""

    title: str
    unit: str


@dataclass(frozen=True)
class Card:
    """One case with its pictures, and where along its borders the error lies."""

    key: int
    case: str
    group: str
    rank: int
    of: int
    slices: tuple[Slice, ...]
    first: int
    predicted: bool
    shares: tuple[Share, ...]
    projections: tuple[Projection, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Meaning:
    """One metric explained."""

    title: str
    text: str
    better: str
    definition: str


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    records: Sequence[Record],
    summary: Sequence[Summary],
    cases: Sequence[ReportCase],
    details: Sequence[CaseDetail] = (),
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Write a report as one HTML file.

    Args:
        path: The file to write; an existing one is replaced whole.
        title: Heading of the report.
        facts: What was evaluated, on what, and how, e.g. ``{"Model": "...", "Data": "..."}``.
        records: Records of all cases.
        summary: Their summaries.
        cases: Images of the cases to show; :func:`~medseg.evaluation.pick_cases` names those that
            are worth loading. Further ones are left out. In a comparison they may carry a second
            prediction.
        details: Sizes, objects and bands around the border of all cases, see
            :func:`~medseg.evaluation.case_detail`; without them the report has no trimap and no
            plot of sizes.
        curves: Training curves by name, e.g. ``train/loss`` and ``val/dice``, as points of
            (epoch or step, value).
        comparison: A comparison with other predictions of the same cases.
    """
    overall = _overall(summary)
    bands = summarise_bands(details)
    columns, rows = _table(records)
    html = _template().render(
        title=title,
        facts=facts,
        yellow=YELLOW,
        blue=BLUE,
        overall=overall,
        all_structures=ALL_STRUCTURES,
        structures=_by_structure(summary),
        distributions=distributions(records, summary),
        sentences=_sentences(overall, records),
        failures=_failures(records),
        sections=_sections(records, cases),
        columns=columns,
        rows=rows,
        far_colours=(*COLOURS, ALONE),
        bands=bands,
        band_charts=band_charts(bands),
        within=_within,
        sizes=size_plots(records, details),
        names=_names(cases, comparison),
        charts=charts(curves or {}),
        comparison=comparison,
        paired=paired_plots(comparison) if comparison else (),
        meanings=_meanings(summary),
        version=__version__,
        number=number,
        length=length,
        signed=signed,
        probability=probability,
        unit_name=unit_name,
        metric_name=metric_name,
        higher_is_better=higher_is_better,
        fewest_groups=FEWEST_GROUPS,
    )
    with written_whole(Path(path)) as aside:
        aside.write_text(html, encoding="utf-8")


def _template() -> Template:
    return Environment(
        loader=PackageLoader("medseg.evaluation", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    ).get_template("report.html.j2")


def _overall(summary: Sequence[Summary]) -> list[Summary]:
    """Return the headline figures: over all structures, or of the only one."""
    over_all = [s for s in summary if s.structure == ALL_STRUCTURES]
    named = {s.label for s in over_all}
    return over_all + [s for s in summary if s.label not in named]


def _by_structure(summary: Sequence[Summary]) -> dict[str, list[Summary]]:
    parts: dict[str, list[Summary]] = {}
    for row in summary:
        parts.setdefault(row.structure, []).append(row)
    return parts


def _sentences(overall: Sequence[Summary], records: Sequence[Record]) -> list[str]:
    """Return what the report says, in words."""
    if not overall:
        return ["Nothing was evaluated."]
    cases, groups = ({getattr(r, of) for r in records} for of in ("case", "group"))
    where = _count(len(cases), "case")
    if len(groups) != len(cases):
        where += f" from {_count(len(groups), 'group')}"
    sentences = [f"{where} {'was' if len(cases) == 1 else 'were'} compared with the ground truth."]
    notes = dict.fromkeys(s.note for s in overall if s.note)
    sentences.extend(f"{note[0].upper()}{note[1:]}." for note in notes)
    ignored = sum({r.case: r.ignored_voxels for r in records}.values())
    if ignored:
        sentences.append(f"{ignored:,} voxels are marked as not to be judged and were left out.")
    return sentences


def _names(cases: Sequence[ReportCase], comparison: Comparison | None) -> tuple[str, ...]:
    """Return what the lines beside the ground truth are."""
    if comparison is None:
        return ("prediction",)
    second = any(case.other is not None for case in cases)
    return comparison.names[: 2 if second else 1]


def _within(value: MeanWithin) -> str:
    """Return a share with its interval, e.g. ``0.912 (0.890 to 0.931)``."""
    text = number(value.mean, "1")
    if value.low is None:
        return text
    return f"{text} ({number(value.low, '1')} to {number(value.high, '1')})"


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"


def _failures(records: Sequence[Record]) -> list[tuple[str, int, list[str], int]]:
    """Return each kind of failure: how often, where, and how many places are not listed."""
    found: dict[Outcome, dict[str, None]] = {}
    for record in records:
        if record.status in FAILURES:
            whole = record.status in ("missing_prediction", "error")
            place = record.case if whole else f"{record.case}: {record.structure}"
            found.setdefault(record.status, {})[place] = None
    return [
        (STATUS_TEXT[status], len(places), list(places)[:LISTED], max(0, len(places) - LISTED))
        for status, places in found.items()
    ]


def _table(records: Sequence[Record]) -> tuple[list[Column], list[Row]]:
    """Return the table of all cases: a row for each structure of a case, a column a metric."""
    keys = list(dict.fromkeys((r.metric, r.settings, r.unit) for r in records))
    columns = [Column(metric_name(m, s), unit_name(u)) for m, s, u in keys]
    grouped: dict[tuple[str, str, str], dict[tuple[str, str, str], Record]] = {}
    for r in records:
        row = grouped.setdefault((r.case, r.group, r.structure), {})
        row[(r.metric, r.settings, r.unit)] = r
    return columns, [_row(place, values, keys) for place, values in grouped.items()]


def _row(
    place: tuple[str, str, str],
    values: Mapping[tuple[str, str, str], Record],
    keys: Sequence[tuple[str, str, str]],
) -> Row:
    statuses = {record.status for record in values.values()}
    status: Outcome = next((s for s in STATUS_TEXT if s in statuses and s != "ok"), "ok")
    cells = []
    for key in keys:
        record = values.get(key)
        if record is None:
            cells.append(Cell("\N{EN DASH}", None, "not computed"))
        elif record.status == "ok":
            cells.append(Cell(number(record.value, record.unit), record.value))
        else:
            cells.append(Cell("\N{EN DASH}", record.value, value_title(record)))
    text = "" if status == "ok" else STATUS_TEXT[status]
    return Row(*place, text, status in FAILURES, tuple(cells))


def _sections(
    records: Sequence[Record], cases: Sequence[ReportCase]
) -> list[tuple[str, list[Card]]]:
    """Return the cases to show, worst first, under their headings."""
    given = {case.case: case for case in cases}
    picks = pick_by_rank(records, SHOWN)
    if not given.keys() <= {name for names in picks.values() for name in names}:
        picks = pick_by_rank([r for r in records if r.case in given], SHOWN)
    picks = {heading: [n for n in names if n in given] for heading, names in picks.items()}
    number_shown = sum(len(names) for names in picks.values())
    if not number_shown:
        return []
    order = [case.case for case in worst_first(records)]
    _, rows = _table(records)
    limits = {case.grid.unit: band_widths(case.grid)[: len(COLOURS) - 1] for case in cases[::-1]}
    keys = {name: key for key, name in enumerate(n for names in picks.values() for n in names)}

    def card(name: str) -> Card:
        case = given[name]
        borders = border_map(case, limits[case.grid.unit])
        made, first = slices(case, BUDGET // number_shown, borders)
        mine = tuple(row for row in rows if row.case == name)
        return Card(
            key=keys[name],
            case=name,
            group=mine[0].group,
            rank=order.index(name) + 1,
            of=len(order),
            slices=tuple(made),
            first=first,
            predicted=case.prediction is not None,
            shares=borders.shares if borders else (),
            projections=projections(case, borders) if borders else (),
            rows=mine,
        )

    return [(heading, [card(name) for name in names]) for heading, names in picks.items() if names]


def _meanings(summary: Sequence[Summary]) -> list[Meaning]:
    found = {}
    for row in summary:
        found[row.label, row.definition] = Meaning(
            title=metric_name(row.metric, row.settings),
            text=first_line(row.metric),
            better="higher is better" if higher_is_better(row.metric) else "lower is better",
            definition=row.definition,
        )
    return list(found.values())
