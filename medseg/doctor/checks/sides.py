"""Left and right: pairs that trade places in a mirror, and drawings that have them swapped."""

from collections.abc import Iterator

import numpy as np

from medseg.doctor.checks.base import CHECKS, few, listed
from medseg.doctor.facts import DataFacts
from medseg.doctor.findings import Finding
from medseg.transforms import find_sided_pairs
from medseg.transforms.sides import sided_names


@CHECKS.register("sided labels")
def sided(data: DataFacts) -> Iterator[Finding]:
    """Names with a side: without their counterpart, or on images that do not say where left is."""
    names = data.labels.names
    pairs = find_sided_pairs(names)
    alone = [names[i] for i in sided_names(names) if all(i not in pair for pair in pairs)]
    for name in alone:
        yield Finding(
            "warning",
            "sided labels",
            "",
            f"{name} has a side, and no label is its counterpart",
            "left and right of a structure, named alike (left kidney, right kidney)",
            "name both, or write augmentation: {name: ..., mirror: none} in the job, else mirrored "
            "images teach the other side",
        )
    unknown = [
        case.name
        for case in data.cases
        if case.image is not None and case.image.grid.direction is None
    ]
    if (pairs or alone) and unknown:
        yield Finding(
            "warning",
            "sided labels",
            "",
            f"labels with sides, and {listed(unknown, 4)} do not say where left is",
            "images that state their orientation, such as NIfTI",
            "convert them again from their origin; until then nothing is mirrored",
        )


@CHECKS.register("sides swapped")
def swapped(data: DataFacts) -> Iterator[Finding]:
    """Cases whose left structure lies where the others have the right one."""
    for left, right in find_sided_pairs(data.labels.names):
        names = data.labels.names[left], data.labels.names[right]
        offsets = {}
        for case in data.cases:
            if case.labels is None or case.labels.grid.direction is None:
                continue
            here, there = (case.labels.structures[name].centre for name in names)
            if here and there:
                offsets[case.name] = here[0] - there[0]  # x leads to the patient's right
        if not offsets:
            continue
        flagged = [name for name, offset in offsets.items() if offset > 0]
        if few(flagged, len(offsets)):
            for name in flagged:
                yield Finding(
                    "error",
                    "sides swapped",
                    name,
                    f"{names[0]} lies to the right of {names[1]}",
                    "to the left of it, as in the others",
                    "exchange the two labels, or correct the orientation in the file",
                )
        elif len(flagged) > np.ceil(len(offsets) / 2):
            yield Finding(
                "warning",
                "sides swapped",
                "",
                f"{names[0]} lies to the patient's right of {names[1]} in {len(flagged)} of "
                f"{len(offsets)} cases",
                "to the left of it",
                "the two names may be exchanged in the card, or the files state a wrong "
                "orientation",
            )
