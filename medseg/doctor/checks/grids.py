"""Where the voxels lie: images against their labels, and cases against each other."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from medseg.doctor.checks.base import CHECKS, plural
from medseg.doctor.facts import DataFacts
from medseg.doctor.findings import Finding
from medseg.geometry import Grid, Unit

SAME = 1.01  # factor up to which two spacings are called the same
NEAR = 1.1
FAR = 3.0


@CHECKS.register("geometry")
def geometry(data: DataFacts) -> Iterator[Finding]:
    """Labels that do not lie on their image's voxels."""
    for case in data.cases:
        if case.image is None or case.labels is None:
            continue
        image, labels = case.image.grid, case.labels.grid
        if image.matches(labels):
            continue
        found, expected = labels.describe(), image.describe()
        remedy = "draw or export the labels again on the image's own grid"
        if found == expected:
            found += f", {_place(labels)}"
            expected += f", {_place(image)}"
        elif image.shape == labels.shape and (image.unit is Unit.PX) != (labels.unit is Unit.PX):
            remedy = "only one of the files states a pixel size: state it in the dataset card"
        yield Finding("error", "geometry", case.name, f"the labels lie on {found}",
                      f"the image's grid, {expected}", remedy)  # fmt: skip


def _place(grid: Grid) -> str:
    origin = "unknown" if grid.origin is None else " ".join(f"{o:.4g}" for o in grid.origin)
    return f"first voxel at ({origin}) {grid.unit}, axes {orientation(grid)}"


def orientation(grid: Grid) -> str:
    """Return where x, y and z of the array lead, e.g. ``RAS``; empty if the file does not say."""
    if grid.direction is None or grid.spatial_dims != 3:
        return ""
    columns = np.array(grid.direction).T[::-1]
    world = [int(np.argmax(np.abs(column))) for column in columns]
    return "".join(
        ("RL", "AP", "SI")[axis][int(column[axis] < 0)]
        for axis, column in zip(world, columns, strict=True)
    )


@CHECKS.register("axes")
def axes(data: DataFacts) -> Iterator[Finding]:
    """Images with another number of axes than the card says."""
    for case in data.cases:
        if case.image is not None and case.image.grid.spatial_dims != data.spatial_dims:
            yield Finding(
                "error",
                "axes",
                case.name,
                f"the image is {case.image.grid.spatial_dims}D: {case.image.grid.describe()}",
                f"{data.spatial_dims}D, as the card says",
                "correct spatial_dims or axes in the card, or leave the case out",
            )


@CHECKS.register("pixel size")
def pixel_size(data: DataFacts) -> Iterator[Finding]:
    """Images without a pixel size: all of them, or some."""
    sized = {c.name: c.image.grid.unit is not Unit.PX for c in data.cases if c.image is not None}
    missing = [name for name, has in sized.items() if not has]
    if not missing:
        return
    remedy = "state pixel_size in the card (x, y[, z], e.g. [0.25 um, 0.25 um])"
    if len(missing) == len(sized):
        yield Finding("note", "pixel size", "", "no image states a pixel size",
                      "a size, if borders are to be judged in mm or um", remedy)  # fmt: skip
        return
    for name in missing:
        yield Finding(
            "error", "pixel size", name, "the image states no pixel size",
            f"one, as {plural(len(sized) - len(missing), 'other image')} do", remedy,
        )  # fmt: skip


@CHECKS.register("spacing")
def spacing(data: DataFacts) -> Iterator[Finding]:
    """Cases whose voxels are much larger or smaller than the others'."""
    grids = {
        case.name: case.image.grid
        for case in data.cases
        if case.image is not None
        and case.image.grid.unit is not Unit.PX
        and case.image.grid.spatial_dims == data.spatial_dims
    }
    if len(grids) < 4:
        return
    unit = Counter(grid.unit for grid in grids.values()).most_common(1)[0][0]
    sizes = np.log([grid.in_unit(unit).spacing for grid in grids.values()])
    off = np.abs(sizes - np.median(sizes, axis=0)).max(axis=1)
    alike = np.mean(off < np.log(SAME)) >= 0.8
    usual = " x ".join(f"{size:.4g}" for size in np.exp(np.median(sizes, axis=0))[::-1])
    for (name, grid), far in zip(grids.items(), off, strict=True):
        if far > np.log(NEAR if alike else FAR):
            yield Finding(
                "warning",
                "spacing",
                name,
                grid.describe(),
                f"voxels of about {usual} {unit}, as the others have",
                "compare with the scanner or microscope; set data.spacing in the job so that all "
                "are brought to one size",
            )


@CHECKS.register("orientation")
def orientations(data: DataFacts) -> Iterator[Finding]:
    """Volumes that are stored another way round than the others, or that do not say how."""
    found = {
        case.name: orientation(case.image.grid)
        for case in data.cases
        if case.image is not None and case.image.grid.spatial_dims == 3
    }
    counts = Counter(found.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for name, way in found.items():
        if way == "" or usual == "":
            if way != usual:
                yield Finding(
                    "warning",
                    "orientation",
                    name,
                    f"the axes are {way}" if way else "the file does not say where its axes lead",
                    f"axes {usual}, as most" if usual else "as most: no orientation",
                    "convert it again from its origin, with its orientation",
                )
        elif way != usual:
            yield Finding(
                "note", "orientation", name, f"stored with axes {way}", f"axes {usual}, as most",
                "none needed: volumes are turned alike before they are used",
            )  # fmt: skip
