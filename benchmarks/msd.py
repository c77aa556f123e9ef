"""What an MS-D costs: every backend beside a plain `torch.cat` network and other programs.

    python benchmarks/msd.py --output benchmarks/results     # as docs/msd.md shows it, half an hour
    python benchmarks/msd.py --sides2 256 --sides3 32 --depths 100   # a few minutes

Every measurement is a process of its own; the programs take turns, `--rounds` times. CPU seconds
are medians; memory is the peak above what the process held after its imports. A program that is not
installed, or a case that would take longer than `--longest`, is left out, and the reason printed.
Other programs are measured where they can be imported, from folders of their own on PYTHONPATH:
dlsia (`pip install --no-deps dlsia --target DIR`; where torchvision, plotly and einops are missing,
empty its `core/networks/__init__.py` and put an empty torchvision beside it: its MS-D uses neither)
and dmpelt/msdnet (2D only; its package comes from conda-forge, or from its source: compile
`msdnet/operations.c` to `msdnet/libcoperations.so` with `gcc -std=c99 -O3 -fopenmp -fPIC -shared`).
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median
from typing import Any

STATUS = Path("/proc/self/status")
PROGRAMS = ("plain", "reference", "torch", "cpu", "triton", "dlsia", "dmpelt/msdnet")
# CPU seconds per 10^9 operations, to know beforehand what would take too long.
EXPECTED = {"torch": 0.04, "cpu": 0.025, "triton": 0.01}
PLAINLY = 1.0

# 512-bit (or whatever the processor has) multiply-adds on registers, nothing else.
PEAK = r"""
#include <cstdio>
#include <ctime>
#if defined(__AVX512F__)
typedef float V __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float V __attribute__((vector_size(32)));
#else
typedef float V __attribute__((vector_size(16)));
#endif
int main() {
    volatile float one = 1.0f;
    const V a = one - V{}, b = one - V{};
    V sums[12] = {};
    const long turns = 50000000;
    double best = 1e9;
    for (int again = 0; again < 5; ++again) {
        const clock_t begin = clock();
        for (long i = 0; i < turns; ++i) {
#pragma GCC unroll 12
            for (int k = 0; k < 12; ++k) sums[k] = sums[k] * a + b;
        }
        const double seconds = double(clock() - begin) / CLOCKS_PER_SEC;
        if (seconds < best) best = seconds;
    }
    float total = 0;
    for (V& s : sums) total += s[0];
    std::printf("%f %f\n", turns * 12.0 * 2 * sizeof(V) / 4 / best / 1e9, total);
}
"""


def operations(dims: int, side: int, depth: int) -> float:
    """Multiplications and additions of a training step; a third of them is inference."""
    return 3**dims * 2 * sum(1 + i for i in range(depth)) * float(side) ** dims * 3


def peak() -> float:
    """Return the multiply-adds of one core in GFLOP/s, as measured; NaN without a compiler."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "peak.cpp", Path(folder) / "peak"
        source.write_text(PEAK)
        flags = ["-O3", "-march=native", "-o", str(program)]
        subprocess.run([compiler, str(source), *flags], check=True)
        return float(subprocess.run([program], capture_output=True, check=True).stdout.split()[0])


# The programs: a network of one channel in and two classes out.
def plain_network(dims: int, depth: int) -> Any:
    """The paper's words in PyTorch: each layer a convolution of all the earlier ones."""
    import torch
    from torch import nn

    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            steps = islice(cycle(range(1, {2: 11, 3: 6}[dims])), depth)
            self.layers = nn.ModuleList(
                convolution(1 + i, 1, 3, padding=d, dilation=d, padding_mode="reflect")
                for i, d in enumerate(steps)
            )
            self.head = convolution(1 + depth, 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            features = image
            for layer in self.layers:
                features = torch.cat([features, torch.relu(layer(features))], dim=1)
            return self.head(features)

    return Plain()


def network_of(program: str, dims: int, depth: int) -> Any:
    if program == "plain":
        return plain_network(dims, depth)
    if program == "dlsia":
        from dlsia.core.networks.msdnet import MixedScaleDenseNetwork
        from torch import nn

        return MixedScaleDenseNetwork(
            in_channels=1,
            out_channels=2,
            num_layers=depth,
            max_dilation=10 if dims == 2 else 5,
            normalization=None,
            convolution=nn.Conv2d if dims == 2 else nn.Conv3d,
        )
    from medseg.networks import MSDNet

    return MSDNet(dims, 1, 2, depth=depth, backend=program)


def steps_of(program: str, dims: int, side: int, depth: int) -> tuple[Any, Any]:
    """Return functions that do a training step and an inference."""
    if program == "dmpelt/msdnet":
        return msdnet_steps(side, depth)
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = network_of(program, dims, depth).to(device)
    image = torch.randn(1, 1, *(side,) * dims, device=device)
    labels = torch.randint(0, 2, (1, *(side,) * dims), device=device)
    finish = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def train() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(image), labels).backward()
        finish()

    def infer() -> None:
        with torch.no_grad():
            network(image)
        finish()

    # What a library sets up at its first call is no cost of the network.
    small = torch.randn(1, 1, *(16,) * dims, device=device)
    network(small).sum().backward()
    return train, infer


