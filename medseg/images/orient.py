"""Grids from what files say about place and orientation."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit

# RAS+ here and in NIfTI; DICOM and ITK point x and y the other way (LPS+).
LPS = np.array([-1.0, -1.0, 1.0])
_SHEAR = 1e-3


def oriented_grid(
    path: Path,
    shape: tuple[int, ...],
    spacing: NDArray[np.float64],
    origin: NDArray[np.float64] | None,
    direction: NDArray[np.float64] | None,
    unit: Unit,
) -> Grid:
    """Return the grid of an image from what its file says, columns in the file's order.

    Args:
        path: The file, for messages.
        shape: Of the array, (z, y, x) or (y, x).
        spacing: Along the file's axes (x, y[, z]).
        origin: Position of the first voxel, RAS+; None if not stated.
        direction: Columns are the file's axes (x, y[, z]), RAS+; None if not stated.
        unit: Unit of spacing and origin.

    Returns:
        The grid. A single slice out of a volume keeps its orientation only if it is axial.

    Raises:
        MedsegError: A spacing is not positive, or the axes are not perpendicular unit vectors.
    """
    n = len(shape)
    check_spacing(path, tuple(spacing))
    if direction is None or origin is None:
        return Grid(shape, tuple(float(s) for s in spacing[n - 1 :: -1]), unit)
    _check_perpendicular(path, direction)
    steps = tuple(float(s) for s in spacing[:n][::-1])
    if n < len(spacing) and abs(abs(direction[2, 2]) - 1) > _SHEAR:
        return Grid(shape, steps, unit)
    columns = direction[:n, :n][:, ::-1]
    place = tuple(float(p) for p in origin[:n])
    return Grid(shape, steps, unit, place, tuple(tuple(float(v) for v in row) for row in columns))


def check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    """Refuse a pixel size that is no length.

    Raises:
        MedsegError: A value is NaN, infinite, zero or negative.
    """
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        found = " x ".join(f"{s:g}" for s in spacing)
        raise MedsegError(
            f"{path}: the pixel size in the header is {found} (x, y, z); every value must be a "
            f"positive length\n  write the true pixel size into the file, then read it again"
        )


def _check_perpendicular(path: Path, direction: NDArray[np.float64]) -> None:
    products = direction.T @ direction
    worst = float(np.abs(products - np.eye(len(direction))).max())
    if not worst <= _SHEAR:
        rows = "\n".join("    " + "  ".join(f"{v: .4f}" for v in row) for row in direction)
        raise MedsegError(
            f"{path}: the axes of the image are not perpendicular (off by {worst:.3g}); distances "
            f"and borders would be wrong\n  directions, one column an axis:\n{rows}\n"
            f"  resample it onto a straight grid with the tool that made it, or correct the header"
        )
