"""Lengths with units, and the grid on which an image lies.

Arrays are indexed slowest axis first: (z, y, x), or (y, x). A grid's ``shape`` and ``spacing``
follow the array, so ``spacing[i]`` belongs to axis ``i``. Texts that people read or write (job
files, cards, messages) say x, y, z, as people do; :meth:`Grid.describe` turns the order.
"""

import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


class Unit(StrEnum):
    """Unit of length; ``px`` is an image whose pixel size nobody has stated."""

    MM = "mm"
    UM = "um"
    NM = "nm"
    PX = "px"


_IN_UM = {Unit.MM: 1000.0, Unit.UM: 1.0, Unit.NM: 0.001}
_LENGTH = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(mm|um|µm|μm|nm|px|pixels?|voxels?)\s*"
)


@dataclass(frozen=True)
class Length:
    """A number with its unit, e.g. ``2 um``."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Length":
        """Read ``"2 um"``, ``"1.5 mm"``, ``"40 nm"`` or ``"3 px"``.

        Raises:
            ValueError: There is no unit, or an unknown one, or the number is not finite.
        """
        match = _LENGTH.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError(
                f'{text!r} is not a length; write a number and a unit: "2 um", "1.5 mm", "3 px"'
            )
        value = float(match[1])
        if not math.isfinite(value):
            raise ValueError(f"{text!r} is too large a number for a length")
        unit = match[2].replace("µ", "u").replace("μ", "u")
        in_pixels = unit.startswith(("px", "pix", "vox"))
        return cls(value, Unit.PX if in_pixels else Unit(unit))

    def to(self, unit: Unit) -> float:
        """Return the value in ``unit``.

        Raises:
            ValueError: One of the two is ``px`` and the other is not: pixels have no size.
        """
        if unit == self.unit:
            return self.value
        if Unit.PX in (unit, self.unit):
            raise ValueError(
                f"{self} cannot be expressed in {unit}: the image's pixel size is not known; "
                f"state it in the dataset card (pixel_size), or give the length in "
                f"{'px' if unit is Unit.PX else 'mm, um or nm'}"
            )
        return self.value * _IN_UM[self.unit] / _IN_UM[unit]

    def __str__(self) -> str:
        # Every digit, so that a saved job says what ran.
        return f"{repr(float(self.value)).removesuffix('.0')} {self.unit}"


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie.

    Args:
        shape: Voxels along each array axis, (z, y, x) or (y, x).
        spacing: Distance of neighbouring voxels along each array axis.
        unit: Unit of spacing and origin.
        origin: World position (x, y[, z]) of the first voxel's centre.
        direction: Columns are the unit vectors of the array axes in world coordinates, where x, y
            and z point to the patient's right, front and head (RAS+, as in NIfTI). None if the
            file states no orientation, as in most microscopy.

    Raises:
        ValueError: Numbers of axes disagree, or a spacing is not positive and finite.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Unit = Unit.PX
    origin: tuple[float, ...] | None = None
    direction: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.spacing):
            raise ValueError(f"{len(self.shape)} axes but {len(self.spacing)} spacings")
        if not all(math.isfinite(s) and s > 0 for s in self.spacing):
            raise ValueError(f"spacing {self.spacing} is not positive and finite")

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.shape)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """Map of array indices to world positions, (n+1, n+1), columns in array order."""
        n = self.spatial_dims
        direction = np.eye(n)[:, ::-1] if self.direction is None else np.array(self.direction)
        affine = np.eye(n + 1)
        affine[:n, :n] = direction * np.array(self.spacing)
        affine[:n, n] = self.origin or (0.0,) * n
        return affine

    def with_shape_and_spacing(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> "Grid":
        """Return a grid of the same place and orientation with other voxels."""
        return replace(self, shape=shape, spacing=spacing)

    def matches(self, other: "Grid", tolerance: float = 0.01) -> bool:
        """Tell whether both grids put every voxel in the same place.

        Corners may differ by ``tolerance`` of the finest voxel: files round their affines. A grid
        in um may match one in mm, but none whose pixel size is not known.
        Orientation counts only where both grids state it, and the origin only together with it.
        """
        if self.shape != other.shape or (self.unit is Unit.PX) != (other.unit is Unit.PX):
            return False
        mine, theirs = self, other.in_unit(self.unit)
        if None in (mine.direction, theirs.direction):
            mine, theirs = replace(mine, direction=None), replace(theirs, direction=None)
        if None in (mine.origin, theirs.origin) or mine.direction is None:
            mine, theirs = replace(mine, origin=None), replace(theirs, origin=None)
        n = self.spatial_dims
        corners = np.array(np.meshgrid(*[(0, s - 1) for s in self.shape], indexing="ij"))
        corners = np.vstack([corners.reshape(n, -1), np.ones(2**n)])
        apart = np.abs((mine.affine - theirs.affine) @ corners).max()
        return bool(apart <= tolerance * min(*mine.spacing, *theirs.spacing))

    def in_unit(self, unit: Unit) -> "Grid":
        """Return the same grid with spacing and origin in another unit of length.

        Raises:
            ValueError: One of the two units is ``px`` and the other is not.
        """
        if self.unit is unit:
            return self
        factor = Length(1.0, self.unit).to(unit)
        origin = None if self.origin is None else tuple(o * factor for o in self.origin)
        spacing = tuple(s * factor for s in self.spacing)
        return replace(self, spacing=spacing, unit=unit, origin=origin)

    def describe(self) -> str:
        """Return e.g. ``512 x 512 x 96 voxels of 0.80 x 0.80 x 2.50 mm`` (order x, y, z)."""
        shape = " x ".join(str(s) for s in reversed(self.shape))
        what = "pixels" if self.spatial_dims == 2 else "voxels"
        if self.unit is Unit.PX:
            return f"{shape} {what} of unknown size"
        spacing = " x ".join(f"{s:.4g}" for s in reversed(self.spacing))
        return f"{shape} {what} of {spacing} {self.unit}"

    def spacing_in(self, unit: Unit) -> tuple[float, ...]:
        """Return the spacing in the unit of some lengths; in ``px`` these count voxels of any size.

        Raises:
            ValueError: The unit is physical, and the pixel size is not known.
        """
        if unit is Unit.PX:
            return (1.0,) * self.spatial_dims
        return tuple(Length(side, self.unit).to(unit) for side in self.spacing)

    def length(self, length: Length) -> float:
        """Return a length in this grid's unit; ``px`` means multiples of an isotropic voxel.

        Raises:
            ValueError: A physical length on an uncalibrated grid, or pixels on unequal spacing.
        """
        if length.unit is not Unit.PX or self.unit is Unit.PX:
            return length.to(self.unit)
        if max(self.spacing) > min(self.spacing) * 1.001:
            raise ValueError(
                f"{length} has no meaning on {self.describe()}: the spacing differs between the "
                f"axes; give the length in {self.unit}"
            )
        return length.value * self.spacing[0]
