"""What a person reads in the terminal when a job has ended."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from medseg.doctor import Finding
    from medseg.evaluation import Summary
    from medseg.jobs.check import Checked
    from medseg.jobs.compare import Compared
    from medseg.jobs.crossval import CrossValidated
    from medseg.jobs.evaluate import Evaluated
    from medseg.jobs.learning_curve import Learned
    from medseg.jobs.predict import Predicted
    from medseg.jobs.promote import Promoted
    from medseg.jobs.train import Trained

ACROSS = 5  # metrics that fit side by side
LISTED = 8  # cases that are named before the rest is counted
STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def show_check(result: "Checked", console: Console) -> None:
    """Show the cases and what is wrong with them, equal faults of several cases together."""
    table = Table("", "", title=result.name, title_justify="left", show_header=False)
    for fact, value in result.facts.items():
        table.add_row(fact, value)
    console.print(table)
    together: dict[tuple[str, str, str], list[Finding]] = {}
    for one in result.findings:
        together.setdefault((one.severity, one.check, one.remedy), []).append(one)
    if together:
        found = Table("", "found", "what to do", show_lines=True)
        for (severity, check, remedy), same in together.items():
            what = Text(f"{severity}\n{check}", style=STYLES[severity])
            found.add_row(what, Text(_found(same)), Text(remedy))
        console.print(found)
    counts = Counter(one.severity for one in result.findings)
    said = [f"{n} {severity}{'s' if n > 1 else ''}" for severity, n in counts.items()]
    style = "red" if counts["error"] else "yellow" if counts["warning"] else "green"
    console.print(", ".join(said) if counts["error"] else ", ".join(["no fault found", *said]),
                  style=style, highlight=False)  # fmt: skip
    if result.report:
        console.print(f"report   {result.report}", highlight=False, soft_wrap=True)


def _found(same: "list[Finding]") -> str:
    """Return what was found in one case as an example, and in which others."""
    first = same[0]
    text = f"{first.case}: {first.found}" if first.case else first.found
    if first.expected:
        text += f"\nexpected: {first.expected}"
    if len(same) == 1:
        return text
    others = list(dict.fromkeys(one.case or one.found for one in same if one.case != first.case))
    if not others:
        return "\n".join([text, *(one.found for one in same[1:])])
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    return f"{text}\nlikewise {', '.join(others[:LISTED])}{more}"


def show_trained(result: "Trained", console: Console) -> None:
    """Show the scores and where everything is."""
    show_evaluated(result.evaluated, console)
    _show_model(result.folder / "model", result.look, result.registered, console)


def show_crossval(result: "CrossValidated", console: Console) -> None:
    """Show each fold by the job's first metric, all held-out cases together, and the ensemble."""
    headlines = {one.number: one.result["test"]["summary"][0] for one in result.folds}
    first = next(iter(headlines.values()))
    score = f"{first['metric']}, {first['structure']}"
    table = Table("fold", "train", "validate", "held out", score)
    for one in result.folds:
        sizes = (len(part) for part in one.split.names.values())
        mean = headlines[one.number]["mean"]
        cells = [*map(str, (one.number, *sizes)), "-" if mean is None else f"{mean:.4g}"]
        table.add_row(*cells)
    console.print(table)
    if result.evaluated is None:
        console.print(f"still to train: fold {', '.join(map(str, result.missing))}")
        return
    show_evaluated(result.evaluated, console)
    if result.untouched:
        console.print(
            f"for the end, in no fold: {', '.join(result.untouched)}", highlight=False, markup=False
        )
    _show_model(result.folder / "model", result.look, result.registered, console)


def show_learned(result: "Learned", console: Console) -> None:
    """Show the scores by the number of training cases, and what follows from them."""
    steps = result.as_json["steps"]
    table = Table("training groups", "cases", result.curve.last.metric)
    for step, score in zip(steps, result.curve.scores.values(), strict=True):
        table.add_row(str(step["groups"]), str(step["cases"]), _mean(score))
    console.print(table)
    console.print(f"judged on {result.judged}, with 95 % intervals over the groups")
    console.print(result.curve.advice, highlight=False, markup=False, soft_wrap=True)
    console.print(f"curve    {result.folder / 'curve.png'}", highlight=False, soft_wrap=True)
    console.print(f"MLflow   {result.look}", highlight=False, soft_wrap=True)


def _show_model(model: Path, look: str, registered: str | None, console: Console) -> None:
    console.print(f"model    {model}", highlight=False, soft_wrap=True)
    console.print(f"MLflow   {look}", highlight=False, soft_wrap=True)
    if registered:
        console.print(
            f"version  {registered}\n         medseg promote {registered}   makes it the champion",
            highlight=False,
        )


def show_evaluated(result: "Evaluated", console: Console) -> None:
    """Show the summary and where the report is."""
    console.print(summary_lines(result.summaries))
    console.print("means over the cases, with 95 % intervals over the groups", highlight=False)
    console.print(f"report   {result.report}", highlight=False, soft_wrap=True)


def summary_lines(summaries: Iterable["Summary"]) -> Table:
    """Return the means with their intervals, a row a structure and a column a metric.

    Many metrics of few structures stand the other way round, or they would not fit.
    """
    rows: dict[str, dict[str, str]] = {}
    failures: dict[str, int] = {}
    for one in summaries:
        unit = "" if one.unit == "1" else f" ({one.unit})"
        settings = f"\n{one.settings}" if one.settings else ""
        rows.setdefault(one.structure, {})[f"{one.metric}{unit}{settings}"] = _mean(one)
        failures[one.structure] = one.n_missed + one.n_false + one.n_error
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    if len(metrics) > max(ACROSS, len(rows)):
        table = Table("metric", *rows)
        for metric in metrics:
            table.add_row(metric, *(row.get(metric, "-") for row in rows.values()))
        table.add_row("failures", *(str(failures[structure] or "none") for structure in rows))
        return table
    table = Table("structure", *metrics, "failures")
    for structure, row in rows.items():
        cells = [row.get(metric, "-") for metric in metrics]
        table.add_row(structure, *cells, str(failures[structure] or "none"))
    return table


def _mean(summary: "Summary") -> str:
    if summary.mean is None:
        return "-"
    if summary.low is None or summary.high is None:
        return f"{summary.mean:.4g}"
    return f"{summary.mean:.4g}\n{summary.low:.3g} to {summary.high:.3g}"


def show_predicted(result: "Predicted", output: Path, console: Console) -> None:
    """Show how many images were labelled and where the labels are."""
    console.print(f"{len(result.written)} label maps in {output}", highlight=False)
    if result.failed:
        console.print(f"{len(result.failed)} image(s) left out, see above", style="yellow")


def show_compared(result: "Compared", console: Console) -> None:
    """Show what the comparison found, a sentence for each pair and metric."""
    for sentence in result.comparison.verdicts():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report   {result.folder / 'report.html'}", highlight=False, soft_wrap=True)


def show_promoted(result: "Promoted", console: Console) -> None:
    """Show which version the alias means now."""
    console.print(f"models:/{result.name}@{result.alias} is version {result.version}")
    if result.previous:
        console.print(f"version {result.previous} is kept as rollback")
