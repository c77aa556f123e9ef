"""Every network, trained by the same job for the same processor time, on real images.

    export MEDSEG_DATA=FOLDER
    python benchmarks/bakeoff.py run configs/train/bakeoff/*.yaml --runs runs/bakeoff
    python benchmarks/bakeoff.py measure --runs runs/bakeoff
    python benchmarks/bakeoff.py table --runs runs/bakeoff

``run`` trains each job on one core (jobs that have run already are left out) and judges it on the
test cases. ``measure`` takes each trained network in a process of its own, one thread: processor
seconds and peak memory of a training step, and processor seconds of one test image. ``table``
writes ``benchmarks/results/bakeoff.md``.
"""

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "configs" / "train" / "bakeoff"
RESULTS = ROOT / "benchmarks" / "results" / "bakeoff.md"
BUDGET = "5m"
WARMING, MEASURED = 2, 5  # training steps


def run(jobs: list[Path], runs: Path) -> None:
    failed = []
    for job in jobs:
        result = runs / f"{job.stem}.json"
        if result.exists():
            continue
        began = time.monotonic()
        command = [
            *("medseg", "train", str(job), "--json", "--register", "", "--device", "cpu"),
            *("--time-budget", BUDGET, "--budget-clock", "cpu"),
            *("--runs", str(runs), "--tracking-uri", f"sqlite:///{runs.resolve()}/{job.stem}.db"),
        ]
        one_core = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, env=one_core, stdout=subprocess.PIPE, text=True, check=False)
        print(f"{job.stem}: exit {done.returncode} after {time.monotonic() - began:.0f} s")
        if done.returncode:
            failed.append(job.stem)
            continue
        result.write_text(json.dumps(json.loads(done.stdout), indent=2))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measure(runs: Path) -> None:
    for result in sorted(runs.glob("*.json")):
        trained = json.loads(result.read_text())
        if "cost" in trained:
            continue
        command = [sys.executable, __file__, "one", "--runs", trained["folder"]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        trained["cost"] = json.loads(done.stdout)
        result.write_text(json.dumps(trained, indent=2))
        print(result.stem, trained["cost"])


def one(folder: Path) -> None:
    """Print what the network of a run costs: in this process, which does nothing else."""
    import torch

    from medseg.inference import Model, probabilities_of, sliding_window
    from medseg.losses import DeepSupervision, DiceCE

    torch.set_num_threads(1)
    model = Model.load(folder / "model")
    network = model.network
    batch, patch, image_size = {2: (2, (256, 256), (512, 512)), 3: (4, (32, 40, 32), (36, 50, 35))}[
        model.spec.spatial_dims
    ]
    loss = DeepSupervision(DiceCE(), weights=network.supervision_weights)
    optimiser = torch.optim.AdamW(network.parameters())
    patches = torch.randn(batch, 1, *patch)
    labels = torch.randint(0, network.out_channels, (batch, 1, *patch))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network.train()
    steps = []
    for _ in range(WARMING + MEASURED):
        began = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(patches)
        optimiser.zero_grad()
        loss(output, labels).backward()
        optimiser.step()
        steps.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network.eval()
    images = []
    for _ in range(3):
        began = time.process_time()
        rows = sliding_window(
            probabilities_of(network, precision="fp32"),
            torch.randn(1, *image_size),
            window=model.spec.window_voxels,
            overlap=model.spec.overlap,
        )
        list(rows)
        images.append(time.process_time() - began)
    cost = {
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "step_cpu_s": median(steps[WARMING:]),
        "step_mb": (peak - before) / 1024,
        "image_cpu_s": median(images),
    }
    print(json.dumps(cost))


def table(runs: Path) -> None:
    parts = [_HEAD.format(budget=BUDGET, machine=machine(), torch=torch_version())]
    for prefix, title in _PARTS.items():
        names = [job.stem.removeprefix(prefix) for job in sorted(JOBS.glob(f"{prefix}*.yaml"))]
        trained = {name: runs / f"{prefix}{name}.json" for name in names}
        trained = {name: _read(file) for name, file in trained.items() if file.exists()}
        scores = {name: scores_of(run) for name, run in trained.items()}
        best_first = sorted(trained, key=lambda name: -scores[name]["dice"]["mean"])
        rows = [_row(prefix + name, trained[name], scores[name]) for name in best_first]
        parts.append(f"## {title.format(**_wording(scores[best_first[0]]))}\n\n{_COLUMNS}")
        parts.append("\n".join(rows) + "\n")
        if missing := sorted(set(names) - set(trained)):
            parts.append(f"Not trained: {', '.join(missing)}.\n")
    parts.append(_decoders(runs))
    RESULTS.write_text("\n".join(parts), encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    trained: dict[str, Any] = json.loads(file.read_text())
    if "cost" not in trained:
        sys.exit(f"{file.stem} is not measured yet: python {sys.argv[0]} measure")
    return trained


def _wording(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": scores["dice"]["n"],
        "groups": scores["dice"]["n_groups"],
        "tolerance": scores["nsd"]["settings"].partition("=")[2],
        "unit": scores["hd95"]["unit"],
    }


def _row(name: str, trained: dict[str, Any], scores: dict[str, dict[str, Any]]) -> str:
    cost = trained["cost"]
    model = json.loads((Path(trained["folder"]) / "model" / "model.json").read_text())
    cells = [
        f"[{name.partition('_')[2]}](../../configs/train/bakeoff/{name}.yaml)",
        f"{cost['parameters'] / 1e6:.2f} M",
        f"**{scores['dice']['mean']:.3f}** ({_range(scores['dice'], 3)})",
        f"{scores['iou']['mean']:.3f}",
        f"{scores['nsd']['mean']:.3f} ({_range(scores['nsd'], 3)})",
        f"{scores['hd95']['mean']:.1f} ({_range(scores['hd95'], 1)})",
        f"{scores['assd']['mean']:.2f}",
        str(model["provenance"]["fit"]["steps"]),
        f"{cost['step_cpu_s']:.2f}",
        f"{cost['step_mb']:.0f}",
        f"{cost['image_cpu_s']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _range(row: dict[str, Any], digits: int) -> str:
    if row["low"] is None:
        return "-"
    return f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"


def scores_of(trained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the row of each metric: that of all structures, where there are several."""
    found: dict[str, dict[str, Any]] = {}
    for row in trained["test"]["summary"]:
        if row["structure"] == "all structures" or row["metric"] not in found:
            found[row["metric"]] = row
    return found


def _decoders(runs: Path) -> str:
    """Return the accuracy near the border with and without what is to redraw borders."""
    lines = [_BORDERS]
    for with_it, without, what in _PAIRS:
        if not all((runs / f"isbi2012_{name}.json").exists() for name in (with_it, without)):
            lines.append(f"| {what} | - | not trained | not trained |")
            continue
        curves = [_trimap(runs, name) for name in (with_it, without)]
        for width in ("4.0", "8.0", "16.0"):
            cells = (f"{c[0]:.4f} ({c[1]:.4f} to {c[2]:.4f})" for c in (c[width] for c in curves))
            lines.append(f"| {what} | {float(width):.0f} nm | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _trimap(runs: Path, name: str) -> dict[str, tuple[float, float, float]]:
    folder = Path(json.loads((runs / f"isbi2012_{name}.json").read_text())["folder"])
    keys = ("band_accuracy", "band_accuracy_low", "band_accuracy_high")
    with (folder / "evaluation" / "trimap.csv").open() as stream:
        return {
            row["width"]: tuple(float(row[key]) for key in keys) for row in csv.DictReader(stream)
        }


def machine() -> str:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{os.cpu_count()} cores of an {names[0].partition(':')[2].strip()}, {platform.system()}"


def torch_version() -> str:
    import torch

    return torch.__version__


_PARTS = {
    "isbi2012_": "Membranes, 2D: {images} test slices of 512 x 512 (ISBI 2012), HD95 and ASSD in "
    "{unit}, NSD at {tolerance}",
    "hippocampus_": "Hippocampus, 3D: {images} test volumes of {groups} persons (Decathlon), HD95 "
    "and ASSD in {unit}, NSD at {tolerance}",
}
_PAIRS = (
    ("gcn", "gcn_without_refinement", "GCN: boundary refinement"),
    ("deeplabv3plus", "deeplabv3", "DeepLab: decoder of V3+"),
)
_COLUMNS = (
    "| network | weights | Dice | IoU | NSD | HD95 | ASSD | steps | CPU-s a step | MB a step | "
    "CPU-s an image |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
_HEAD = """# Bake-off: every network, the same job, the same time

`python benchmarks/bakeoff.py`; the jobs are `configs/train/bakeoff/*.yaml`, alike but for the
network, which has its small preset. Each had {budget} of processor time on one core for training
and validation, whatever it needed for a step ({machine}, torch {torch}; bf16 where it can,
scores from fp32). Brackets are 95 % intervals over persons, or over slices: those are neighbours
in one stack, and say nothing of other tissue. `MB a step` is the peak of a training step above
what the process held before; `an image` is one test slice or volume, in fp32.
"""
_BORDERS = """## Near the border

Accuracy within a band around the reference's border (trimap), membranes, with what is to redraw
borders and without it:

| what | band | with | without |
| --- | --- | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "measure", "table", "one"))
    parser.add_argument("jobs", nargs="*", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/bakeoff"))
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        run(given.jobs, given.runs)
    else:
        {"measure": measure, "table": table, "one": one}[given.what](given.runs)


if __name__ == "__main__":
    main()
