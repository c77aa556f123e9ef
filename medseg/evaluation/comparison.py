"""Compare predictions of the same cases: by how much, how surely, and in which order.

Every case is its own control: differences are taken case by case, so that hard cases do not drown
them. Patients, not slices, are resampled and tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from medseg.errors import MedsegError
from medseg.evaluation.intervals import (
    FEWEST_GROUPS,
    RESAMPLES,
    group_totals,
    interval,
    resampled_means,
)
from medseg.evaluation.records import Record
from medseg.evaluation.summary import ALL_STRUCTURES, check_unique
from medseg.evaluation.wording import (
    higher_is_better,
    metric_name,
    number,
    probability,
    signed,
    unit_name,
)
from medseg.metrics import METRICS

LEVEL = 0.05
FEWEST_TO_TEST = 6
_LISTED = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CaseDifference:
    """What one case says about two predictions: ``second`` minus ``first``."""

    case: str
    group: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """``second`` minus ``first``, in the metric's unit."""
        return round(self.second - self.first, 12)  # 0.3 - 0.1 - 0.2 is no difference


@dataclass(frozen=True)
class Paired:
    """Two predictions compared by one metric of one structure.

    Args:
        structure: The structure, or ``all structures``.
        metric: Name of the metric.
        settings: Its settings.
        unit: Unit of all values.
        first: Name of the one.
        second: Name of the other.
        n: Cases with a value in both.
        n_groups: Groups that they come from.
        mean_first: Mean over the cases; failures count with the worst value.
        mean_second: The same of the other.
        difference: ``mean_second - mean_first``.
        low: Lower end of the 95 % interval of the difference, resampling groups.
        high: Upper end.
        p: Of Wilcoxon's signed-rank test on the mean difference of each group.
        p_holm: The same, corrected (Holm) for the tests of its family: those over all structures,
            of all metrics and pairs, are one; those of single structures are another, so that
            listing many organs does not blur the main question.
        better: Name of the better one, if ``p_holm`` is below 0.05; else nothing.
        note: What a reader must know, e.g. why there is no test.
        cases: The cases, one by one.
    """

    structure: str
    metric: str
    settings: str
    unit: str
    first: str
    second: str
    n: int
    n_groups: int
    mean_first: float
    mean_second: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    better: str
    note: str
    cases: tuple[CaseDifference, ...]


@dataclass(frozen=True)
class Ranked:
    """One prediction in the order by one metric.

    Args:
        metric: Name of the metric.
        settings: Its settings.
        unit: Unit of the mean.
        name: Name of the prediction.
        rank: Its rank, 1 is best.
        mean: Its mean over the cases (over all structures, where several are).
        share_first: In which share of the resamples it comes first (ties share); None with
            fewer than three groups, as the next two.
        rank_low: Best rank within the middle 95 % of the resamples.
        rank_high: Worst rank within them.
    """

    metric: str
    settings: str
    unit: str
    name: str
    rank: int
    mean: float
    share_first: float | None
    rank_low: int | None
    rank_high: int | None


@dataclass(frozen=True)
class Comparison:
    """Predictions of the same cases compared with each other.

    Args:
        names: What is compared.
        pairs: Each two of them, by metric and structure.
        ranking: Their order by each metric.
    """

    names: tuple[str, ...]
    pairs: tuple[Paired, ...]
    ranking: tuple[Ranked, ...]

    @property
    def headlines(self) -> tuple[Paired, ...]:
        """The pairs over all structures, or of the only one."""
        return tuple(p for p, main in zip(self.pairs, _main(self.pairs), strict=True) if main)

    @property
    def tests(self) -> tuple[int, int]:
        """How many tests the p of the headlines, and those of single structures, stand among."""
        main = sum(pair.p is not None for pair in self.headlines)
        return main, sum(pair.p is not None for pair in self.pairs) - main

    def verdicts(self) -> list[str]:
        """Return in words what the comparison shows, a sentence for each pair and metric."""
        return [_sentence(pair) for pair in self.headlines]


