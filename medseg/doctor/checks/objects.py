"""Numbers of objects: merged, broken, wrapped around, or given to the background."""

import math
from collections.abc import Iterator

import numpy as np

from medseg.doctor.checks.base import CHECKS, listed, plural
from medseg.doctor.facts import DataFacts, LabelFacts, ObjectFacts
from medseg.doctor.findings import Finding
from medseg.doctor.pieces import SPECK

WRAPS = (255, 65535)
BROKEN = 0.1
GIANT = 8.0


def _objects(data: DataFacts) -> Iterator[tuple[str, ObjectFacts, LabelFacts]]:
    for case in data.cases:
        if case.labels is not None and case.labels.objects is not None:
            yield case.name, case.labels.objects, case.labels


@CHECKS.register("merged numbers")
def merged(data: DataFacts) -> Iterator[Finding]:
    """One number for several objects, which then count as one."""
    for name, objects, _ in _objects(data):
        if not objects.scattered or objects.count <= 3 < len(objects.scattered):
            continue
        wrapped = objects.highest in WRAPS and len(objects.scattered) > 2
        found = f"{plural(len(objects.scattered), 'number')} of {objects.count} in several pieces"
        if wrapped:
            found += f"; the highest is {objects.highest}, where {_bits(objects)} bits end"
        yield Finding(
            "error" if wrapped else "warning",
            "merged numbers",
            name,
            f"{found}: {listed(objects.scattered)}",
            "a number for each object",
            "number the objects again (scikit-image: measure.label), in 32 bits"
            if wrapped
            else "look at them; give each object a number of its own",
        )


def _bits(objects: ObjectFacts) -> int:
    return 8 if objects.highest == WRAPS[0] else 16


@CHECKS.register("broken numbers")
def broken(data: DataFacts) -> Iterator[Finding]:
    """Numbers that arose between those of neighbours, when labels were smoothed or resized."""
    for name, objects, _ in _objects(data):
        odd = sorted({*objects.thin, *objects.specks, *objects.frayed})
        if len(odd) > max(3, BROKEN * objects.count):
            yield Finding(
                "error",
                "broken numbers",
                name,
                f"{len(odd)} of {plural(objects.count, 'number')} are seams or crumbs: "
                f"{listed(odd)}",
                "objects with an inside",
                "the labels were resized or smoothed like an image: resample them by nearest "
                "neighbour from the originals",
            )
        elif odd:
            yield Finding(
                "note",
                "crumbs",
                name,
                f"{plural(len(odd), 'number')} with crumbs of at most a few voxels, seams, or of "
                f"at most {SPECK} voxels: {listed(odd)}",
                "objects in one piece",
                "look at them",
            )


@CHECKS.register("holes in objects")
def holed(data: DataFacts) -> Iterator[Finding]:
    """Objects with a hole."""
    for name, objects, _ in _objects(data):
        if objects.holed:
            yield Finding(
                "warning" if len(objects.holed) > 2 else "note",
                "holes in objects",
                name,
                f"{plural(len(objects.holed), 'object')} with a hole: {listed(objects.holed)}",
                "objects without holes",
                "look at them; fill what is not meant",
            )


@CHECKS.register("giant object")
def giant(data: DataFacts) -> Iterator[Finding]:
    """A number that covers far more than any object: the background, or many cells at once."""
    sizes = [n for _, _, labels in _objects(data) for v, n in labels.values.items() if v]
    if len(sizes) < 20:
        return
    usual = float(np.median(sizes))
    for name, objects, labels in _objects(data):
        voxels = math.prod(labels.grid.shape)
        for value, count in labels.values.items():
            large = count > GIANT * usual and count > 0.3 * voxels and objects.count > 3
            if value and value != data.labels.ignore and large:
                yield Finding(
                    "warning",
                    "giant object",
                    name,
                    f"number {value} covers {count / voxels:.0%} of the image, "
                    f"{count / usual:.0f} times the usual object",
                    "0 for the background, and a number for each object",
                    f"if {value} is the background, make it 0; else divide the object",
                )
