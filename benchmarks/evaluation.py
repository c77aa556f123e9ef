"""What border and instance metrics cost, beside other programs.

    python benchmarks/evaluation.py             # two small cases, three interleaved rounds
    python benchmarks/evaluation.py --large     # also 512^3 with ten structures, 4096^2 with 10,000

Every measurement is a process of its own, with one thread. CPU seconds are medians over the rounds;
memory is the peak above what the process held before it measured. A program that is not installed
is left out, and the reason printed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.generic]
SPACING = (1.5, 0.8, 0.8)
TOLERANCE = 2.0
STATUS = Path("/proc/self/status")


# The cases: what is drawn and what is predicted.
def noisy_balls() -> tuple[Array, Array]:
    return _ball((128, 128, 128), 80, noise=0), _ball((131, 130, 126), 80, noise=1)


def far_voxel() -> tuple[Array, Array]:
    predicted = _ball((41, 40, 40), 12)
    predicted[250, 250, 250] = True
    return _ball((40, 40, 40), 12), predicted


def ten_structures() -> tuple[Array, Array]:
    drawn = np.zeros((512, 512, 512), np.uint8)
    for label in range(1, 11):
        row, column = divmod(label - 1, 4)
        corner = (60 + 20 * label, 40 + 150 * row, 20 + 120 * column)
        ball = _ball((55, 55, 55), 50, noise=label, side=110)
        drawn[tuple(slice(c, c + 110) for c in corner)][ball] = label
    return drawn, np.roll(drawn, (1, 2, -1), axis=(0, 1, 2))


def ten_thousand_cells() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    drawn = np.zeros((4096, 4096), np.int32)
    y, x = np.ogrid[-20:21, -20:21]
    for label, (row, column) in enumerate(np.ndindex(100, 100), start=1):
        disc = y * y + x * x <= rng.integers(10, 19) ** 2
        drawn[row * 40 + 4 : row * 40 + 45, column * 40 + 4 : column * 40 + 45][disc] = label
    return drawn, np.roll(drawn, 3, axis=1)


def _ball(centre: tuple[int, int, int], radius: float, noise: int | None = None,
          side: int = 256) -> Array:  # fmt: skip
    z, y, x = np.ogrid[:side, :side, :side]
    far = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    if noise is not None:
        field = np.random.default_rng(noise).standard_normal(far.shape, np.float32)
        smooth = ndimage.gaussian_filter(field, 4)
        far = far + 1.5 * smooth / smooth.std()
    return far <= radius


# The programs: HD95, ASSD and NSD of two masks, or the number of found objects.
def with_medseg(drawn: Array, predicted: Array) -> list[float]:
    from medseg.metrics import MaskPair, assd, hd95, nsd

    pair = MaskPair(drawn, predicted, SPACING, "mm")
    return [hd95(pair), assd(pair), nsd(pair, tolerance=TOLERANCE)]


def with_monai(drawn: Array, predicted: Array) -> list[float]:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    a, b = (torch.from_numpy(m[None, None]) for m in (predicted, drawn))
    rest = {"include_background": True, "spacing": SPACING}
    return [
        compute_hausdorff_distance(a, b, percentile=95, **rest).item(),
        compute_average_surface_distance(a, b, symmetric=True, **rest).item(),
        compute_surface_dice(a, b, class_thresholds=[TOLERANCE], **rest).item(),
    ]


def with_surface_distance(drawn: Array, predicted: Array) -> list[float]:
    import surface_distance as program

    found = program.compute_surface_distances(drawn, predicted, SPACING)
    sums = [
        (np.sum(found[f"distances_{way}"] * found[f"surfel_areas_{of}"]),
         np.sum(found[f"surfel_areas_{of}"]))
        for way, of in (("gt_to_pred", "gt"), ("pred_to_gt", "pred"))
    ]  # fmt: skip
    return [
        program.compute_robust_hausdorff(found, 95),
        sum(s for s, _ in sums) / sum(a for _, a in sums),
        program.compute_surface_dice_at_tolerance(found, TOLERANCE),
    ]


def with_simpleitk(drawn: Array, predicted: Array) -> list[float]:
    import SimpleITK

    images = []
    for mask in (drawn, predicted):
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        images.append(image)
    maps = [
        SimpleITK.GetArrayFromImage(
            SimpleITK.Abs(
                SimpleITK.SignedMaurerDistanceMap(i, squaredDistance=False, useImageSpacing=True)
            )
        )
        for i in images
    ]
    contours = [SimpleITK.GetArrayFromImage(SimpleITK.LabelContour(i)) > 0 for i in images]
    there, back = maps[1][contours[0]], maps[0][contours[1]]
    both = np.concatenate([there, back])
    return [
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
        float(np.mean(both)),
        float(np.mean(both <= TOLERANCE)),
    ]


def ten_with_medseg(drawn: Array, predicted: Array) -> list[float]:
    values = [with_medseg(drawn == label, predicted == label) for label in range(1, 11)]
    return [float(mean) for mean in np.mean(values, axis=0)]


def cells_with_medseg(drawn: Array, predicted: Array) -> list[float]:
    from medseg.metrics import InstancePair, average_precision, panoptic_quality

    pair = InstancePair(drawn, predicted)
    return [float(pair.matching(0.5).found), average_precision(pair), panoptic_quality(pair)]


def cells_with_stardist(drawn: Array, predicted: Array) -> list[float]:
    from stardist.matching import matching

    found = matching(drawn, predicted, thresh=0.5)
    return [float(found.tp), found.accuracy, found.panoptic_quality]


Program = Callable[[Array, Array], list[float]]
CASES: dict[str, tuple[Callable[[], tuple[Array, Array]], dict[str, Program]]] = {
    "two noisy balls, 256^3": (
        noisy_balls,
        {
            "medseg": with_medseg,
            "MONAI": with_monai,
            "SimpleITK": with_simpleitk,
            "surface-distance": with_surface_distance,
        },
    ),
    "small object and one far voxel, 256^3": (
        far_voxel,
        {
            "medseg": with_medseg,
            "MONAI": with_monai,
            "SimpleITK": with_simpleitk,
            "surface-distance": with_surface_distance,
        },
    ),
    "ten structures, 512^3": (ten_structures, {"medseg": ten_with_medseg}),
    "10,000 cells, 4096^2": (
        ten_thousand_cells,
        {"medseg": cells_with_medseg, "StarDist": cells_with_stardist},
    ),
}
SMALL = 2


def memory(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MB; NaN where the system does not tell."""
    if not STATUS.exists():
        return float("nan")
    lines = STATUS.read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(case: str, program: str, folder: Path) -> dict[str, object]:
    """Run one program once, in this process, after a warm-up on a tiny input."""
    drawn, predicted = (np.load(folder / f"{name}.npy") for name in ("drawn", "predicted"))
    run = CASES[case][1][program]
    tiny = np.zeros((8,) * drawn.ndim, drawn.dtype)
    tiny[2:5, 2:5] = 1
    try:
        run(tiny, tiny.copy())
    except ImportError as error:
        return {"missing": f"{program} is left out: {error}"}
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the case
    before, held = resource.getrusage(resource.RUSAGE_SELF), memory("VmRSS")
    started = time.perf_counter()
    values = run(drawn, predicted)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "extra": memory("VmHWM") - held, "values": values}


