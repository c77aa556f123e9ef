"""Random changes of place and shape, as MONAI transforms of ``image`` and ``label``.

MONAI's own take one pass each for cropping, rotation and deformation, and see the patch only;
:class:`RandWarpd` does all in one, and sees the case. A 48^3 patch with its label, rotated, scaled
and deformed on one core: 19 ms here, 138 ms with ``RandAffined`` and ``Rand3DElasticd``.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from medseg.transforms.sampling import IGNORED, crop
from medseg.transforms.sides import Sides

# Labels of which each has a mask interpolated; of more, as of many instances, the nearest is taken.
_MOST_MASKS = 9
_KEYS = ("image", "label")
Data = Mapping[Hashable, Any]


class RandWarpd(MapTransform, Randomizable):
    """Cuts a patch out of a case, rotated, scaled and elastically deformed in one interpolation.

    Args:
        patch_voxels: Size of the patch.
        degrees: Largest rotation about each axis (2D: one number). 0 for an axis keeps it.
        rotation: Probability of a rotation, uniform in +-degrees about every axis.
        scaling: Probability of a scaling, the same for all axes.
        scaling_range: Smallest and largest factor; above 1 objects become smaller.
        elastic: Probability of a deformation.
        elastic_voxels: Standard deviation of the displacements on a coarse grid of 3 points along
            each axis, interpolated bicubically (U-Net). None is 10, or a twentieth of the
            shortest side if that is less: more would fold small patches.
        flat_axis: An axis along which nothing is interpolated, as slices lie too far apart; the
            patch is warped as a stack of images, each in the same way.

    Shape:
        ``image`` (channels, *spatial), ``label`` (1, *spatial), optionally ``start``, the first
        voxel of the patch (centred by default) -> (channels, *patch), (1, *patch). Masks of the
        labels are interpolated linearly and the largest share wins (beyond 8 labels: the nearest
        voxel). Outside of the image: 0 and ``IGNORED``.
    """

    def __init__(
        self,
        patch_voxels: Sequence[int],
        *,
        degrees: Sequence[float],
        rotation: float = 0.0,
        scaling: float = 0.0,
        scaling_range: tuple[float, float] = (0.7, 1.4),
        elastic: float = 0.0,
        elastic_voxels: float | None = None,
        flat_axis: int | None = None,
    ) -> None:
        MapTransform.__init__(self, _KEYS)
        self.patch_voxels = tuple(patch_voxels)
        self.degrees = tuple(degrees)
        self.rotation, self.scaling, self.elastic = rotation, scaling, elastic
        self.scaling_range = scaling_range
        self.flat_axis = flat_axis
        # Sizes and rotation of what is interpolated: the patch, or one slice of the stack.
        self._size = tuple(n for axis, n in enumerate(self.patch_voxels) if axis != flat_axis)
        self.elastic_voxels = elastic_voxels or min(10.0, min(self._size) / 20)
        centred = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in self._size]
        self._offsets = torch.stack(torch.meshgrid(*centred, indexing="ij")).flatten(1)
        self._bicubic = [_bicubic_weights(n) for n in self._size]

    def randomize(self, data: Any = None) -> None:
        """Draw the map from the patch to the case: a matrix and coarse displacements, or none."""
        n = len(self._size)
        matrix = np.eye(n)
        rotated, scaled, bent = self.R.random_sample(3) < (
            self.rotation,
            self.scaling,
            self.elastic,
        )
        if rotated:
            matrix = _rotation(np.deg2rad([self.R.uniform(-d, d) for d in self._degrees()]), n)
        if scaled:
            matrix = matrix * self.R.uniform(*self.scaling_range)
        self.matrix = torch.from_numpy(matrix).float() if rotated or scaled else None
        self.bend: Tensor | None = None
        if bent:
            coarse = self.R.normal(0, self.elastic_voxels, (n, *(3,) * n))
            self.bend = torch.from_numpy(coarse).float()

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the patch."""
        result = dict(data)
        image, label = result["image"], result["label"]
        shape = image.shape[1:]
        start = result.pop("start", None) or tuple(
            (n - p) // 2 for n, p in zip(shape, self.patch_voxels, strict=True)
        )
        self.randomize()
        if self.matrix is None and self.bend is None:
            image = crop(image, start, self.patch_voxels, fill=0)
            label = crop(label, start, self.patch_voxels, fill=IGNORED)
        elif self.flat_axis is None:
            image, label = self._warp(image, label, start)
        else:
            image, label = self._warp_stack(image, label, start)
        return {**result, "image": image, "label": label}

    def _degrees(self) -> tuple[float, ...]:
        if self.flat_axis is None:
            return self.degrees
        return (self.degrees[self.flat_axis],)

    def _warp_stack(self, image: Tensor, label: Tensor, start: Sequence[int]) -> tuple[Tensor, ...]:
        """Warp every slice of the patch like the others, as channels of a 2D image."""
        flat = self.flat_axis or 0
        first, size = [0] * len(start), list(image.shape[1:])
        first[flat], size[flat] = start[flat], self.patch_voxels[flat]
        stacks = [
            crop(whole, first, size, fill=fill).movedim(1 + flat, 1).flatten(0, 1)
            for whole, fill in ((image, 0), (label, IGNORED))
        ]
        place = [first for axis, first in enumerate(start) if axis != flat]
        image, label = self._warp(stacks[0], stacks[1], place)
        shape = (-1, size[flat], *self._size)
        return image.view(shape).movedim(1, 1 + flat), label.view(shape).movedim(1, 1 + flat)

    def _warp(self, image: Tensor, label: Tensor, start: Sequence[int]) -> tuple[Tensor, ...]:
        where = self._where(start)
        # Read only the part of the case that the patch touches.
        low = where.amin(1).floor().int().tolist()
        high = where.amax(1).ceil().int().tolist()
        shape = image.shape[1:]
        low = [min(max(a, 0), n - 1) for a, n in zip(low, shape, strict=True)]
        size = [max(min(b + 1, n), a + 1) - a for a, b, n in zip(low, high, shape, strict=True)]
        image, label = crop(image, low, size, fill=0), crop(label, low, size, fill=IGNORED)
        grid = _normalised(where - torch.tensor(low)[:, None], size, self._size)
        values = _values(label)
        # The first is also the value outside of the image.
        names = torch.tensor([IGNORED, *(v for v in values if v != IGNORED)], dtype=label.dtype)
        if len(names) > _MOST_MASKS:
            index = torch.searchsorted(names, label.contiguous())
            return (
                _sample(image, grid, "bilinear"),
                names[_sample(index, grid, "nearest").long()],
            )
        masks = [label == name for name in names[1:]]
        warped = _sample(torch.cat([image, *masks]), grid, "bilinear")
        shares = warped[len(image) :].view(len(masks), *label.shape[:1], *self._size)
        return warped[: len(image)], _largest(shares, names)

    def _where(self, start: Sequence[int]) -> Tensor:
        """Return the place in the case of each voxel of the patch, (axes, voxels)."""
        where = self._offsets if self.matrix is None else self.matrix @ self._offsets
        if self.bend is not None:
            moved = self.bend
            for weights in self._bicubic:  # each turn interpolates one axis and puts it last
                moved = torch.tensordot(moved, weights, dims=([1], [0]))
            where = where + moved.flatten(1)
        centre = [a + (n - 1) / 2 for a, n in zip(start, self._size, strict=True)]
        return where + torch.tensor(centre)[:, None]