def msdnet_steps(side: int, depth: int) -> tuple[Any, Any]:
    import msdnet
    import numpy as np

    dilations = msdnet.dilations.IncrementDilations(10)
    network = msdnet.network.SegmentationMSDNet(depth, dilations, 1, 2, gpu=False)
    network.initialize()
    image = np.random.default_rng(0).standard_normal((1, side, side)).astype(np.float32)
    labels = np.zeros((2, side, side), np.float32)
    labels[0] = 1

    def train() -> None:
        network.gradient_zero()
        network.backward(network.forward(image) - labels)
        network.gradient()

    return train, lambda: network.forward(image)


def memory(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MB; NaN where the system does not tell."""
    if not STATUS.exists():
        return float("nan")
    lines = STATUS.read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def timed(step: Any, patience: float) -> tuple[float, float]:
    """Return the median CPU and wall seconds of a step, of up to five within the patience."""
    found: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while not found or (len(found) < 5 and time.perf_counter() - begun < patience):
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        step()
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((cpu, wall))
    return median(cpu for cpu, _ in found), median(wall for _, wall in found)


def measure(program: str, dims: int, side: int, depth: int) -> dict[str, Any]:
    """Measure one program in this process."""
    try:
        train, infer = steps_of(program, dims, side, depth)
    except (ImportError, ValueError) as error:
        return {"missing": f"{program} is left out: {error}"}
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    held = memory("VmRSS")
    infer_cpu, infer_wall = timed(infer, 2.0)
    infer_extra = memory("VmHWM") - held
    train_cpu, train_wall = timed(train, 6.0)
    extra = memory("VmHWM") - held
    return {
        "train_cpu": train_cpu, "train_wall": train_wall, "extra": extra,
        "infer_cpu": infer_cpu, "infer_wall": infer_wall, "infer_extra": infer_extra,
    }  # fmt: skip


def measure_apart(program: str, case: tuple[int, int, int], threads: int) -> dict[str, Any]:
    """Measure one program in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", program, *map(str, case)],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"missing": f"{program} failed on {name_of(case)}: {last}", "once": True}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def name_of(case: tuple[int, int, int]) -> str:
    dims, side, depth = case
    return f"{side}{'²' if dims == 2 else '³'}, depth {depth}"


def measured(log: Path | None) -> dict[Any, list[dict[str, Any]]]:
    """Return the runs that a log holds."""
    runs: dict[Any, list[dict[str, Any]]] = {}
    if log and log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            case, program, found = json.loads(line)
            runs.setdefault((tuple(case), program), []).append(found)
    return runs


def run_all(arguments: argparse.Namespace) -> tuple[dict[Any, Any], list[str]]:
    """Return the runs of every case and program, and what was left out."""
    cases = [(2, side, depth) for depth in arguments.depths for side in arguments.sides2]
    cases += [(3, side, depth) for depth in arguments.depths for side in arguments.sides3]
    runs = measured(arguments.log)
    notes: list[str] = []
    missing: set[str] = set()
    for turn in range(arguments.rounds):
        for case, program in product(cases, arguments.programs):
            expected = EXPECTED.get(program, PLAINLY) * operations(*case) / 1e9
            if program in missing or (program == "dmpelt/msdnet" and case[0] == 3):
                continue
            if expected > arguments.longest:
                notes.append(f"{program}, {name_of(case)}: about {expected:.0f} CPU s a step")
                continue
            if turn and expected > arguments.longest / 4:
                continue
            if len(runs.get((case, program), [])) > turn:
                continue
            found = measure_apart(program, case, arguments.threads)
            if "missing" in found:
                notes.append(found["missing"])
                missing |= set() if found.get("once") else {program}
                continue
            runs.setdefault((case, program), []).append(found)
            if arguments.log:
                with arguments.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps([case, program, found]) + "\n")
            print(name_of(case), program, found, file=sys.stderr, flush=True)
    return runs, list(dict.fromkeys(notes))


