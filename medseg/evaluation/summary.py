"""What all cases say together: means with intervals, and every failure counted.

A missed structure has no border distance. Tools that leave such cases out report a better mean the
more structures are missed; here they count with the worst possible value, and the mean without
them stands beside it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from medseg.evaluation.intervals import FEWEST_GROUPS, RESAMPLES, interval
from medseg.evaluation.records import Outcome, Record
from medseg.evaluation.wording import higher_is_better

ALL_STRUCTURES = "all structures"
FEW_GROUPS = 10


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over all cases.

    Args:
        structure: The structure, or ``all structures``: the mean over the structures of each case.
        metric: Name of the metric.
        settings: Its settings, e.g. ``tolerance=2 mm``.
        unit: Unit of all the values below.
        definition: How the metric was computed.
        n: Cases that count in ``mean``: all but those where both masks are empty (and failures of
            a metric without a worst value; the note says so).
        n_groups: Groups (e.g. patients) that those cases come from.
        n_ok: Cases in which there was something to compare.
        n_missed: The reference holds the structure, the prediction doesn't, or isn't there.
        n_false: The prediction holds the structure, the reference doesn't.
        n_both_empty: Nothing to find and nothing found; no value.
        n_error: The prediction could not be used.
        mean: Mean over ``n`` cases; failures count with the worst value.
        mean_ok: Mean over the ``n_ok`` cases alone.
        median: Middle value of the ``n`` cases.
        sd: Their standard deviation (n - 1).
        minimum: The lowest value.
        maximum: The highest value.
        low: Lower end of the 95 % interval of ``mean``, resampling groups.
        high: Upper end.
        note: What a reader must know, e.g. why there is no interval.

    For all structures the counts are of structures in cases, not of cases.
    """

    structure: str
    metric: str
    settings: str
    unit: str
    definition: str
    n: int
    n_groups: int
    n_ok: int
    n_missed: int
    n_false: int
    n_both_empty: int
    n_error: int
    mean: float | None
    mean_ok: float | None
    median: float | None
    sd: float | None
    minimum: float | None
    maximum: float | None
    low: float | None
    high: float | None
    note: str = ""

    @property
    def label(self) -> str:
        """The metric with its settings, e.g. ``nsd (tolerance=2 mm)``."""
        return f"{self.metric} ({self.settings})" if self.settings else self.metric


@dataclass(frozen=True)
class CaseValue:
    """The value of one case in a summary, and the mean of what could be compared in it."""

    case: str
    group: str
    value: float
    value_ok: float | None


def summarise(
    records: Sequence[Record], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Summary]:
    """Return a summary for each metric and structure, and for all structures where several are.

    Args:
        records: Records of all cases. Values in different units (cases with and without a known
            pixel size) are never mixed: each unit gets its own summaries.
        resamples: Resamples of the groups for the intervals.
        seed: The same seed gives the same intervals.

    Raises:
        ValueError: A case has two values of the same metric and structure.
    """
    check_unique(records)
    summaries = []
    for rows in _split(records, _measured).values():
        parts = _split(rows, lambda record: (record.structure,))
        named = {structure: part for (structure,), part in parts.items()}
        if len(named) > 1:
            named = {ALL_STRUCTURES: list(rows), **named}
        for structure, part in named.items():
            summaries.append(_summarise(structure, part, resamples, seed))
    return summaries


def check_unique(records: Iterable[Record]) -> None:
    """Refuse records that judge the same structure of a case twice by the same metric.

    Raises:
        ValueError: Two records agree in case, structure, metric and settings.
    """
    seen = Counter((r.case, r.structure, r.label) for r in records)
    twice = [", ".join(key) for key, number in seen.items() if number > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} values are there twice, the first is {twice[0]}; give every case its "
            f"own name, and evaluate it once"
        )


def case_values(records: Iterable[Record]) -> list[CaseValue]:
    """Return the mean over the structures of each case, in the order of the cases.

    Cases where nothing was to be found and nothing was found have no value and are left out.
    """
    values = []
    for (case, group), rows in _split(records, lambda r: (r.case, r.group)).items():
        counted = [r.value for r in rows if r.value is not None]
        fine = [r.value for r in rows if r.value is not None and r.status == "ok"]
        if counted:
            mean_ok = float(np.mean(fine)) if fine else None
            values.append(CaseValue(case, group, float(np.mean(counted)), mean_ok))
    return values


