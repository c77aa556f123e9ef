"""What the numbers in the label files mean, against what the card says."""

from collections.abc import Iterator

from medseg.data import LabelMap
from medseg.doctor.checks.base import CHECKS, listed, plural
from medseg.doctor.facts import CaseFacts, DataFacts, LabelFacts
from medseg.doctor.findings import Finding

THIN = 0.9  # share of the strange voxels in seams from which they are called edges
MANY = 6  # undeclared values from which they may be numbers of objects


def named_values(labels: LabelMap) -> set[int]:
    """Return every value that the card names, ``ignore`` among them."""
    named = {value for values in labels.values.values() for value in values}
    return named if labels.ignore is None else named | {labels.ignore}


@CHECKS.register("undeclared values")
def undeclared(data: DataFacts) -> Iterator[Finding]:
    """Values that the card does not name: slips, soft edges, or numbers of objects."""
    if data.kind == "instance":
        return
    named = named_values(data.labels)
    meant = ", ".join(
        f"{name} {values[0] if len(values) == 1 else list(values)}"
        for name, values in data.labels.values.items()
    )
    for case in data.cases:
        if case.labels is None:
            continue
        strange = {v: n for v, n in case.labels.values.items() if v not in named}
        if not strange:
            continue
        counted = listed(f"{value} ({plural(n, 'voxel')})" for value, n in strange.items())
        if len(strange) > 3 and case.labels.edge_share >= THIN:
            yield Finding(
                "error",
                "anti-aliased edges",
                case.name,
                f"{plural(len(strange), 'value')} that the card does not name, in seams along the "
                f"borders: {counted}",
                f"only {meant}",
                "the mask was resized or saved with soft edges: export it without smoothing, or "
                "threshold it",
            )
        elif _numbered(case.labels, strange):
            yield Finding(
                "error",
                "objects in a card of classes",
                case.name,
                f"{plural(len(strange), 'value')} that the card does not name, as if each object "
                f"had a number: {counted}",
                f"only {meant}",
                "write kind: instance in the card, or draw classes",
            )
        else:
            yield Finding(
                "error",
                "undeclared values",
                case.name,
                f"values that the card does not name: {counted}",
                f"only {meant}",
                "correct the file, or name the value under 'labels' (or as 'ignore') in the card",
            )


def _numbered(labels: LabelFacts, strange: dict[int, int]) -> bool:
    spread = max(strange) - min(strange) + 1
    return len(strange) >= MANY and spread <= 3 * len(strange) and labels.edge_share < THIN


@CHECKS.register("classes in a card of objects")
def classes_as_objects(data: DataFacts) -> Iterator[Finding]:
    """One or two numbers for many separate objects, where each should have its own."""
    for case in data.cases:
        if data.kind == "instance" and case.labels is not None and _looks_like_classes(case):
            objects = case.labels.objects
            pieces = max(s.number_of_pieces for s in case.labels.structures.values())
            yield Finding(
                "error",
                "classes in a card of objects",
                case.name,
                f"{plural(objects.count if objects else 0, 'number')} for "
                f"{plural(pieces, 'separate piece')}",
                "a number for each object",
                "number the objects, or write kind: semantic and name the classes in the card",
            )


def _looks_like_classes(case: CaseFacts) -> bool:
    labels = case.labels
    if labels is None or labels.objects is None or not labels.objects.count:
        return False
    pieces = sum(structure.number_of_pieces for structure in labels.structures.values())
    return labels.objects.count <= 3 and pieces >= 3 * labels.objects.count + 2
