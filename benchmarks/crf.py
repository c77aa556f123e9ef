"""What the fully connected CRF costs, and how far its grid is from the sums over all pairs.

    python benchmarks/crf.py > benchmarks/results/crf.md

Each measurement is a process of its own with one thread: CPU seconds, and the memory beside the
arguments. The scene is a disc or ball with coarse noisy scores and a sharp noisy image. Beside it
runs pydensecrf2 (module ``pydensecrf``) where it is installed, with the same kernels, weights
and normalisation.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
WEIGHT, WIDTH, SMOOTH = 4.0, 0.3, 1.0
COSTS = [
    ((256, 256), 1, 20.0),
    ((512, 512), 1, 20.0),
    ((1024, 1024), 1, 20.0),
    ((512, 512), 3, 20.0),
    ((64, 64, 64), 1, 6.0),
    ((128, 128, 128), 1, 6.0),
]
ERRORS = [
    ((96, 96), 1, 8.0),
    ((96, 96), 1, 25.0),
    ((96, 96), 3, 8.0),
    ((20, 20, 20), 1, 4.0),
    ((20, 20, 20), 3, 4.0),
]
CELLS = (0.5, 1.0, 1.5, 2.0)
STATUS = Path("/proc/self/status")
HEAD = """# The fully connected CRF: what it costs, and how far its grid is from exact

