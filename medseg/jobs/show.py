"""What a person reads in the terminal when a job has ended."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from medseg.evaluation import Summary
    from medseg.jobs.check import Checked
    from medseg.jobs.compare import Compared
    from medseg.jobs.evaluate import Evaluated
    from medseg.jobs.predict import Predicted
    from medseg.jobs.promote import Promoted
    from medseg.jobs.train import Trained


def show_check(result: "Checked", console: Console) -> None:
    """Show the cases and what is wrong with them."""
    table = Table("", "", title=result.name, title_justify="left", show_header=False)
    for fact, value in result.facts.items():
        table.add_row(fact, value)
    console.print(table)
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    for fault in result.faults:
        console.print(f"error: {fault}", style="red", markup=False, highlight=False)
    if not result.faults:
        console.print("no fault found", style="green")


def show_trained(result: "Trained", console: Console) -> None:
    """Show the scores and where everything is."""
    show_evaluated(result.evaluated, console)
    console.print(f"model    {result.folder / 'model'}", highlight=False)
    console.print(f"MLflow   {result.look}  (run {result.run_id})", highlight=False)
    if result.registered:
        console.print(
            f"version  {result.registered}\n"
            f"         medseg promote {result.registered}   makes it the champion",
            highlight=False,
        )


def show_evaluated(result: "Evaluated", console: Console) -> None:
    """Show the summary and where the report is."""
    console.print(summary_lines(result.summaries))
    console.print(f"report   {result.report}", highlight=False)


def summary_lines(summaries: Iterable["Summary"]) -> Table:
    """Return the summary as a table."""
    table = Table("structure", "metric", "mean", "95 % interval", "median", "failures")
    for row in summaries:
        unit = "" if row.unit == "1" else f" {row.unit}"
        interval = (
            f"{row.low:.3f} to {row.high:.3f}"
            if row.low is not None and row.high is not None
            else "-"
        )
        failures = row.n_missed + row.n_false + row.n_error
        table.add_row(
            row.structure,
            row.label,
            "-" if row.mean is None else f"{row.mean:.4f}{unit}",
            interval,
            "-" if row.median is None else f"{row.median:.4f}",
            str(failures or "-"),
        )
    return table


def show_predicted(result: "Predicted", output: Path, console: Console) -> None:
    """Show how many images were labelled and where the labels are."""
    console.print(f"{len(result.written)} label maps in {output}", highlight=False)
    if result.failed:
        console.print(f"{len(result.failed)} image(s) left out, see above", style="yellow")


def show_compared(result: "Compared", console: Console) -> None:
    """Show each pair's difference and the verdict."""
    table = Table(
        "structure", "metric", "first", "second", "difference", "95 % interval", "verdict"
    )
    for pair in result.comparison.pairs:
        known = pair.low is not None and pair.high is not None
        table.add_row(
            pair.structure,
            f"{pair.metric} ({pair.settings})" if pair.settings else pair.metric,
            f"{pair.first} {pair.mean_first:.4f}",
            f"{pair.second} {pair.mean_second:.4f}",
            f"{pair.difference:+.4f}",
            f"{pair.low:+.4f} to {pair.high:+.4f}" if known else "-",
            f"{pair.better} is better" if pair.better else (pair.note or "no difference shown"),
        )
    console.print(table)
    console.print(f"tables   {result.folder}", highlight=False)


def show_promoted(result: "Promoted", console: Console) -> None:
    """Show which version the alias means now."""
    console.print(f"models:/{result.name}@{result.alias} is version {result.version}")
    if result.previous:
        console.print(f"version {result.previous} is kept as rollback")
