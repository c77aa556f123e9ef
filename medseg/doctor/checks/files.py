"""Files that cannot be used, and files that are there twice."""

from collections.abc import Iterator

from medseg.doctor.checks.base import CHECKS, listed
from medseg.doctor.facts import DataFacts
from medseg.doctor.findings import Finding, Severity


@CHECKS.register("reading")
def reading(data: DataFacts) -> Iterator[Finding]:
    """Files that could not be read, hold no labels, or have other channels than the card."""
    for case in data.cases:
        yield from case.findings


@CHECKS.register("no labels")
def no_labels(data: DataFacts) -> Iterator[Finding]:
    """Cases without a label file beside cases that have one."""
    without = [case.name for case in data.cases if not case.labelled]
    if without and len(without) < len(data.cases):
        for name in without:
            yield Finding(
                "warning", "no labels", name, "there is no label file for it", "a label file",
                "draw it, or keep the case out of the split",
            )  # fmt: skip


@CHECKS.register("duplicate images")
def duplicate_images(data: DataFacts) -> Iterator[Finding]:
    """Images that are equal voxel by voxel, whatever their files are called."""
    seen: dict[str, list[str]] = {}
    for case in data.cases:
        if case.image is not None:
            seen.setdefault(case.image.digest, []).append(case.name)
    part_of = data.part_of
    for names in seen.values():
        for name in names[1:]:
            sides = {part_of.get(other, "") for other in names}
            apart = len(sides - {""}) > 1
            severity: Severity = "error" if apart else "warning"
            yield Finding(
                severity,
                "duplicate images",
                name,
                f"the same image as {listed(other for other in names if other != name)}"
                + (
                    f", on both sides of the split: {listed(sorted(sides - {''}))}" if apart else ""
                ),
                "every image once",
                "remove one of them, or put them into one group",
            )


@CHECKS.register("duplicate labels")
def duplicate_labels(data: DataFacts) -> Iterator[Finding]:
    """One drawing for several images: a label file copied to the wrong name."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for case in data.cases:
        if case.image is None or case.labels is None:
            continue
        if any(structure.voxels for structure in case.labels.structures.values()):
            seen.setdefault(case.labels.digest, []).append((case.name, case.image.digest))
    for cases in seen.values():
        if len({image for _, image in cases}) > 1:
            for name, _ in cases[1:]:
                yield Finding(
                    "warning",
                    "duplicate labels",
                    name,
                    f"the same labels as {listed(n for n, _ in cases if n != name)}, "
                    f"though the images differ",
                    "labels that were drawn on this image",
                    "look at both, and copy the true label file again",
                )
