"""Evaluate what every tool predicted by ``medseg evaluate``, and write one page of Markdown.

    python benchmarks/peers/table.py JOB OUT... --output benchmarks/results/peers_nuclei.md

Runs in medseg's environment. ``--kinds cases.csv:kind`` gives each kind of image its own table:
a CSV file with a column ``case``, and the column that names the kind.
"""

import argparse
import csv
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import cases_of, read_job
from medseg.evaluation import Record, Summary, read_table, summarise
from medseg.jobs.parts import split_of

METRICS = {
    "instance": (
        "average_precision",
        "mean_average_precision",
        "panoptic_quality",
        "instance_f1",
    ),
    "semantic": ("dice", "hd95"),
}
ALL = "all images"
DIGITS = {"1": 3}  # of metrics without a unit; lengths have two
PARTS = ("preprocessing", "training", "tuning", "prediction", "rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="that of export.py")
    parser.add_argument("outs", nargs="+", type=Path, help="what the tools' scripts made")
    parser.add_argument("--metric", action="append", help="default: by the kind of the labels")
    parser.add_argument("--kinds", help="FILE.csv:COLUMN")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    job, card, card_file = read_job(given.job)
    split = split_of(job, card, cases_of(card, card_file, None), given.job)
    runs = [json.loads((out / "run.json").read_text()) for out in given.outs]
    for out, run in zip(given.outs, runs, strict=True):
        if run["split_hash"] != split.hash:
            raise SystemExit(f"{out}: was made on another split than the job's")
    metrics = given.metric or METRICS[card.kind]
    cases = split.names["test"]
    records = [evaluated(out, card_file, metrics, cases) for out in given.outs]
    parts = [HEAD.format(name=card.name, job=given.job, cases=len(cases), **facts(runs))]
    for kind, members in kinds_of(given.kinds, cases).items():
        of_kind = [[r for r in rows if r.case in members] for rows in records]
        parts.append(f"## {kind.capitalize()} ({len(members)})\n\n{scores(runs, of_kind)}")
    parts += [f"## Cost\n\n{costs(runs)}", f"## What was changed\n\n{changes(runs)}"]
    given.output.write_text("\n".join(parts), encoding="utf-8")


def evaluated(out: Path, card: Path, metrics: Sequence[str], cases: Sequence[str]) -> list[Record]:
    """Return the records of ``medseg evaluate`` for one tool's predictions of the test cases."""
    command = ["medseg", "evaluate", str(out / "predictions"), "--card", str(card), "--json"]
    command += ["-o", str(out / "evaluation"), "--cases", ",".join(cases)]
    for metric in metrics:
        command += ["--metric", metric]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_table(out / "evaluation" / "records.csv")


def kinds_of(table: str | None, cases: Sequence[str]) -> dict[str, list[str]]:
    """Return the test cases together, and those of each kind."""
    kinds = {ALL: list(cases)}
    if table:
        file, _, column = table.rpartition(":")
        with Path(file).open(encoding="utf-8") as stream:
            kind = {row["case"]: row[column] for row in csv.DictReader(stream)}
        for case in cases:
            kinds.setdefault(kind[case], []).append(case)
    return kinds


def scores(runs: Sequence[dict[str, Any]], records: Sequence[Sequence[Record]]) -> str:
    """Return a table of means with their intervals, one row a tool."""
    summaries = [{(s.label, s.structure): s for s in summarise(rows)} for rows in records]
    columns = list(summaries[0])
    several = len({structure for _, structure in columns}) > 1
    titles = [f"{label}, {structure}" if several else label for label, structure in columns]
    rows = [
        [named(run), *(value(found[column]) for column in columns)]
        for run, found in zip(runs, summaries, strict=True)
    ]
    return markdown(["tool", *titles], rows)


def value(summary: Summary) -> str:
    digits = DIGITS.get(summary.unit, 2)
    unit = "" if summary.unit == "1" else f" {summary.unit}"
    if summary.mean is None:
        return "-"
    if summary.low is None or summary.high is None:
        return f"{summary.mean:.{digits}f}{unit}"
    between = f"{summary.low:.{digits}f} to {summary.high:.{digits}f}"
    return f"{summary.mean:.{digits}f}{unit} ({between})"


def costs(runs: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            named(run),
            str(run["steps"]),
            *(str(run["seconds"].get(part, "-")) for part in PARTS),
            str(run["peak_mb"]),
        ]
        for run in runs
    ]
    return markdown(["tool", "steps", *(f"{part}, s" for part in PARTS), "peak, MB"], rows)


def changes(runs: Sequence[dict[str, Any]]) -> str:
    return "".join(
        f"* {named(run)} ({', '.join(f'{k} {v}' for k, v in run['versions'].items())}): "
        f"{'; '.join(run['changed']) or 'nothing'}. {json.dumps(run['plan'])}\n"
        for run in runs
    )


def facts(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the budget and the cores, which all runs must share."""
    shared = {(run["budget_s"], run["clock"], run["cores"]) for run in runs}
    if len(shared) > 1:
        raise SystemExit(f"the runs differ in budget or cores: {sorted(shared)}")
    ((budget, clock, cores),) = shared
    kind = {"wall": "wall time", "cpu": "processor time"}[clock]
    return {"budget": f"{budget:g} s of {kind}", "cores": str(cores)}


def named(run: dict[str, Any]) -> str:
    return f"{run['tool']} {next(iter(run['versions'].values()))}"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


HEAD = """# medseg and its peers: {name}

`benchmarks/peers`, job `{job}`: the same training, validation and test cases ({cases}) for all,
{budget} for training on {cores} core(s), no pretrained weights; scored by
`medseg evaluate`. Brackets are 95 % intervals. A case without a prediction counts as the worst.
"""

if __name__ == "__main__":
    main()
