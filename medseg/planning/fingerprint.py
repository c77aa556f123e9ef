"""What the training cases of a data set have in common, measured in one pass over them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Grid, Unit
from medseg.transforms import NORMALISATIONS, Preparation

Kind = Literal["semantic", "instance"]


@dataclass(frozen=True)
class Fingerprint:
    """The numbers from which a job is planned.

    Args:
        kind: Whether labels are classes or numbered objects.
        channels: Names of the image's channels.
        structures: Names of what is to be outlined.
        unit: Of the spacings; ``px`` if any image carries no pixel size.
        shapes: Voxels of each case, array order, turned as a network will see it.
        spacings: Of each case, likewise.
        oriented: Whether all images say where the patient's right, front and head are.
        lowest: Median over the cases of the smallest intensity.
        voxels: Judged voxels of each class over all cases, background included.
        cases_with: Number of cases that hold each structure.
        diameter: Median diameter of an object in voxels, that of a ball of its size; None where
            labels are classes.
    """

    kind: Kind
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    unit: Unit
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]
    oriented: bool
    lowest: float
    voxels: dict[str, int] = field(default_factory=dict)
    cases_with: dict[str, int] = field(default_factory=dict)
    diameter: float | None = None

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.shapes[0])

    @property
    def cases(self) -> int:
        """Number of training cases."""
        return len(self.shapes)

    @property
    def median_shape(self) -> tuple[int, ...]:
        """Median voxels of a case, per axis."""
        return tuple(int(n) for n in np.median(self.shapes, axis=0))

    def share(self, structure: str) -> float:
        """Return the share of all judged voxels that are this structure."""
        return self.voxels.get(structure, 0) / max(1, sum(self.voxels.values()))


def take_fingerprint(
    cases: Iterable[tuple[NDArray[Any], NDArray[Any], Grid, dict[str, int]]],
    *,
    kind: Kind,
    channels: Sequence[str],
    structures: Sequence[str],
) -> Fingerprint:
    """Measure the training cases, one at a time.

    Args:
        cases: Of each the image (channels, *spatial), the labels (*spatial) as its file holds
            them, their grid, and the voxels of each class. A generator keeps memory small.
        kind: Whether labels are classes or numbered objects.
        channels: Names of the image's channels.
        structures: Names of what is to be outlined.

    Raises:
        ValueError: There is no case, or some are slices and others volumes.
    """
    grids: list[Grid] = []
    lowest: list[float] = []
    voxels: Counter[str] = Counter()
    cases_with: Counter[str] = Counter()
    sizes: list[float] = []
    for image, labels, grid, counts in cases:
        grids.append(_turned(grid))
        lowest.append(float(image.min()))
        voxels.update(counts)
        cases_with.update(name for name, count in counts.items() if count)
        if kind == "instance":
            areas = np.unique(labels[labels > 0], return_counts=True)[1]
            sizes += _diameters(areas, grid.spatial_dims).tolist()
    dims = {grid.spatial_dims for grid in grids}
    if len(dims) != 1:
        raise ValueError("there is no training case" if not dims else "slices and volumes at once")
    calibrated = all(grid.unit is not Unit.PX for grid in grids)
    unit = grids[0].unit if calibrated else Unit.PX
    # Without a size on every image, voxels are all that they share.
    spacings = (g.in_unit(unit).spacing if calibrated else (1.0,) * len(g.shape) for g in grids)
    return Fingerprint(
        kind=kind,
        channels=tuple(channels),
        structures=tuple(structures),
        unit=unit,
        shapes=tuple(grid.shape for grid in grids),
        spacings=tuple(spacings),
        oriented=all(grid.direction is not None for grid in grids),
        lowest=float(np.median(lowest)),
        voxels=dict(voxels),
        cases_with={name: cases_with[name] for name in structures},
        diameter=float(np.median(sizes)) if sizes else None,
    )


def _turned(grid: Grid) -> Grid:
    """Return the grid of the image as it will be turned before training."""
    as_is = NORMALISATIONS.build("none")
    return Preparation(grid.spatial_dims, None, Unit.PX, as_is).prepared_grid(grid)


def _diameters(sizes: NDArray[Any], spatial_dims: int) -> NDArray[Any]:
    """Return the diameters of discs or balls of these numbers of voxels."""
    if spatial_dims == 2:
        discs: NDArray[Any] = 2 * np.sqrt(sizes / np.pi)
        return discs
    balls: NDArray[Any] = 2 * np.cbrt(3 * sizes / (4 * np.pi))
    return balls