def compare(
    tables: Mapping[str, Sequence[Record]], *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare the records of two or more predictions of the same cases.

    Failures count with the worst value. Where a case holds nothing to find and only some
    predictions found nothing, those count with the best value: leaving the case out would hide
    what the others invented. Failures of metrics without a worst value (a number of splits) are
    left out for all.

    Args:
        tables: Records by name of the prediction (a run, a model, a folder).
        resamples: Resamples of the groups for intervals and ranks.
        seed: The same seed gives the same result.

    Raises:
        MedsegError: Fewer than two are given, or they differ in cases, structures, groups, grids
            or definitions; the message lists what differs.
    """
    if len(tables) < 2:
        raise MedsegError(f"a comparison needs two tables of records or more, got {len(tables)}")
    for records in tables.values():
        check_unique(records)
    _check_comparable(tables)
    pairs: list[Paired] = []
    ranking: list[Ranked] = []
    for metric, settings, unit in dict.fromkeys(_metric(r) for r in next(iter(tables.values()))):
        same = {
            name: [r for r in records if _metric(r) == (metric, settings, unit)]
            for name, records in tables.items()
        }
        parts = _values(same)
        if not parts:
            continue
        what = (metric, settings, unit)
        for structure, values in parts.items():
            pairs.extend(_pair(what, structure, values, ab, resamples, seed)
                         for ab in combinations(tables, 2))  # fmt: skip
        ranking.extend(_rank(what, next(iter(parts.values())), resamples, seed))
    return Comparison(tuple(tables), _corrected(pairs), tuple(ranking))


@dataclass(frozen=True, eq=False)
class _Values:
    """Values of several predictions on the same cases, (cases, predictions)."""

    names: tuple[str, ...]
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    values: Floats


def _metric(record: Record) -> tuple[str, str, str]:
    return record.metric, record.settings, record.unit


def _values(same: Mapping[str, Sequence[Record]]) -> dict[str, _Values]:
    """Return the values of each structure, before them those of all structures if several."""
    names = tuple(same)
    first = same[names[0]]
    best = METRICS.facts(first[0].metric)["best"]
    lookup = [{(r.case, r.structure): r for r in same[name]} for name in names]
    parts: dict[str, dict[str, list[float]]] = {}
    for record in first:
        found = [records[record.case, record.structure] for records in lookup]
        if all(r.status == "both_empty" for r in found) or any(r.uncounted for r in found):
            continue
        filled = [best if r.value is None else r.value for r in found]
        parts.setdefault(record.structure, {})[record.case] = filled
    if len(parts) > 1:
        together: dict[str, list[list[float]]] = {}
        for cases in parts.values():
            for case, row in cases.items():
                together.setdefault(case, []).append(row)
        means = {case: np.mean(rows, axis=0).tolist() for case, rows in together.items()}
        parts = {ALL_STRUCTURES: means, **parts}
    groups = {r.case: r.group for r in first}
    return {
        structure: _Values(
            names, tuple(cases), tuple(groups[c] for c in cases), np.array(list(cases.values()))
        )
        for structure, cases in parts.items()
    }


def _pair(
    what: tuple[str, str, str],
    structure: str,
    values: _Values,
    names: tuple[str, str],
    resamples: int,
    seed: int,
) -> Paired:
    first, second = (values.values[:, values.names.index(name)] for name in names)
    # Rounded: 0.3 - 0.1 - 0.2 is no difference.
    differences = np.round(second - first, 12)
    found = interval(values.groups, differences, resamples=resamples, seed=seed)
    _, sums, counts = group_totals(values.groups, differences)
    p, note = _test(sums / counts)
    return Paired(
        structure=structure,
        metric=what[0],
        settings=what[1],
        unit=what[2],
        first=names[0],
        second=names[1],
        n=len(values.cases),
        n_groups=len(counts),
        mean_first=float(first.mean()),
        mean_second=float(second.mean()),
        difference=float(differences.mean()),
        low=found[0] if found else None,
        high=found[1] if found else None,
        p=p,
        p_holm=None,
        better="",
        note=note,
        cases=tuple(
            CaseDifference(case, group, float(a), float(b))
            for case, group, a, b in zip(values.cases, values.groups, first, second, strict=True)
        ),
    )


def _test(differences: Floats) -> tuple[float | None, str]:
    """Return p of Wilcoxon's signed-rank test, or why there is none."""
    if len(differences) < FEWEST_TO_TEST:
        return None, f"no test: {len(differences)} groups, at least {FEWEST_TO_TEST} are needed"
    differences = np.round(differences, 12)
    if not differences.any():
        return 1.0, ""
    return float(wilcoxon(differences, zero_method="zsplit").pvalue), ""


def _main(pairs: Sequence[Paired]) -> list[bool]:
    """Tell for each pair whether it is over all structures, or of the only one."""
    several = {(p.metric, p.settings) for p in pairs if p.structure == ALL_STRUCTURES}
    return [p.structure == ALL_STRUCTURES or (p.metric, p.settings) not in several for p in pairs]


def _corrected(pairs: Sequence[Paired]) -> tuple[Paired, ...]:
    """Return the pairs with corrected p and the verdict."""
    corrected: dict[int, float] = {}
    main = _main(pairs)
    for family in (True, False):
        tested = {
            i: pair.p for i, pair in enumerate(pairs) if main[i] is family and pair.p is not None
        }
        corrected.update(_holm(tested))
    return tuple(
        replace(pair, p_holm=corrected.get(i), better=_verdict(pair, corrected.get(i)))
        for i, pair in enumerate(pairs)
    )


def _holm(tested: Mapping[int, float]) -> dict[int, float]:
    """Return p values corrected for each other (Holm, Scand. J. Stat. 6 (1979) 65-70)."""
    corrected: dict[int, float] = {}
    highest = 0.0
    for position, (i, p) in enumerate(sorted(tested.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(tested) - position)))
        corrected[i] = highest
    return corrected


