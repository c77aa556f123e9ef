"""Whether the fully connected CRF helps trained networks, at three levels of noise.

    python benchmarks/crf_noise.py runs/bakeoff/isbi2012_unet-1a2b3c4d ... --most 12

Each model of a run sees the test images as they are, and with normal noise of half and of one
standard deviation of the image. At each level a CRF is chosen on the validation images with the
same noise, which may choose none; the table has the test scores without any, and with the best
candidate of the validation, chosen or not. Writes ``benchmarks/results/crf_noise.md``.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np

from medseg.config import cases_of, read_card
from medseg.data import Case
from medseg.evaluation.intervals import interval
from medseg.inference import CrfCase, CrfChoice, DenseCRF, Model, choose_crf
from medseg.inference.crf_choice import dice_of_structures
from medseg.metrics import MaskPair
from medseg.metrics.distances import nsd

LEVELS = (0.0, 0.5, 1.0)
RESULTS = Path(__file__).parent / "results" / "crf_noise.md"
HEAD = """# The fully connected CRF on trained networks, with noise

`python benchmarks/crf_noise.py`, on models of the [bake-off](bakeoff.md). Noise is normal, in standard deviations
of the image; network and CRF see the same noisy image. Twelve candidates are compared on the
validation images; `chosen` says whether the best of them beat no CRF there. Scores are means over the test
images (n) and structures (prepared grid), NSD at {tolerance:g} voxels; differences have 95 % intervals over the groups.

| model | n | noise | best candidate on validation | chosen | Dice without | with | difference | NSD without | with | difference |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501
TOLERANCE = 2.0


class Noisy:
    """A model of a run, its images seen through noise."""

    def __init__(self, run: Path, level: float) -> None:
        self.model = Model.load(run / "model")
        self.card = read_card(run / "model" / "card.yaml")
        self.level = level

    def case(self, case: Case) -> CrfCase:
        image, labels = self.card.reading().pair(case)
        array = image.channels_first.astype(np.float32)
        noise = np.random.default_rng(crc32(case.name.encode())).normal(size=array.shape)
        noisy = (array + self.level * array.std() * noise).astype(np.float32)
        prepared, scores = self.model.prepared_probabilities(noisy, image.grid, precision="bf16")
        classes = self.card.label_map().classes(labels.array, case.name)
        reference = self.model.preparation.prepare_labels(classes, image.grid)[0].numpy()
        voxel = (1.0,) * reference.ndim
        return CrfCase(scores.numpy(), prepared.tensor.numpy(), reference, voxel)


def rows(run: Path, most: int) -> list[str]:
    parts = json.loads((run / "model" / "split.json").read_text())
    lines = []
    for level in LEVELS:
        noisy = Noisy(run, level)
        cases = {
            case.name: case for case in cases_of(noisy.card, run / "model" / "card.yaml", None)
        }
        tests = [cases[name] for name in parts["test"]]
        tests = tests[:: -(-len(tests) // most)]
        choice = choose_crf([partial(noisy.case, cases[name]) for name in parts["validation"]])
        table = np.array([_scores(noisy.case(case), choice.best) for case in tests])
        lines.append(_line(run, level, choice, table, tests))
        print(lines[-1], flush=True)
    return lines


def _scores(case: CrfCase, crf: DenseCRF) -> list[float]:
    """Return Dice and NSD without and with the CRF."""
    count = len(case.probabilities)
    refined = crf.refine(case.probabilities, case.image, case.spacing)
    scores = []
    for probabilities in (case.probabilities, refined):
        classes = probabilities.argmax(0)
        borders = [
            nsd(MaskPair(case.reference == index, classes == index), tolerance=TOLERANCE)
            for index in range(1, count)
        ]
        scores += [np.nanmean(dice_of_structures(classes, case.reference, count))]
        scores += [np.nanmean(borders)]
    return scores


def _line(run: Path, level: float, choice: CrfChoice, table: np.ndarray, tests: list[Case]) -> str:
    best = choice.best
    intensity = np.atleast_1d(best.sigma_intensity)[0]
    cells = [
        run.name.rpartition("-")[0],
        str(len(tests)),
        f"{level:g}",
        f"weight {best.bilateral_weight:g}, {best.sigma_position:g} voxels, {intensity:.2g}",
        "yes" if choice.crf else "no",
    ]
    for metric in (0, 1):
        without, with_it = table[:, metric], table[:, 2 + metric]
        found = interval([case.group for case in tests], with_it - without)
        between = "-" if found is None else f"{found[0]:+.3f} to {found[1]:+.3f}"
        cells += [f"{without.mean():.3f}", f"{with_it.mean():.3f}"]
        cells.append(f"{(with_it - without).mean():+.3f} ({between})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=12, help="Test cases of a model, at most.")
    given = parser.parse_args()
    lines = [line for run in given.runs for line in rows(run, given.most)]
    RESULTS.write_text(HEAD.format(tolerance=TOLERANCE) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
