"""MS-D trained on real membranes: with every backend, and from few slices beside U-Net.

    export MEDSEG_DATA=FOLDER
    python benchmarks/msd_training.py run --runs runs/msd_training
    python benchmarks/msd_training.py table --runs runs/msd_training

The jobs are the bake-off's on membranes, with other settings on the command line. ``run`` trains
one after the other on one core, and leaves out those that have run; ``--only`` takes those whose
names begin so. ``table`` writes ``benchmarks/results/msd_training.md`` and its plot.
"""

import argparse
import json
import os
import resource
import subprocess
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from bakeoff import JOBS, machine, scores_of, torch_version

RESULTS = Path(__file__).parent / "results"
BUDGET = "5m"  # of processor time
BACKENDS = ("cpu", "torch", "reference")
SEEDS = (7, 8)
STEPS = ("train.epochs=15", "train.iterations_per_epoch=10")
SLICES = {2: 8, 4: 4, 8: 2, 16: 1}  # training slices, and the way from one to the next
NETWORKS = {
    "MS-D, 50 layers": {"name": "msd", "preset": "small"},
    "MS-D, 100 layers": {"name": "msd", "depth": 100},
    "U-Net": {"name": "unet", "preset": "small"},
}


class Training(NamedTuple):
    """A run: its name, what differs from the bake-off's job, and whether time ends it."""

    name: str
    settings: dict[str, Any]
    precision: str = "fp32"
    limited: bool = True

    @property
    def command(self) -> list[str]:
        settings = [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]
        limit = ("--time-budget", BUDGET, "--budget-clock", "cpu") if self.limited else STEPS
        return [
            "medseg",
            "train",
            str(JOBS / "isbi2012_msd.yaml"),
            *settings,
            *limit,
            "--precision",
            self.precision,
        ]


def equal_steps(backend: str, seed: int) -> Training:
    network = {**NETWORKS["MS-D, 50 layers"], "backend": backend}
    return Training(
        f"steps_{backend}_{seed}", {"network": network, "train.seed": seed}, limited=False
    )


def equal_time(backend: str) -> Training:
    network = {**NETWORKS["MS-D, 50 layers"], "backend": backend}
    return Training(f"time_{backend}", {"network": network})


def few_slices(network: str, slices: int, seed: int) -> Training:
    way = SLICES[slices]
    first = SEEDS.index(seed) * way // 2
    split = {
        "name": "stated",
        "train": [f"{first + i * way:02d}" for i in range(slices)],
        "validation": ["16-17"],
        "test": ["18-23"],
    }
    settings = {"network": NETWORKS[network], "train.seed": seed, "data.split": split}
    word = network.replace(", ", "_").removesuffix(" layers")
    return Training(f"slices_{word}_{slices}_{seed}", settings, precision="bf16")


# The backend changes rounding only: a second seed says how much training varies anyway.
STEPPED = [equal_steps("cpu", SEEDS[1]), *(equal_steps(backend, SEEDS[0]) for backend in BACKENDS)]
TIMED = [equal_time(backend) for backend in BACKENDS]
CURVES = [few_slices(name, n, seed) for seed in SEEDS for n in SLICES for name in NETWORKS]


