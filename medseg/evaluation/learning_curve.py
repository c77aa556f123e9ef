"""What more labels would bring: the scores of trainings on more and more cases, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.evaluation.comparison import Paired, compare
from medseg.evaluation.records import Record
from medseg.evaluation.summary import ALL_STRUCTURES, Summary, summarise
from medseg.evaluation.wording import higher_is_better, metric_name, number, signed, unit_name

WORTH = 0.01  # A gain below this part of the score is not worth the drawing: our choice.


@dataclass(frozen=True)
class LearningCurve:
    """One score of trainings on growing training sets, judged on the same cases.

    Args:
        scores: The score by the number of training cases, ascending.
        last: The two largest trainings compared, case by case.
    """

    scores: Mapping[int, Summary]
    last: Paired

    @property
    def advice(self) -> str:
        """One sentence: whether more labels would help, with the numbers behind it."""
        pair = self.last
        fewer, more = list(self.scores)[-2:]
        name, unit = metric_name(pair.metric, pair.settings), unit_name(pair.unit)
        means = [number(mean, pair.unit) for mean in (pair.mean_first, pair.mean_second)]
        step = f"from {fewer} to {more} training cases, {name} went from {' to '.join(means)}"
        step = f"{step} {unit}".strip()
        if pair.low is None or pair.high is None:
            return (
                f"These {pair.n_groups} groups are too few to tell whether more labels would help: "
                f"{step}, and there is no interval."
            )
        ends = f"{signed(pair.low, pair.unit)} to {signed(pair.high, pair.unit)}"
        found = f"{step} (95 % interval of the change {ends}, {pair.n} cases)"
        low, high = sorted(self._sign * end for end in (pair.low, pair.high))
        worth = WORTH * abs(pair.mean_second)
        if high < worth:
            return f"Labels are no longer what limits: {found}, less than {100 * WORTH:g} % better."
        if low > 0:
            return f"More labels would help: {found}."
        return f"These cases cannot tell whether more labels would help: {found}."

    @property
    def _sign(self) -> float:
        return 1.0 if higher_is_better(self.last.metric) else -1.0


def learning_curve(tables: Mapping[int, Sequence[Record]]) -> LearningCurve:
    """Return the curve of the first metric, over all structures or of the only one.

    Args:
        tables: Records of the same cases, by the number of cases that the model was trained on,
            ascending.

    Raises:
        ValueError: There are fewer than two.
        MedsegError: They do not judge the same cases, or not alike.
    """
    if len(tables) < 2:
        raise ValueError(f"a learning curve needs two trainings or more, got {len(tables)}")
    scores = {cases: _headline(records) for cases, records in tables.items()}
    fewer, more = list(tables)[-2:]
    comparison = compare({str(fewer): tables[fewer], str(more): tables[more]})
    return LearningCurve(scores, comparison.headlines[0])


def _headline(records: Sequence[Record]) -> Summary:
    first = records[0]
    same = [r for r in records if (r.metric, r.settings) == (first.metric, first.settings)]
    summaries = summarise(same)
    return next((s for s in summaries if s.structure == ALL_STRUCTURES), summaries[0])


def curve_png(curve: LearningCurve, *, judged: str) -> bytes:
    """Return the curve as a picture: score by training cases, with intervals over the groups.

    Args:
        curve: The curve.
        judged: Which cases were judged, e.g. ``12 test cases``.
    """
    cases = list(curve.scores)
    means = [float("nan") if s.mean is None else s.mean for s in curve.scores.values()]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(cases, means, "o-", color="#1f6fb4")
    for at, s in curve.scores.items():
        if s.low is not None and s.high is not None:
            axes.plot([at, at], [s.low, s.high], color="#1f6fb4", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(cases, [str(at) for at in cases])
    axes.minorticks_off()
    last = curve.last
    unit = f" ({unit_name(last.unit)})" if unit_name(last.unit) else ""
    axes.set_xlabel("training cases")
    axes.set_ylabel(f"{metric_name(last.metric, last.settings)}{unit}")
    axes.set_title(f"{last.structure}, {judged}", fontsize="medium")
    axes.grid(alpha=0.3)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()
