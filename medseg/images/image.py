"""One image in memory: its array, its grid, and what its file said about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Grid


@dataclass(frozen=True)
class Image:
    """An image with its channels, or a label image.

    Args:
        array: The pixels, in the order that ``axes`` names.
        grid: Where the spatial axes lie; its shape is the array's without the channels.
        axes: ``YX``, ``ZYX``, ``CYX`` or ``CZYX``.
        channels: Names of the channels, where the file states them.
        metadata: What the reader keeps so that a writer can put it back (format specific).

    Raises:
        ValueError: Axes, array and grid disagree.
    """

    array: NDArray[Any]
    grid: Grid
    axes: str
    channels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.axes not in ("YX", "ZYX", "CYX", "CZYX"):
            raise ValueError(f"axes {self.axes!r} are none of YX, ZYX, CYX, CZYX")
        if len(self.axes) != self.array.ndim:
            raise ValueError(f"axes {self.axes} on an array of {self.array.ndim} dimensions")
        spatial = self.array.shape[1:] if self.axes.startswith("C") else self.array.shape
        if tuple(spatial) != self.grid.shape:
            raise ValueError(f"array of {spatial} on a grid of {self.grid.shape}")

    @property
    def channels_first(self) -> NDArray[Any]:
        """The array as (channels, *spatial), also where there is only one channel."""
        return self.array if self.axes.startswith("C") else self.array[np.newaxis]
