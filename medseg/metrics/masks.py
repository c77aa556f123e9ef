"""Two masks of one structure in one case, and what all their metrics share.

A mask metric is a plain function of one :class:`MaskPair`. The pair checks the grid once and keeps
the expensive parts (counts, border elements, their distances), so that ten metrics cost little more
than one.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Unit
from medseg.metrics.borders import BORDERS, Border
from medseg.registry import Registry

METRICS: Registry[float] = Registry("metric", given=("pair",))

Status = Literal["ok", "both_empty", "empty_reference", "empty_prediction"]


class Counts(NamedTuple):
    """Voxels of the reference, of the prediction, and of both at once."""

    reference: int
    prediction: int
    shared: int


class MaskPair:
    """The reference and the prediction of one structure, on one grid.

    Args:
        reference: Mask as drawn, (z, y, x) or (y, x), boolean or only 0 and 1.
        prediction: Mask to be judged, of the same shape.
        spacing: Distance of neighbouring voxels along each array axis; 1 if not given.
        unit: Unit of the spacing, and so of every distance: ``mm``, ``um``, ``nm`` or ``px``.
        backend: ``surface`` measures between area-weighted border elements; ``voxel`` between
            centres of border voxels, as MONAI and MetricsReloaded do, to compare with a paper.

    Raises:
        ValueError: Shapes differ, the masks are neither 2D nor 3D or hold other values than 0 and
            1, or the spacing is not positive and finite.
    """

    def __init__(
        self,
        reference: NDArray[Any],
        prediction: NDArray[Any],
        spacing: Sequence[float] | None = None,
        unit: str | Unit = Unit.PX,
        backend: Literal["surface", "voxel"] = "surface",
    ) -> None:
        self.reference = _as_mask("reference", reference)
        self.prediction = _as_mask("prediction", prediction)
        check_same_shape(self.reference, self.prediction)
        self.spacing = checked_spacing(spacing, self.reference.ndim)
        self.unit = Unit(unit)
        if backend not in BORDERS:
            raise ValueError(f'backend "{backend}" is none of {", ".join(BORDERS)}')
        self.backend = backend

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return self.reference.ndim

    @property
    def diagonal(self) -> float:
        """Length of the image's diagonal in the pair's unit: no distance is longer."""
        return image_diagonal(self.reference.shape, self.spacing)

    @cached_property
    def counts(self) -> Counts:
        """Voxels of the reference, of the prediction, and of both at once."""
        return Counts(
            int(np.count_nonzero(self.reference)),
            int(np.count_nonzero(self.prediction)),
            int(np.count_nonzero(self.reference & self.prediction)),
        )

    @property
    def status(self) -> Status:
        """Whether both masks hold something, and if not, which is empty."""
        if self.counts.reference and self.counts.prediction:
            return "ok"
        if self.counts.prediction:
            return "empty_reference"
        return "empty_prediction" if self.counts.reference else "both_empty"

    @cached_property
    def border_distances(self) -> tuple[Border, Border]:
        """Both borders: the reference's towards the prediction's, and the other way round.

        Each :class:`~medseg.metrics.borders.Border` has one entry per border element:
        ``distances`` (to the nearest element of the other border), ``areas`` (what the element
        weighs) and ``points`` (where it lies, in voxel coordinates). Distances are in the pair's
        unit; they are NaN where the other mask is empty. An empty mask has no elements.
        """
        return BORDERS[self.backend](self.reference, self.prediction, self.spacing)


def checked_spacing(spacing: Sequence[float] | None, spatial_dims: int) -> tuple[float, ...]:
    """Return the spacing as one positive number per axis; 1 for each if none is given.

    Raises:
        ValueError: There is not one positive, finite number for each axis.
    """
    if spacing is None:
        return (1.0,) * spatial_dims
    values = tuple(float(value) for value in spacing)
    if len(values) != spatial_dims:
        raise ValueError(f"spacing {values} has {len(values)} numbers for {spatial_dims} axes")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"spacing {values} is not positive and finite")
    return values


def check_same_shape(reference: NDArray[Any], prediction: NDArray[Any]) -> None:
    """Refuse two arrays that do not lie on one 2D or 3D grid.

    Raises:
        ValueError: Shapes differ, or the arrays are neither 2D nor 3D.
    """
    if reference.shape != prediction.shape:
        raise ValueError(
            f"reference of {reference.shape} and prediction of {prediction.shape} voxels do not "
            f"lie on one grid; resample the prediction onto the reference first"
        )
    if reference.ndim not in (2, 3):
        raise ValueError(
            f"arrays of {reference.ndim} axes, expected (y, x) or (z, y, x); "
            f"give one image and one structure at a time"
        )


def image_diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Return the length of the image's diagonal, from outer corner to outer corner."""
    return math.hypot(*(n * s for n, s in zip(shape, spacing, strict=True)))


def _as_mask(which: str, array: NDArray[Any]) -> NDArray[np.bool_]:
    array = np.asarray(array)
    if array.dtype == np.bool_:
        return array
    mask: NDArray[np.bool_] = array != 0
    if not np.array_equal(array, mask):
        raise ValueError(
            f"{which} holds values from {array.min()} to {array.max()}, a mask only 0 and 1; "
            f"choose one structure first, e.g. labels == 3"
        )
    return mask