def _verdict(pair: Paired, p: float | None) -> str:
    """Return the better one, if test and interval agree that there is one."""
    if p is None or p >= LEVEL or pair.low is None or pair.high is None:
        return ""
    if pair.low <= 0 <= pair.high:
        return ""
    return pair.second if (pair.low > 0) == higher_is_better(pair.metric) else pair.first


def _sentence(pair: Paired) -> str:
    metric, unit = metric_name(pair.metric, pair.settings), unit_name(pair.unit)
    size = f"{number(abs(pair.difference), pair.unit)} {unit}".strip()
    if pair.better:
        other = pair.first if pair.better == pair.second else pair.second
        found = f"{pair.better} is better than {other} by {size}"
    else:
        found = f"no difference shown between {pair.first} and {pair.second}"
    means = f"{number(pair.mean_first, pair.unit)} and {number(pair.mean_second, pair.unit)} {unit}"
    details = [f"means {means}".strip()]
    if pair.low is not None:
        ends = f"{signed(pair.low, pair.unit)} to {signed(pair.high, pair.unit)}"
        details.append(f"95 % interval of the difference {ends}")
    if pair.p_holm is None:
        details.append(pair.note)
    else:
        sign = "" if pair.p_holm < 0.001 else "= "
        details.append(f"corrected p {sign}{probability(pair.p_holm)}")
    return f"{metric}: {found} ({', '.join(details)})."


def _rank(what: tuple[str, str, str], values: _Values, resamples: int, seed: int) -> list[Ranked]:
    sign = -1.0 if higher_is_better(what[0]) else 1.0
    means = values.values.mean(axis=0)
    ranks = rankdata(np.round(sign * means, 12), method="min").astype(int)
    stability: list[tuple[float | None, int | None, int | None]] = [(None, None, None)] * len(means)
    if len(set(values.groups)) >= FEWEST_GROUPS:
        redrawn = resampled_means(values.groups, values.values, resamples=resamples, seed=seed)
        drawn = rankdata(np.round(sign * redrawn, 12), method="min", axis=1)
        firsts = drawn == 1
        shares = (firsts / firsts.sum(axis=1, keepdims=True)).mean(axis=0)
        ends = np.quantile(drawn, [0.025, 0.975], axis=0, method="nearest").astype(int)
        stability = [
            (float(shares[i]), int(ends[0, i]), int(ends[1, i])) for i in range(len(means))
        ]
    ranked = [
        Ranked(*what, name, int(ranks[i]), float(means[i]), *stability[i])
        for i, name in enumerate(values.names)
    ]
    return sorted(ranked, key=lambda row: row.rank)


def _check_comparable(tables: Mapping[str, Sequence[Record]]) -> None:
    """Refuse records that differ in anything but their values."""
    aspects: dict[str, tuple[Callable[[Record], str], str]] = {
        "cases": (lambda r: r.case, "evaluate all of them on the same cases"),
        "structures": (lambda r: f"{r.case}: {r.structure}", "evaluate the same structures"),
        "groups": (lambda r: f"{r.case} in {r.group}", "give every case one group"),
        "grids": (_grid, "evaluate all of them on the grid of the same reference"),
        "definitions": (
            lambda r: f"{r.label} in {r.unit} ({r.definition})",
            "evaluate all of them with the same metrics, settings and version",
        ),
        "values": (
            lambda r: f"{r.case}: {r.structure}: {r.label}",
            "evaluate all of them on the same cases with the same metrics",
        ),
    }
    first, *others = tables
    for aspect, (of, remedy) in aspects.items():
        mine = dict.fromkeys(of(r) for r in tables[first])
        for other in others:
            theirs = dict.fromkeys(of(r) for r in tables[other])
            lines = [
                _only(name, [x for x in here if x not in there])
                for name, here, there in ((first, mine, theirs), (other, theirs, mine))
            ]
            if any(lines):
                found = "\n".join(line for line in lines if line)
                raise MedsegError(
                    f"{first} and {other} cannot be compared: they differ in their {aspect}\n"
                    f"{found}\n  {remedy}, then compare again"
                )


def _grid(record: Record) -> str:
    spacing = " x ".join(f"{step:.4g}" for step in reversed(record.spacing))
    return f"{record.case} at {spacing} {record.spacing_unit}"


def _only(name: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"  only in {name} ({len(items)}): {', '.join(items[:_LISTED])}{more}"


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return the pairs as a table, one row each, without the single cases."""
    columns = [field.name for field in fields(Paired) if field.name != "cases"]
    return pd.DataFrame([asdict(pair) for pair in comparison.pairs], columns=columns)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values for JSON: finite numbers, texts and null."""
    return asdict(comparison)