class RandMirrord(MapTransform, Randomizable):
    """Flips axes at random, and exchanges left and right labels when the sides are crossed.

    Args:
        axes: Spatial axes that may be flipped, from :meth:`Sides.mirror_axes`.
        sides: The sided labels.
        prob: Probability for each axis.
    """

    def __init__(self, axes: Sequence[int], sides: Sides, *, prob: float = 0.5) -> None:
        MapTransform.__init__(self, _KEYS)
        self.axes, self.sides, self.prob = tuple(axes), sides, prob

    def randomize(self, data: Any = None) -> None:
        """Draw the axes."""
        drawn = self.R.random_sample(len(self.axes)) < self.prob
        self.flipped = [axis for axis, on in zip(self.axes, drawn, strict=True) if on]

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return image and label, flipped alike."""
        result = dict(data)
        self.randomize()
        if not self.flipped:
            return result
        along = [1 + axis for axis in self.flipped]
        result.update({key: result[key].flip(along) for key in self.keys})
        if self.sides.pairs and self.sides.axis in self.flipped:
            result["label"] = self.sides.swapped(result["label"])
        return result


class RandQuarterTurnd(MapTransform, Randomizable):
    """Turns by 0, 90, 180 or 270 degrees in one plane, all equally likely.

    Args:
        plane: Two spatial axes of the same length.
        prob: Probability that a turn is drawn at all.
    """

    def __init__(self, plane: tuple[int, int], *, prob: float = 1.0) -> None:
        MapTransform.__init__(self, _KEYS)
        self.plane, self.prob = plane, prob

    def randomize(self, data: Any = None) -> None:
        """Draw the number of quarter turns."""
        drawn = self.R.random_sample() < self.prob
        self.turns = int(self.R.randint(4)) if drawn else 0

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return image and label, turned alike."""
        result = dict(data)
        self.randomize()
        if self.turns:
            plane = [1 + axis for axis in self.plane]
            result.update({key: torch.rot90(result[key], self.turns, plane) for key in self.keys})
        return result


def _rotation(angles: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the product of the rotations about each axis (2D: of the one rotation)."""
    planes = [(0, 1)] if n == 2 else [(1, 2), (0, 2), (0, 1)]
    matrix = np.eye(n)
    for (a, b), angle in zip(planes, angles, strict=True):
        turn = np.eye(n)
        turn[[a, b], [a, b]] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _bicubic_weights(n: int) -> Tensor:
    """Return the weights (3, n) of three points at the start, middle and end of an axis."""
    points = torch.eye(3)[None, :, None]
    return interpolate(points, (1, n), mode="bicubic", align_corners=True)[0, :, 0]


def _values(label: Tensor) -> list[int]:
    """Return the sorted values of a label; counting is ten times faster than ``unique``."""
    low, high = (int(value) for value in label.aminmax())
    if high - low > 2**16:
        return [int(value) for value in torch.unique(label)]
    counts = torch.bincount((label - low).flatten())
    return [low + int(value) for value in counts.nonzero()]


def _largest(shares: Tensor, names: Tensor) -> Tensor:
    """Return the name of the largest share; the first name has what the others leave of 1.

    One class at a time: ``argmax`` over the leading axis takes five times as long.
    """
    best = 1 - shares.sum(0)  # unjudged, or outside of the image
    result = torch.full(best.shape, int(names[0]), dtype=names.dtype)
    for share, name in zip(shares, names[1:], strict=True):
        wins = share > best
        result = torch.where(wins, name, result)
        best = torch.maximum(share, best)
    return result


def _normalised(where: Tensor, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return indices (axes, voxels) as ``grid_sample`` wants them: x first, the image in +-1."""
    n = torch.tensor(shape, dtype=torch.float32)[:, None]
    scaled = (2 * where + 1) / n - 1
    return scaled.flip(0).T.reshape(1, *size, len(shape))


def _sample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return grid_sample(image[None].float(), grid, mode, "zeros", align_corners=False)[0]