def _measured(record: Record) -> tuple[str, ...]:
    return record.metric, record.settings, record.unit, record.definition


def _split(records: Iterable[Record], key: Any) -> dict[tuple[str, ...], list[Record]]:
    parts: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        parts.setdefault(key(record), []).append(record)
    return parts


def _summarise(structure: str, records: Sequence[Record], resamples: int, seed: int) -> Summary:
    cases = case_values(records)
    values = np.array([case.value for case in cases])
    fine = [case.value_ok for case in cases if case.value_ok is not None]
    groups = [case.group for case in cases]
    found = interval(groups, values, resamples=resamples, seed=seed) if cases else None
    count = Counter[Outcome](record.status for record in records)
    some = bool(cases)
    return Summary(
        structure=structure,
        metric=records[0].metric,
        settings=records[0].settings,
        unit=records[0].unit,
        definition=records[0].definition,
        n=len(cases),
        n_groups=len(set(groups)),
        n_ok=count["ok"],
        n_missed=count["empty_prediction"] + count["missing_prediction"],
        n_false=count["empty_reference"],
        n_both_empty=count["both_empty"],
        n_error=count["error"],
        mean=float(values.mean()) if some else None,
        mean_ok=float(np.mean(fine)) if fine else None,
        median=float(np.median(values)) if some else None,
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        minimum=float(values.min()) if some else None,
        maximum=float(values.max()) if some else None,
        low=found[0] if found else None,
        high=found[1] if found else None,
        note=_note(len(cases), len(set(groups)), sum(r.uncounted for r in records)),
    )


def _note(cases: int, groups: int, uncounted: int) -> str:
    notes = []
    if not cases:
        notes.append("no case holds this structure")
    elif groups < FEWEST_GROUPS:
        what = "1 group" if groups == 1 else f"{groups} groups"
        notes.append(f"no interval: {what}, at least {FEWEST_GROUPS} are needed")
    elif groups < FEW_GROUPS:
        notes.append(f"the interval is rough: only {groups} groups")
    if uncounted:
        what = "1 failure does" if uncounted == 1 else f"{uncounted} failures do"
        notes.append(f"{what} not count: this metric has no worst value")
    return "; ".join(notes)


def summary_table(summaries: Iterable[Summary]) -> pd.DataFrame:
    """Return the summaries as a table, one row each."""
    rows = [asdict(summary) for summary in summaries]
    return pd.DataFrame(rows, columns=[field.name for field in fields(Summary)])


def summary_json(summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    """Return the summaries as plain values for JSON: finite numbers, texts and null."""
    return [asdict(summary) for summary in summaries]


def worst_first(records: Sequence[Record]) -> list[CaseValue]:
    """Return the cases from the worst to the best, by the first metric of the records.

    A case counts with the mean over its structures; cases without a value are left out.
    """
    if not records:
        return []
    first = records[0]
    same = [r for r in records if (r.metric, r.settings) == (first.metric, first.settings)]
    values = case_values(same)
    return sorted(values, key=lambda case: case.value, reverse=not higher_is_better(first.metric))


def pick_cases(records: Sequence[Record], count: int = 12) -> list[str]:
    """Return the cases to show in a report: half of them the worst, then median and best ones.

    Args:
        records: Records of all cases.
        count: How many to show at most.
    """
    return [case for cases in pick_by_rank(records, count).values() for case in cases]


def pick_by_rank(records: Sequence[Record], count: int = 12) -> dict[str, list[str]]:
    """Return the cases to show as ``worst``, ``median`` and ``best``; as ``all`` if all fit.

    Each list starts with its worst case.
    """
    names = [case.case for case in worst_first(records)]
    if len(names) <= count:
        return {"all": names}
    best = count // 4
    worst = count - 2 * best
    between = names[worst : len(names) - best]
    start = (len(between) - best) // 2
    return {
        "worst": names[:worst],
        "median": between[start : start + best],
        "best": names[len(names) - best :],
    }