def table(runs: dict[Any, Any], limit: float) -> str:
    """Return the results as Markdown."""
    lines = [
        "| image | program | step CPU s | times less than plain | step wall s | step MB "
        "| inference CPU s | inference MB | GFLOP per CPU s | share of the limit |",
        "|---|---" + "|---:" * 8 + "|",
    ]
    order = sorted(runs, key=lambda key: (key[0][0], key[0][2], key[0][1], PROGRAMS.index(key[1])))
    for case, program in order:
        found = runs[case, program]
        values = {key: median(run[key] for run in found) for key in found[0]}
        plain = runs.get((case, "plain"))
        less = median(r["train_cpu"] for r in plain) / values["train_cpu"] if plain else None
        speed = operations(*case) / 1e9 / values["train_cpu"]
        lines.append(
            f"| {name_of(case)} | {program} | {values['train_cpu']:.2f} "
            f"| {'-' if less is None else f'{less:.1f}'} | {values['train_wall']:.2f} "
            f"| {values['extra']:,.0f} | {values['infer_cpu']:.2f} | {values['infer_extra']:,.0f} "
            f"| {speed:.1f} | {speed / limit:.0%} |"
        )
    return "\n".join(lines)


def plot(runs: dict[Any, Any], path: Path) -> None:
    """Draw CPU seconds and memory of a step against the voxels, depth 100."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for row, dims in zip(axes, (2, 3), strict=True):
        for axis, key, label in zip(
            row, ("train_cpu", "extra"), ("CPU seconds", "MB above the imports"), strict=True
        ):
            for program in PROGRAMS:
                points = sorted(
                    (case[1], median(run[key] for run in found))
                    for (case, who), found in runs.items()
                    if who == program and case[0] == dims and case[2] == 100
                )
                if points:
                    axis.loglog(*zip(*points, strict=True), "o-", label=program)
            axis.set_xlabel(f"side of the {'square' if dims == 2 else 'cube'}, voxels")
            axis.set_ylabel(f"training step, {label}")
            axis.grid(True, which="both", alpha=0.3)
            if axis.lines:
                axis.legend()
    figure.suptitle("MS-D, depth 100, one channel in, two classes out, float32")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=PROGRAMS)
    parser.add_argument("--sides2", nargs="*", type=int, default=[256, 512, 1024])
    parser.add_argument("--sides3", nargs="*", type=int, default=[32, 48, 64, 96])
    parser.add_argument("--depths", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--longest", type=float, default=90, help="expected CPU s of a step")
    parser.add_argument("--machine", default=platform.machine(), help="what to call this one")
    parser.add_argument("--output", type=Path, help="folder of msd.md and msd.png")
    parser.add_argument("--log", type=Path, help="file of raw results, to go on with a run")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        program, *case = arguments.measure
        print(json.dumps(measure(program, *map(int, case))))
        return
    limit = peak()
    runs, notes = run_all(arguments)
    import torch

    text = "\n".join(
        [
            "# What an MS-D costs",
            "",
            f"{arguments.machine}; {arguments.threads} thread(s), float32, batch 1, one channel "
            f"in, two classes out, PyTorch {torch.__version__}. Rounds: {arguments.rounds}. "
            f"Multiply-adds of one core, measured: {limit:.0f} GFLOP/s; the share of the limit "
            "is that of a training step.",
            "",
            table(runs, limit),
            "",
            "Left out:",
            "",
            *(f"- {note}" for note in notes),
            "",
        ]
    )
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "msd.md").write_text(text, encoding="utf-8")
        plot(runs, arguments.output / "msd.png")


if __name__ == "__main__":
    main()
