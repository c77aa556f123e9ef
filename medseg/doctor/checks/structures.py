"""Structures that are missing, rare or tiny, and drawings with holes and islands."""

from collections.abc import Iterator, Sequence

import numpy as np

from medseg.doctor.checks.base import CHECKS, listed, plural
from medseg.doctor.facts import CaseFacts, DataFacts, StructureFacts
from medseg.doctor.findings import Finding
from medseg.doctor.pieces import SPECK

TINY_SHARE = 1e-4
TINY_VOXELS = 30
USUAL = 0.8  # share of the cases that makes a habit


def _drawn(data: DataFacts, name: str) -> dict[str, StructureFacts]:
    """Return one structure in the cases that have it."""
    return {
        case.name: case.labels.structures[name]
        for case in data.cases
        if case.labels is not None and case.labels.structures[name].voxels
    }


def _many(numbers: Sequence[int]) -> float:
    """Return what is more than the usual number and its spread explain."""
    return 3 + 3 * float(np.percentile(numbers, 90, method="lower"))


def _labelled(data: DataFacts) -> list[CaseFacts]:
    return [case for case in data.cases if case.labels is not None]


@CHECKS.register("empty case")
def empty(data: DataFacts) -> Iterator[Finding]:
    """Cases in which nothing is drawn."""
    cases = _labelled(data)
    nothing = {*data.labels.values["background"], data.labels.ignore}
    bare = [case.name for case in cases if case.labels and set(case.labels.values) <= nothing]
    if len(bare) == len(cases):
        return  # every structure is absent, which is an error of its own
    for name in bare:
        yield Finding("warning", "empty case", name, "holds no structure, only background",
                      "something drawn, unless nothing is there",
                      "look at it; leave it out if it was not annotated")  # fmt: skip


@CHECKS.register("absent structure")
def absent(data: DataFacts) -> Iterator[Finding]:
    """Structures that the card names and nobody drew, at all or in one part of the split."""
    cases = _labelled(data)
    if not cases:
        return
    part_of = data.part_of
    for name in data.labels.structures:
        drawn = _drawn(data, name)
        if not drawn:
            yield Finding(
                "error", "absent structure", "", f"{name}: no case has it",
                "each label of the card in some case",
                "correct its value in the card, or remove it there",
            )  # fmt: skip
            continue
        parts = {part_of[case] for case in drawn if case in part_of}
        for part in dict.fromkeys(part_of.values()):
            if part not in parts and part == "train":
                yield Finding("error", "absent structure", "", f"{name}: no training case has it",
                              "some to learn from", "move cases with it to train")  # fmt: skip
            elif part not in parts:
                yield Finding("warning", "absent structure", "",
                              f"{name}: no {part} case has it, so it is not judged there",
                              f"some in {part}", "change the split")  # fmt: skip


@CHECKS.register("tiny structure")
def tiny(data: DataFacts) -> Iterator[Finding]:
    """Structures that random patches hardly ever meet, or that few cases have."""
    cases = _labelled(data)
    voxels = {c.name: int(np.prod(c.labels.grid.shape)) for c in cases if c.labels is not None}
    for name in data.labels.structures:
        drawn = _drawn(data, name)
        if not drawn:
            continue
        share = float(np.median([s.voxels / voxels[case] for case, s in drawn.items()]))
        size = float(np.median([s.voxels for s in drawn.values()]))
        if share < TINY_SHARE or size < TINY_VOXELS:
            yield Finding(
                "warning",
                "tiny structure",
                "",
                f"{name}: {share:.2g} of the voxels where it is drawn, {size:.0f} voxels",
                f"more than {TINY_SHARE:g} of them and {TINY_VOXELS} voxels",
                "crop the images to it, raise train.foreground, or set loss.class_weights",
            )
        if len(drawn) <= 2 < len(cases):
            yield Finding(
                "warning", "tiny structure", "",
                f"{name}: drawn in {plural(len(drawn), 'case')} of {len(cases)} "
                f"({listed(drawn)})",
                "enough cases to learn from and to judge", "label more cases with it",
            )  # fmt: skip


@CHECKS.register("islands")
def islands(data: DataFacts) -> Iterator[Finding]:
    """Specks beside a structure, and pieces where the others have one."""
    if data.kind == "instance":
        return
    for name in data.labels.structures:
        drawn = _drawn(data, name)
        if not drawn:
            continue
        usual = float(np.median([s.specks for s in drawn.values()]))
        whole = np.mean([s.number_of_pieces - s.specks == 1 for s in drawn.values()]) >= USUAL
        for case, one in drawn.items():
            more = one.number_of_pieces - one.specks - 1 if whole and len(drawn) >= 4 else 0
            if one.specks <= usual and not more:
                continue
            many = one.specks > _many([s.specks for s in drawn.values()]) or more
            sizes = listed(one.pieces[1 : 1 + more]) if more else ""
            yield Finding(
                "warning" if many else "note",
                "islands",
                case,
                f"{name}: {plural(one.specks, 'speck')} of at most {SPECK} voxels"
                + (f", and {plural(more, 'piece')} of {sizes} voxels apart" if more else ""),
                "one piece, as in the others" if whole else f"about {usual:.0f}, as in the others",
                "look at them; remove what is not the structure",
            )


@CHECKS.register("holes")
def holes(data: DataFacts) -> Iterator[Finding]:
    """Pinholes in a structure, and holes where the others have none."""
    if data.kind == "instance":
        return
    for name in data.labels.structures:
        drawn = _drawn(data, name)
        if not drawn:
            continue
        usual = float(np.median([s.pinholes for s in drawn.values()]))
        solid = np.mean([s.holes == 0 for s in drawn.values()]) >= USUAL and len(drawn) >= 4
        for case, one in drawn.items():
            more = one.holes if solid else 0
            if one.pinholes <= usual and not more:
                continue
            many = one.pinholes > _many([s.pinholes for s in drawn.values()]) or more
            yield Finding(
                "warning" if many else "note",
                "holes",
                case,
                f"{name}: {plural(one.pinholes, 'hole')} of at most {SPECK} voxels"
                + (f", and {plural(more, 'larger one')}" if more else ""),
                f"about {usual:.0f}, as in the others",
                "look at them; fill what is not meant",
            )
