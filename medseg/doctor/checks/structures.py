"""Structures that are missing, rare or tiny, and drawings with holes and islands."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Slip:
    """More specks or pinholes of a structure in one case than usual, or large ones beside them.

    Args:
        structure: Its name.
        case: Where.
        facts: The structure in this case.
        usual: Number of small ones in the median case.
        large: Number of large ones, where the others have none; else 0.
        grave: Whether it is more than the spread of the others explains.
        habit: Whether most cases have no large ones.
    """

    structure: str
    case: str
    facts: StructureFacts
    usual: float
    large: int
    grave: bool
    habit: bool


def _slips(
    data: DataFacts, small: Callable[[StructureFacts], int], large: Callable[[StructureFacts], int]
) -> Iterator[_Slip]:
    """Give what is drawn otherwise than in the other cases, by counts of small and large parts."""
    if data.kind == "instance":
        return
    for name in data.labels.structures:
        drawn = _drawn(data, name)
        if not drawn:
            continue
        counts = [small(one) for one in drawn.values()]
        usual = float(np.median(counts))
        habit = bool(np.mean([large(one) == 0 for one in drawn.values()]) >= USUAL)
        for case, one in drawn.items():
            more = large(one) if habit and len(drawn) >= 4 else 0
            if small(one) > usual or more:
                grave = small(one) > _many(counts) or more > 0
                yield _Slip(name, case, one, usual, more, grave, habit)


def _large_pieces(one: StructureFacts) -> int:
    """Return the pieces beside the largest that are no specks."""
    return one.number_of_pieces - one.specks - 1


@CHECKS.register("islands")
def islands(data: DataFacts) -> Iterator[Finding]:
    """Specks beside a structure, and pieces where the others have one."""
    for slip in _slips(data, lambda one: one.specks, _large_pieces):
        large = slip.facts.pieces[1 : 1 + slip.large]
        apart = f", and {plural(slip.large, 'piece')} of {listed(large)} voxels apart"
        yield Finding(
            "warning" if slip.grave else "note",
            "islands",
            slip.case,
            f"{slip.structure}: {plural(slip.facts.specks, 'speck')} of at most {SPECK} voxels"
            + (apart if slip.large else ""),
            f"{'one piece' if slip.habit else f'about {slip.usual:.0f}'}, as in the others",
            "look at them; remove what is not the structure",
        )


@CHECKS.register("holes")
def holes(data: DataFacts) -> Iterator[Finding]:
    """Pinholes in a structure, and holes where the others have none."""
    for slip in _slips(data, lambda one: one.pinholes, lambda one: one.holes):
        yield Finding(
            "warning" if slip.grave else "note",
            "holes",
            slip.case,
            f"{slip.structure}: {plural(slip.facts.pinholes, 'hole')} of at most {SPECK} voxels"
            + (f", and {plural(slip.large, 'larger one')}" if slip.large else ""),
            f"about {slip.usual:.0f}, as in the others",
            "look at them; fill what is not meant",
        )