def run(runs: Path, only: str) -> None:
    one_core = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for training in (*STEPPED, *TIMED, *CURVES):
        result = runs / f"{training.name}.json"
        if result.exists() or not training.name.startswith(only):
            continue
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            *training.command,
            *("--json", "--register", "", "--device", "cpu"),
            *("--runs", str(runs), "--tracking-uri", f"sqlite:///{runs.resolve()}/{training.name}.db"),
        ]  # fmt: skip
        done = subprocess.run(command, env=one_core, stdout=subprocess.PIPE, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads(done.stdout)
        found["cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        result.write_text(json.dumps(found, indent=2))
        print(training.name, round(found["cpu_s"]), scores_of(found)["dice"]["mean"], flush=True)


def table(runs: Path) -> None:
    found = {
        training.name: json.loads(file.read_text())
        for training in (*STEPPED, *TIMED, *CURVES)
        if (file := runs / f"{training.name}.json").exists()
    }
    parts = [_HEAD.format(budget=BUDGET, machine=machine(), torch=torch_version())]
    parts += ["## The same steps", "", _STEPS_HEAD]
    parts += [_row(training.name, found) for training in STEPPED]
    parts += ["", f"## The same time: {BUDGET} of processor time", "", _STEPS_HEAD]
    parts += [_row(training.name, found) for training in TIMED]
    parts += ["", "## From few slices", "", _CURVES_HEAD]
    for slices in SLICES:
        cells = [f"| {slices} "]
        for network in NETWORKS:
            runs_of = [few_slices(network, slices, seed).name for seed in SEEDS]
            cells.append(_cell("dice", [found[name] for name in runs_of if name in found]))
            cells.append(_cell("nsd", [found[name] for name in runs_of if name in found]))
        parts.append("| ".join(cells) + "|")
    RESULTS.joinpath("msd_training.md").write_text("\n".join([*parts, ""]), encoding="utf-8")
    plot(found, RESULTS / "msd_training.png")


def _row(name: str, found: dict[str, Any]) -> str:
    _, backend, *seed = name.split("_")
    words = f"| {backend}{f', seed {seed[0]}' if seed else ''} "
    if name not in found:
        return words + "| not run | | | | |"
    trained, scores = found[name], scores_of(found[name])
    fit = json.loads((Path(trained["folder"]) / "model" / "model.json").read_text())["provenance"]
    return (
        f"{words}| {fit['fit']['steps']} | {trained['cpu_s']:.0f} | {scores['dice']['mean']:.3f} "
        f"| {scores['nsd']['mean']:.3f} | {scores['assd']['mean']:.2f} |"
    )


def _cell(metric: str, trained: list[dict[str, Any]]) -> str:
    values = [scores_of(one)[metric]["mean"] for one in trained]
    if not values:
        return "not run "
    each = f" ({', '.join(f'{value:.3f}' for value in values)})"
    return f"{mean(values):.3f}{each if len(values) > 1 else ', one seed'} "


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw Dice and NSD on the test slices against the number of training slices."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, metric, label in zip(axes, ("dice", "nsd"), ("Dice", "NSD at 3 px"), strict=True):
        for number, network in enumerate(NETWORKS):
            colour = f"C{number}"
            points: dict[int, list[float]] = {}
            for slices in SLICES:
                for seed in SEEDS:
                    if trained := found.get(few_slices(network, slices, seed).name):
                        points.setdefault(slices, []).append(scores_of(trained)[metric]["mean"])
            axis.plot(
                list(points), [mean(v) for v in points.values()], "-", color=colour, label=network
            )
            for slices, values in points.items():
                axis.plot([slices] * len(values), values, "o", color=colour)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(SLICES), [str(slices) for slices in SLICES])
        axis.set_xlabel("training slices")
        axis.set_ylabel(f"{label}, 6 test slices")
        axis.grid(True, alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Membranes (ISBI 2012), {BUDGET} of processor time each; a dot is a seed")
    figure.savefig(path, dpi=110)


_HEAD = """# MS-D, trained

`python benchmarks/msd_training.py`: membranes of ISBI 2012 with the job
[isbi2012_msd](../../configs/train/bakeoff/isbi2012_msd.yaml), two patches of 256 x 256 a step, the
same six test slices for all ({machine}, one core for each run, torch {torch}). CPU seconds
are the whole command's: reading, training, validation, test, report. Limited runs have {budget} of
processor time for training and validation. Backends are compared in float32; the curves are trained
as in the bake-off, in bfloat16, which MS-D's operator does not use.
"""
_STEPS_HEAD = "| backend | steps | CPU s | Dice | NSD | ASSD, nm |\n|---|---:|---:|---:|---:|---:|"
_CURVES_HEAD = (
    "Dice and NSD: the mean over two seeds, and each of them. Seeds differ in slices, too, where "
    "fewer than 16 train.\n\n"
    "| slices " + "".join(f"| {name}: Dice | NSD " for name in NETWORKS) + "|\n|---:"
    + "|---" * 2 * len(NETWORKS) + "|"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--runs", type=Path, default=Path("runs/msd_training"))
    parser.add_argument("--only", default="", help="run those whose names begin so")
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        run(given.runs, given.only)
    else:
        table(given.runs)


if __name__ == "__main__":
    main()
