"""From an image as it was acquired to what a network sees, and back."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.geometry import Grid, Length, Unit
from medseg.transforms.normalisation import NORMALISATIONS, Normalisation
from medseg.transforms.resampling import (
    resample,
    resample_by_slice,
    resample_labels,
    respaced_grid,
    turn,
    turn_back,
    turn_to_canonical,
    turned_grid,
)


@dataclass(frozen=True)
class Prepared:
    """An image as a network sees it.

    Args:
        tensor: (channels, *spatial), float32.
        grid: Where its voxels lie.
        resampled: Whether the voxels differ from the image's own (not only their order).
    """

    tensor: Tensor
    grid: Grid
    resampled: bool


@dataclass(frozen=True)
class Preparation:
    """What happens to every image before the network: deterministic, and undone by ``restore``.

    An image is turned to one orientation, its intensities are normalised, and it is resampled.
    The prepared grid has exactly the spacing asked for and the centre of the image, so its border
    may lie up to half a voxel inside or outside of the image's; there the image's border repeats.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        spacing: The network's grid, (z, y, x) or (y, x) *after* turning; None keeps each image's
            own. An axis within 1 % of it is left as it is.
            An axis of None keeps its own.
        unit: Unit of ``spacing``. In ``px``, the spacing is in multiples of each image's own
            voxel: 2 halves the resolution.
        normalisation: One of NORMALISATIONS.
        canonical: Turn volumes whose grid states an orientation so that x, y, z point to the
            patient's right, front and head. Turning only permutes and flips axes: an oblique
            image stays oblique.
        interpolation: Of images; labels and scores are always interpolated linearly.

    Raises:
        ValueError: The spacing has another number of axes or is not positive.
    """

    spatial_dims: int
    spacing: tuple[float | None, ...] | None
    unit: Unit
    normalisation: Normalisation
    canonical: bool = True
    interpolation: Literal["linear", "cubic"] = "linear"

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is 2 or 3, got {self.spatial_dims}")
        if self.interpolation not in ("linear", "cubic"):
            raise ValueError(f'interpolation is "linear" or "cubic", got "{self.interpolation}"')
        if self.spacing is None:
            return
        stated = [length for length in self.spacing if length is not None]
        if len(self.spacing) != self.spatial_dims or min(stated, default=1) <= 0:
            raise ValueError(
                f"spacing needs {self.spatial_dims} positive lengths, got {self.spacing}"
            )

    def prepare(self, array: NDArray[Any], grid: Grid) -> Prepared:
        """Return the image as the network sees it.

        Args:
            array: (channels, *spatial), of any real type.
            grid: Its grid.

        Raises:
            ValueError: Array and grid disagree, the image has values that are not finite, or the
                spacing is physical and the image's pixel size is not known.
        """
        if array.ndim != self.spatial_dims + 1 or array.shape[1:] != grid.shape:
            raise ValueError(
                f"an image of shape {array.shape} on a grid of {grid.shape}: expected channels "
                f"and {self.spatial_dims} spatial axes, those of the grid"
            )
        broken = 0 if array.dtype.kind in "iub" else int((~np.isfinite(array)).sum())
        if broken:
            raise ValueError(f"{broken} voxels are not finite (NaN or infinite); mend the file")
        turned, target = self._grids(grid)
        image = torch.from_numpy(np.ascontiguousarray(array, np.float32))
        image = self.normalisation(self._turned(image, grid).contiguous())
        image = resample_by_slice(image, turned, target, self.interpolation)
        return Prepared(image.contiguous(), target, resampled=turned != target)

    def prepare_labels(self, labels: NDArray[Any], grid: Grid) -> Tensor:
        """Return labels on the prepared grid.

        Args:
            labels: (*spatial), integers that fit 32 bits with a sign.
            grid: Their grid.

        Returns:
            (1, *prepared), int32. When resampled, the mask of each label is interpolated linearly
            and the largest share wins; beyond 256 labels, the nearest voxel is taken.

        Raises:
            ValueError: Labels and grid disagree, or are no integers of 32 bits.
        """
        if labels.shape != grid.shape or grid.spatial_dims != self.spatial_dims:
            raise ValueError(f"labels of shape {labels.shape} on a grid of {grid.shape}")
        fits = labels.dtype.kind in "iub" and labels.max(initial=0) < 2**31
        if not fits:
            raise ValueError(f"labels must be integers below 2^31, got {labels.dtype}")
        turned, target = self._grids(grid)
        values = torch.from_numpy(np.ascontiguousarray(labels, np.int32))[None]
        values = self._turned(values, grid).contiguous()
        return resample_labels(values, turned, target).contiguous()

    def restore(self, scores: Tensor, grid: Grid) -> Tensor:
        """Return scores of the prepared image on the image's own grid.

        Linear on every axis, across far slices too (nnU-Net takes the nearest there): scores vary
        smoothly. Class by class, so that little memory is needed beside the result.

        Args:
            scores: (classes, *prepared), e.g. probabilities.
            grid: The grid of the image as it was acquired.

        Returns:
            (classes, *original), float32, on the scores' device.

        Raises:
            ValueError: The scores do not have the shape of the prepared image.
        """
        turned, target = self._grids(grid)
        _check_shape(scores, target)
        result = torch.empty((len(scores), *grid.shape), device=scores.device)
        for index, one in enumerate(scores):
            own = resample(one[None].float(), target, turned, "linear")
            result[index] = self._turned_back(own, grid)[0]
        return result

    def restore_labels(self, labels: Tensor, grid: Grid) -> Tensor:
        """Return labels of the prepared image on the image's own grid, nearest neighbour.

        Args:
            labels: (1, *prepared), integers.
            grid: The grid of the image as it was acquired.

        Returns:
            (1, *original), of the labels' type.

        Raises:
            ValueError: The labels do not have the shape of the prepared image.
        """
        turned, target = self._grids(grid)
        _check_shape(labels, target)
        if turned != target:
            labels = resample_labels(labels, target, turned, most=0)
        return self._turned_back(labels, grid).contiguous()

    def prepared_grid(self, grid: Grid) -> Grid:
        """Return the grid on which an image would be prepared."""
        return self._grids(grid)[1]

    def sagittal_axis(self, grid: Grid) -> int | None:
        """Return the array axis of the prepared image that crosses left and right, if known."""
        direction = self.prepared_grid(grid).direction
        return None if direction is None else int(np.abs(direction[0]).argmax())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "spatial_dims": self.spatial_dims,
            "spacing": None if self.spacing is None else list(self.spacing),
            "unit": str(self.unit),
            "normalisation": self.normalisation.to_dict(),
            "canonical": self.canonical,
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Preparation":
        """Return the preparation that :meth:`to_dict` described.

        Raises:
            ValueError: The normalisation or one of its settings is not known.
        """
        values = dict(saved)
        settings = dict(values.pop("normalisation"))
        normalisation = NORMALISATIONS.build(settings.pop("name"), **settings)
        spacing = values.pop("spacing")
        return cls(
            spacing=None if spacing is None else tuple(s and float(s) for s in spacing),
            unit=Unit(values.pop("unit")),
            normalisation=normalisation,
            **values,
        )

    def _grids(self, grid: Grid) -> tuple[Grid, Grid]:
        """Return the grid after turning, and after resampling too."""
        turned = turned_grid(grid, turn_to_canonical(grid)) if self._turns(grid) else grid
        if self.spacing is None:
            return turned, turned
        if self.unit is Unit.PX:
            own = tuple(s * (t or 1) for s, t in zip(turned.spacing, self.spacing, strict=True))
        else:
            own = tuple(
                s if t is None else Length(t, self.unit).to(grid.unit)
                for s, t in zip(turned.spacing, self.spacing, strict=True)
            )
        return turned, respaced_grid(turned, own)

    def _turns(self, grid: Grid) -> bool:
        return self.canonical and self.spatial_dims == 3 and grid.direction is not None

    def _turned(self, image: Tensor, grid: Grid) -> Tensor:
        return turn(image, turn_to_canonical(grid)) if self._turns(grid) else image

    def _turned_back(self, image: Tensor, grid: Grid) -> Tensor:
        return turn_back(image, turn_to_canonical(grid)) if self._turns(grid) else image


def _check_shape(image: Tensor, grid: Grid) -> None:
    if tuple(image.shape[1:]) != grid.shape:
        raise ValueError(
            f"scores of {tuple(image.shape[1:])} voxels for an image that is prepared to "
            f"{grid.shape}: was it prepared with the same settings?"
        )