`python benchmarks/crf.py`: a disc or ball with coarse noisy scores and a sharp noisy image. Each
measurement is a process of its own with one thread; extra MB is the peak beside the arguments.
`right` is the share of voxels of the right class. pydensecrf2 is the reference program.
"""


def scene(shape: tuple[int, ...], channels: int, classes: int = 2) -> tuple[Array, Array, Array]:
    """Return probabilities, the image, and the class of each voxel: shells of a ball."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    far = np.linalg.norm(places - (np.array(shape) - 1) / 2, axis=-1) / min(shape)
    truth = (far < 0.35).astype(int) + (far < 0.2) * (classes > 2)
    image = np.stack([truth + rng.normal(0, 0.15, shape) for _ in range(channels)])
    coarse = 6 if len(shape) == 3 else 8
    scores = []
    for index in range(classes):
        share = ndimage.uniform_filter((truth == index).astype(np.float32), coarse)
        noise = rng.normal(0, 0.2, [-(-n // coarse) + 1 for n in shape])
        factors = [n / m for n, m in zip(shape, noise.shape, strict=True)]
        scores.append(4 * (share + ndimage.zoom(noise, factors, order=1, grid_mode=True)))
    exponential = np.exp(np.stack(scores))
    probabilities = exponential / exponential.sum(0)
    return probabilities.astype(np.float32), image.astype(np.float32), truth


def with_medseg(
    probabilities: Array, image: Array, sigma: float, method: str, cells: float
) -> Array:
    from medseg.inference import DenseCRF

    crf = DenseCRF(
        WEIGHT, sigma, WIDTH, SMOOTH, 1.0, method=method, cells_per_sigma=cells
    )  # fmt: skip
    return crf.refine(probabilities, image, (1.0,) * (image.ndim - 1))


def with_pydensecrf(probabilities: Array, image: Array, sigma: float) -> Array:
    import pydensecrf.densecrf as program

    shape, classes = image.shape[1:], len(probabilities)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(len(shape), -1)
    crf = program.DenseCRF(math.prod(shape), classes)
    energy = -np.log(np.maximum(probabilities.reshape(classes, -1), 1e-8))
    crf.setUnaryEnergy(np.ascontiguousarray(energy, np.float32))
    both = np.concatenate([places / sigma, image.reshape(len(image), -1) / WIDTH])
    for features, weight in ((places / 1.0, SMOOTH), (both, WEIGHT)):
        crf.addPairwiseEnergy(
            np.ascontiguousarray(features, np.float32),
            compat=weight,
            kernel=program.DIAG_KERNEL,
            normalization=program.NORMALIZE_SYMMETRIC,
        )
    return np.array(crf.inference(10)).reshape(probabilities.shape)


def memory(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MB; NaN where the system does not tell."""
    if not STATUS.exists():
        return float("nan")
    lines = STATUS.read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(given: dict) -> dict[str, object]:
    """Run one program once, in this process, after a warm-up on a tiny image."""
    shape, classes = tuple(given["shape"]), given["classes"]
    probabilities, image, truth = scene(shape, given["channels"], classes)

    def run(scores: Array, seen: Array) -> Array:
        if given["program"] == "pydensecrf2":
            return with_pydensecrf(scores, seen, given["sigma"])
        method = given["program"].removeprefix("medseg ")
        return with_medseg(scores, seen, given["sigma"], method, given["cells"])

    tiny = (slice(None), *(slice(8) for _ in shape))
    try:
        run(np.ascontiguousarray(probabilities[tiny]), np.ascontiguousarray(image[tiny]))
    except ImportError as error:
        return {"missing": str(error)}
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the scene
    held, before = memory("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    found = run(probabilities, image)
    after = resource.getrusage(resource.RUSAGE_SELF)
    if given["keep"]:
        np.save(given["keep"], found)
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "extra": memory("VmHWM") - held,
        "right": [float(np.mean(p.argmax(0) == truth)) for p in (probabilities, found)],
    }


def apart(program: str, shape: tuple[int, ...], channels: int, sigma: float, classes: int = 2,
          cells: float = 1.0, keep: str = "") -> dict[str, object]:  # fmt: skip
    """Measure in a process of its own."""
    given = {"program": program, "shape": shape, "channels": channels, "sigma": sigma,
             "classes": classes, "cells": cells, "keep": keep}  # fmt: skip
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(given)],
        env=os.environ | one,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def name(shape: tuple[int, ...], channels: int) -> str:
    side = "x".join(map(str, shape))
    return f"{side}, {channels} channel" + "s" * (channels > 1)


def costs() -> None:
    """Print what the programs cost."""
    print("## What it costs\n")
    print("Three classes, ten iterations; medseg's grid with one cell a sigma.\n")
    print("| image | sigma px | program | CPU s | times medseg | extra MB | right before | after |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for shape, channels, sigma in COSTS:
        own = math.nan
        for program in ("medseg grid", "pydensecrf2"):
            found = apart(program, shape, channels, sigma, classes=3)
            if "missing" in found:
                continue
            own = found["cpu"] if program == "medseg grid" else own
            before, after = found["right"]
            print(
                f"| {name(shape, channels)} | {sigma:g} | {program} | {found['cpu']:.2f} "
                f"| {found['cpu'] / own:.1f} | {found['extra']:.0f} | {before:.4f} | {after:.4f} |",
                flush=True,
            )


def errors(folder: Path) -> None:
    """Print how far the programs are from the sums over all pairs."""
    print("\n## How far from the sums over all pairs\n")
    print("Two classes; difference of the probabilities, and share of voxels of another class.\n")
    print("| image | sigma px | program | cells a sigma | largest | mean | another class | CPU s |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for shape, channels, sigma in ERRORS:
        exact = apart("medseg exact", shape, channels, sigma, keep=str(folder / "exact.npy"))
        truth = np.load(folder / "exact.npy")
        row = f"| {name(shape, channels)} | {sigma:g} |"
        print(f"{row} medseg exact | | 0 | 0 | 0 | {exact['cpu']:.2f} |", flush=True)
        tries = [("medseg grid", cells) for cells in CELLS] + [("pydensecrf2", 1.0)]
        for program, cells in tries:
            keep = str(folder / "found.npy")
            found = apart(program, shape, channels, sigma, cells=cells, keep=keep)
            if "missing" in found:
                continue
            here = np.load(keep)
            apart_by = np.abs(here - truth)
            other = np.mean(here.argmax(0) != truth.argmax(0))
            print(
                f"{row} {program} | {cells if program != 'pydensecrf2' else ''} "
                f"| {apart_by.max():.3f} | {apart_by.mean():.5f} | {other:.5f} "
                f"| {found['cpu']:.2f} |",
                flush=True,
            )


def main() -> None:
    """Read the command line and print the tables."""
    import tempfile

    parser = argparse.ArgumentParser(description="CPU seconds, memory and error of the CRF")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(json.loads(given.measure))))
        return
    print(HEAD)
    costs()
    with tempfile.TemporaryDirectory() as folder:
        errors(Path(folder))


if __name__ == "__main__":
    main()