def measure_apart(case: str, program: str, folder: str) -> dict[str, object]:
    """Run one program once, in a process of its own."""
    one = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", case, program, folder],
        env=os.environ | one,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(case: str, rounds: int) -> None:
    """Print the table of one case."""
    make, programs = CASES[case]
    runs: dict[str, list[dict[str, object]]] = {program: [] for program in programs}
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("drawn", "predicted"), make(), strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        for _ in range(rounds):
            for program in list(runs):
                found = measure_apart(case, program, folder)
                if "missing" in found:
                    missing.append(str(found["missing"]))
                    del runs[program]
                else:
                    runs[program].append(found)
    own = {key: median(run[key] for run in runs["medseg"]) for key in ("cpu", "extra")}
    names = "found | AP | PQ" if "cells" in case else "HD95 mm | ASSD mm | NSD at 2 mm"
    print(f"\n### {case} ({rounds} interleaved rounds)\n")
    print(f"| program | CPU s | times medseg | wall s | extra MB | times medseg | {names} |")
    print("|---" + "|---:" * 8 + "|")
    for program, found in runs.items():
        cpu, wall, extra = (median(run[key] for run in found) for key in ("cpu", "wall", "extra"))
        values = " | ".join(f"{value:.5g}" for value in found[0]["values"])
        print(
            f"| {program} | {cpu:.2f} | {cpu / own['cpu']:.1f} | {wall:.2f} | {extra:.0f} "
            f"| {extra / max(own['extra'], 1):.1f} | {values} |"
        )
    for line in missing:
        print(f"\n{line}")


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description="CPU seconds and memory of metrics")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="also the two large cases")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        case, program, folder = given.measure
        print(json.dumps(measure(case, program, Path(folder))))
        return
    for case in list(CASES)[: None if given.large else SMALL]:
        table(case, given.rounds)


if __name__ == "__main__":
    main()
