"""Fully connected conditional random field: border voxels join the side that looks like them.

Every pair of voxels is a neighbour. A pair that is near and of like intensity pulls towards one
class with the bilateral kernel, a pair that is very near with the smoothness kernel:

    k(i, j) = w1 exp(-|pi - pj|^2 / 2 sp^2 - |Ii - Ij|^2 / 2 si^2) + w2 exp(-|pi - pj|^2 / 2 ss^2)

Ten mean-field iterations multiply the network's probabilities by exp(sum over j of k(i, j) Qj).

Source: Kraehenbuehl & Koltun, NIPS 2011, arXiv:1210.5644; as DeepLab uses it, Chen et al.,
arXiv:1412.7062. As in pydensecrf each kernel is divided by the square roots of both voxels' sums
over all voxels (symmetric normalisation), and a voxel is its own neighbour (the sums include
j = i), so weights mean the same here and there. Ours differs in how the sums are made: exactly for
small images, and for large ones on a grid over position and intensity (Chen, Paris & Durand,
SIGGRAPH 2007) with linear interpolation instead of the permutohedral lattice: it needs no compiler
and its error is chosen with ``cells_per_sigma``. Positions are physical lengths, in 2D and 3D.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

Array = NDArray[Any]
Kernel = Callable[[NDArray[np.float32]], NDArray[np.float32]]

EXACT_UP_TO = 1024
"""Voxels up to which ``auto`` is exact: 32 x 32 or 10 x 10 x 10."""
MOST_BYTES = 2**32
"""What the grid may need, as far as it can be told beforehand: 4 GiB."""
MOST_CELLS = 16
"""Cells across a sigma at the most: two are within half a percent of exact."""
WHOLE_BOX = 2**21
"""Cells up to which the grid holds empty ones, too."""
_BLOCK = 2**22  # entries of a kernel matrix that are made at once
_KEPT = 2**24  # entries up to which the whole matrix is kept


@dataclass(frozen=True)
class DenseCRF:
    """A fully connected CRF for images of any size, 2D and 3D, with any number of channels.

    Args:
        bilateral_weight: Pull of near voxels of like intensity, w1; 0 leaves the kernel out.
        sigma_position: How far it reaches, a length in the unit of the spacing.
        sigma_intensity: Difference of intensity across which it fades, in units of the prepared
            image; one for all channels, or one a channel. A tenth to a third of the contrast.
        smooth_weight: Pull of very near voxels whatever they look like, w2; 0 leaves it out.
        sigma_smooth: How far that reaches, a length in the unit of the spacing.
        iterations: Mean-field iterations.
        method: ``exact`` sums over all pairs: a second for 64 x 64 voxels, hours for 512 x 512.
            ``grid`` is fast for any size. ``auto`` is exact up to 1024 voxels.
        cells_per_sigma: Cells of the grid across each sigma, 16 at the most. More are closer to
            exact and slower.
            A grid too large for empty cells has one at the most: finer ones would leave gaps.

    Raises:
        ValueError: A sigma is not positive, a weight is negative, or cells are too many.
    """

    bilateral_weight: float = 4.0
    sigma_position: float = 10.0
    sigma_intensity: float | tuple[float, ...] = 0.3
    smooth_weight: float = 1.0
    sigma_smooth: float = 1.0
    iterations: int = 10
    method: Literal["auto", "exact", "grid"] = "auto"
    cells_per_sigma: float = 1.0

    def __post_init__(self) -> None:
        for name in ("bilateral_weight", "smooth_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a weight, zero or more, got {getattr(self, name)}")
        for name in ("sigma_position", "sigma_intensity", "sigma_smooth", "cells_per_sigma"):
            values = getattr(self, name)
            if not all(0 < value < math.inf for value in np.atleast_1d(values).tolist()):
                raise ValueError(f"{name} must be positive and finite, got {values}")
        if self.cells_per_sigma > MOST_CELLS:
            raise ValueError(
                f"cells_per_sigma is {MOST_CELLS} at the most, got {self.cells_per_sigma}; for "
                f'what is closer to exact, take method "exact"'
            )
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if self.method not in ("auto", "exact", "grid"):
            raise ValueError(f'method is "auto", "exact" or "grid", got "{self.method}"')

    @overload
    def refine(self, probabilities: Tensor, image: Any, spacing: Sequence[float]) -> Tensor: ...
    @overload
    def refine(
        self, probabilities: Array, image: Any, spacing: Sequence[float]
    ) -> NDArray[np.float32]: ...
    def refine(self, probabilities: Any, image: Any, spacing: Sequence[float]) -> Any:
        """Return class probabilities that follow the edges of the image.

        The work is done on the CPU in float32 (the exact sums in float64). Memory beside the
        arguments: about 8 arrays like ``probabilities``, and the grid: 8 bytes times
        2^(spatial axes + channels) a voxel, and where it holds occupied cells only (three
        channels or more), several hundred bytes a cell, of which a noisy image has up to
        2^(axes + channels) a voxel.

        Args:
            probabilities: (classes, *spatial), numbers from 0 to 1 that sum to 1; an array or a
                tensor.
            image: (channels, *spatial), the intensities that the edges are looked for in.
            spacing: Distance of neighbouring voxels along each axis, in the sigmas' unit.

        Returns:
            (classes, *spatial), float32, an array or a tensor on the probabilities' device.

        Raises:
            ValueError: Shapes do not fit, values are not finite or no probabilities, or so many
                channels that the grid becomes too large.
        """
        given, seen = _as_array(probabilities), _as_array(image)
        self._check(given, seen, spacing)
        spatial = given.shape[1:]
        # (voxels, classes). Softmax in float32 may say 0, from which nothing could lead back.
        start = np.maximum(np.moveaxis(given, 0, -1).reshape(-1, len(given)), 1e-8)
        kernel = self._kernel(seen, spatial, tuple(map(float, spacing)), len(given))
        current = start
        # Probabilities sum to 1, so that one class's message is the rest of all voxels' sum.
        total = kernel(np.ones((len(start), 1), np.float32))
        for _ in range(self.iterations):
            message = kernel(np.ascontiguousarray(current[:, :-1]))
            message = np.hstack([message, total - message.sum(1, keepdims=True)])
            message -= message.max(1, keepdims=True)
            current = start * np.exp(message, out=message)
            current /= current.sum(1, keepdims=True)
        refined = np.moveaxis(current.reshape(*spatial, -1), -1, 0)
        if isinstance(probabilities, Tensor):
            return torch.from_numpy(np.ascontiguousarray(refined)).to(probabilities.device)
        return np.ascontiguousarray(refined)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = asdict(self)
        if not isinstance(self.sigma_intensity, int | float):
            values["sigma_intensity"] = list(self.sigma_intensity)
        return values

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "DenseCRF":
        """Return the CRF that :meth:`to_dict` described.

        Raises:
            ValueError: A setting is not known, or has no sense.
        """
        unknown = set(saved) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"a CRF has no {', '.join(sorted(unknown))}; it has "
                f"{', '.join(cls.__dataclass_fields__)}"
            )
        values = dict(saved)
        if isinstance(values.get("sigma_intensity"), list):
            values["sigma_intensity"] = tuple(values["sigma_intensity"])
        return cls(**values)

    def _kernel(
        self, image: Array, spatial: tuple[int, ...], spacing: tuple[float, ...], classes: int
    ) -> Kernel:
        """Return the function from (voxels, classes) to the weighted sum of both kernels."""
        axes = [np.arange(n) * s for n, s in zip(spatial, spacing, strict=True)]
        positions = np.stack([p.ravel() for p in np.meshgrid(*axes, indexing="ij")])
        sigmas = np.broadcast_to(self.sigma_intensity, len(image)).reshape(-1, 1)
        intensities = image.reshape(len(image), -1) / sigmas
        features = np.concatenate([positions / self.sigma_position, intensities])
        exact = self.method == "exact" or (
            self.method == "auto" and math.prod(spatial) <= EXACT_UP_TO
        )
        kernels: list[tuple[float, Kernel]] = []
        part: Kernel
        if self.bilateral_weight:
            part = (
                _Exact(features)
                if exact
                else _Grid(features, spatial, self.cells_per_sigma, classes)
            )
            kernels.append((self.bilateral_weight, part))
        if self.smooth_weight:
            part = (
                _Exact(positions / self.sigma_smooth)
                if exact
                else _Smoothing(spatial, [self.sigma_smooth / s for s in spacing])
            )
            kernels.append((self.smooth_weight, part))

        def kernel(values: NDArray[np.float32]) -> NDArray[np.float32]:
            result = np.zeros_like(values)
            for weight, one in kernels:
                result += np.float32(weight) * one(values)
            return result

        return kernel

    def _check(self, probabilities: Array, image: Array, spacing: Sequence[float]) -> None:
        dims = probabilities.ndim - 1
        if dims not in (2, 3) or len(probabilities) < 2:
            raise ValueError(
                f"probabilities of shape {probabilities.shape}: expected two or more classes and "
                f"2 or 3 spatial axes, (classes, *spatial)"
            )
        if image.ndim != dims + 1 or image.shape[1:] != probabilities.shape[1:] or not len(image):
            raise ValueError(
                f"an image of shape {image.shape} for probabilities of {probabilities.shape}: "
                f"expected (channels, *{probabilities.shape[1:]})"
            )
        if not probabilities.size:
            raise ValueError(f"probabilities of shape {probabilities.shape} hold no voxel")
        if len(spacing) != dims or not all(0 < s < math.inf for s in spacing):
            raise ValueError(f"spacing needs {dims} positive lengths, got {tuple(spacing)}")
        if np.size(self.sigma_intensity) not in (1, len(image)):
            raise ValueError(
                f"sigma_intensity has {np.size(self.sigma_intensity)} values for an image of "
                f"{len(image)} channels; give one for all, or one a channel"
            )
        if not np.isfinite(image).all():
            raise ValueError("the image has values that are not finite (NaN or infinite)")
        sums = probabilities.sum(0)
        if not (probabilities.min() >= 0 and np.abs(sums - 1).max() <= 1e-3):
            raise ValueError(
                f"probabilities must be 0 or more and sum to 1 over the classes; they go from "
                f"{probabilities.min():.4g} and sum to {sums.min():.4g} .. {sums.max():.4g}; "
                f"are they logits? take their softmax"
            )


class _Exact:
    """A Gaussian kernel over all pairs of voxels, in float64, some rows at a time.

    Args:
        features: (axes, voxels), in sigmas.
    """

    def __init__(self, features: Array) -> None:
        self._features = features.astype(np.float64).T
        self._squares = np.square(self._features).sum(1)
        count = len(self._features)
        rows = max(1, _BLOCK // count)
        self._parts = [slice(at, at + rows) for at in range(0, count, rows)]
        sums = [self._rows(part).sum(1) for part in self._parts]
        self._scale = 1 / np.sqrt(np.concatenate(sums))[:, None]
        # The matrix of a small image is worth keeping for the iterations.
        self._kept = [self._rows(part) for part in self._parts] if count**2 <= _KEPT else None

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = values * self._scale
        blocks = self._kept or (self._rows(part) for part in self._parts)
        result = np.concatenate([block @ scaled for block in blocks])
        return np.asarray(result * self._scale, np.float32)

    def _rows(self, part: slice) -> NDArray[np.float64]:
        far = self._features[part] @ self._features.T
        far *= -2
        far += self._squares[part, None] + self._squares
        far *= -0.5
        kernel: NDArray[np.float64] = np.exp(np.minimum(far, 0, out=far), out=far)
        return kernel


class _Grid:
    """The same kernel on a grid over position and intensity that holds only occupied cells.

    A voxel is shared out among the 2^axes cells around it with linear weights, the cells are
    blurred along one axis after the other, and each voxel reads its cells with the same weights.
    As a matrix, K = S B S', symmetric like the exact one. A small grid holds empty cells, too. In
    a large one, blurring goes only over occupied cells: what would pass through an empty cell is
    lost, so the axes are taken in both orders and averaged, which leaves B symmetric.

    Args:
        features: (axes, voxels), in sigmas.
        spatial: Voxels along the first of these axes.
        cells: Least number of cells across a sigma, fewer where voxels are farther apart, and one
            in a large grid.
        classes: Of the values that will be summed, for what they will need.

    Raises:
        ValueError: The grid is too large.
    """

    def __init__(self, features: Array, spatial: Sequence[int], cells: float, classes: int) -> None:
        low = features.min(1)
        extent = features.max(1) - low
        # Over a hundredth of a sigma the kernel falls by 5e-5.
        used = np.flatnonzero(extent > 0.01)
        counts = _cell_counts(extent, spatial, cells)
        if cells > 1 and math.prod(counts[used] + 1) > WHOLE_BOX:
            # The finer the cells, the more gaps between occupied ones.
            counts = _cell_counts(extent, spatial, 1.0)
        channels = len(features) - len(spatial)
        box = math.prod(int(count) + 1 for count in counts[used])
        if box > 2**62:
            raise ValueError(
                f"sigma_intensity is too small for {channels} channel(s): the grid over position "
                f"and intensity has more cells than can be numbered; take a larger one, or give "
                f"the CRF fewer channels"
            )
        voxels = features.shape[1]
        table = 8 * voxels * 2 ** len(used)
        _check_memory(table, voxels, channels)
        corners = list(product((0, 1), repeat=len(used)))
        sides = [int(count) + 1 for count in counts[used]]
        strides = [math.prod(sides[axis + 1 :]) for axis in range(len(sides))]
        number: Any = np.int32 if box < 2**31 else np.int64
        base = np.zeros(voxels, number)
        fractions = []
        for axis, side, stride in zip(used, sides, strides, strict=True):
            at = (features[axis] - low[axis]) * (counts[axis] / extent[axis])
            cell = np.minimum(at.astype(number), side - 2)
            base += cell * number(stride)
            fractions.append((at - cell).astype(np.float32))
        taps = [
            _taps(counts[axis] / extent[axis], fraction)[:side]
            for axis, side, fraction in zip(used, sides, fractions, strict=True)
        ]
        self._sides = sides if box <= WHOLE_BOX else None
        offsets = [sum(c * s for c, s in zip(corner, strides, strict=True)) for corner in corners]
        places = np.empty((voxels, len(corners)), np.int32)
        if self._sides is not None:
            for index, offset in enumerate(offsets):
                places[:, index] = base + number(offset)
            self._bands = [_band(side, weights) for side, weights in zip(sides, taps, strict=True)]
        else:
            # A pair of cells is 8 bytes, and 24 more while its axis is made; a class is 5 numbers.
            lengths = [len(weights) - 1 for weights in taps]
            cell_bytes = 8 * sum(lengths) + 24 * max(lengths) + 20 * classes
            first, where = np.unique(base, return_inverse=True)
            keys = first
            for stride in strides:
                keys = np.union1d(keys, keys + number(stride))
                _check_memory(table + len(keys) * cell_bytes, voxels, channels)
            for index, offset in enumerate(offsets):
                places[:, index] = np.searchsorted(keys, first + number(offset))[where]
            self._blurs = [
                (np.float32(weights[0]), _pairs(keys, side, stride, weights))
                for side, stride, weights in zip(sides, strides, taps, strict=True)
            ]
        shares = np.ones((voxels, len(corners)), np.float32)
        for index, corner in enumerate(corners):
            for fraction, upper in zip(fractions, corner, strict=True):
                shares[:, index] *= fraction if upper else 1 - fraction
        starts = np.arange(voxels + 1, dtype=np.int32) * np.int32(len(corners))
        self._share = sparse.csr_matrix(
            (shares.ravel(), places.ravel(), starts),
            shape=(voxels, len(keys) if self._sides is None else box),
        )
        self._scale: NDArray[np.float32] = np.ones((voxels, 1), np.float32)
        sums = self(self._scale)
        # A voxel is its own neighbour, so a sum below one is an error of the grid.
        self._scale = np.maximum(sums, np.float32(1)) ** np.float32(-0.5)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        cells = self._share.T @ (values * self._scale)
        result: NDArray[np.float32] = self._share @ self._blurred(cells)
        result *= self._scale
        return result

    def _blurred(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._sides is not None:
            image = cells.reshape(*self._sides, -1)
            for axis, band in enumerate(self._bands):
                image = _along(image, axis, *band)
            return image.reshape(cells.shape)
        there = back = cells
        for centre, pairs in self._blurs:
            there = centre * there + pairs @ there + pairs.T @ there
        for centre, pairs in reversed(self._blurs):
            back = centre * back + pairs @ back + pairs.T @ back
        return (there + back) * np.float32(0.5)


def _check_memory(needed: int, voxels: int, channels: int) -> None:
    if needed > MOST_BYTES:
        raise ValueError(
            f"{voxels} voxels with {channels} channel(s) need {needed / 2**30:.3g} GiB or more, "
            f"and {MOST_BYTES / 2**30:.0f} is the most; give the CRF fewer channels, a larger "
            f"sigma_intensity, a larger spacing or a part of the image"
        )


def _cell_counts(extent: Array, spatial: Sequence[int], cells: float) -> NDArray[np.float64]:
    """Return the number of cells along each axis."""
    counts: NDArray[np.float64] = np.maximum(np.ceil(extent * cells - 1e-6), 1)
    # With a cell's corner at every voxel, positions are exact.
    counts[: len(spatial)] = np.minimum(counts[: len(spatial)], np.maximum(spatial, 2) - 1)
    return counts


def _taps(cells: float, fractions: NDArray[np.float32]) -> list[float]:
    """Return the blur that makes a Gaussian together with the linear weights.

    Sharing out and reading blur, too: each by the mean variance of its weights, f (1 - f). The
    frequencies of the Gaussian are divided by those of a spread of three cells with twice that
    variance; where voxels fall anywhere in a cell, that is the interpolation of cubic B-splines.

    Args:
        cells: Cells across a sigma.
        fractions: Where voxels lie between two cells of the axis, 0 to 1.

    Returns:
        Weights at 0, 1, 2, ... cells, cut where they fall below a thousandth.
    """
    spread = float(np.mean(fractions * (1 - fractions)))
    count = 2 ** max(8, math.ceil(math.log2(16 * cells)))  # the Gaussian must end within
    steps = np.fft.fftfreq(count, 1 / count)
    gaussian = np.fft.fft(np.exp(-0.5 * (steps / cells) ** 2)).real
    # At most 0.5, where all voxels lie amid two cells: that cannot be undone wholly.
    linear = np.maximum(1 - 2 * spread * (1 - np.cos(2 * np.pi * steps / count)), 0.1)
    taps = np.fft.ifft(gaussian / linear).real[: count // 2]
    return [float(value) for value in taps[: np.flatnonzero(np.abs(taps) > 1e-3)[-1] + 1]]


def _pairs(keys: Array, side: int, stride: int, weights: Sequence[float]) -> sparse.csr_matrix:
    """Return the blur of occupied cells along an axis: of each pair, the lower cell's row.

    Args:
        keys: Flat index of each cell, ascending.
        side: Cells along the axis.
        stride: Step of the flat index along it.
        weights: At 0, 1, 2, ... cells.
    """
    along = keys // keys.dtype.type(stride) % keys.dtype.type(side)
    lower, upper = [], []
    for step in range(1, len(weights)):
        from_here = np.flatnonzero(along < side - step)
        wanted = keys[from_here] + keys.dtype.type(step * stride)
        there = np.searchsorted(keys, wanted)
        occupied = keys[np.minimum(there, len(keys) - 1)] == wanted
        lower.append(from_here[occupied].astype(np.int32))
        upper.append(there[occupied].astype(np.int32))
    values = np.repeat(np.array(weights[1:], np.float32), [len(part) for part in lower])
    both = tuple(np.concatenate([*parts, np.empty(0, np.int32)]) for parts in (lower, upper))
    return sparse.coo_matrix((values, both), shape=(len(keys), len(keys))).tocsr()


class _Smoothing:
    """A Gaussian kernel over position alone, axis by axis, cut at four sigmas.

    Args:
        spatial: Voxels along each axis.
        sigmas: Sigma in voxels along each axis.
    """

    def __init__(self, spatial: tuple[int, ...], sigmas: Sequence[float]) -> None:
        self._spatial = spatial
        self._bands = []
        for count, sigma in zip(spatial, sigmas, strict=True):
            apart = np.arange(min(math.ceil(4 * sigma), count - 1) + 1)
            self._bands.append(_band(count, np.exp(-0.5 * (apart / sigma) ** 2)))
        self._scale: NDArray[np.float32] = np.ones((math.prod(spatial), 1), np.float32)
        self._scale = self(self._scale) ** np.float32(-0.5)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        image = (values * self._scale).reshape(*self._spatial, -1)
        for axis, band in enumerate(self._bands):
            image = _along(image, axis, *band)
        return image.reshape(values.shape) * self._scale


def _band(count: int, weights: Sequence[float] | Array) -> tuple[int, NDArray[np.float32]]:
    """Return how far weights at 0, 1, 2, ... reach, and the band matrix of one tile of an axis."""
    reach = len(weights) - 1
    tile = min(count, max(64, reach))
    apart = np.abs(np.arange(tile + 2 * reach)[:, None] - reach - np.arange(tile))
    near = np.asarray(weights, np.float32)[np.minimum(apart, reach)]
    return reach, near * (apart <= reach)


def _along(image: Array, axis: int, reach: int, band: NDArray[np.float32]) -> Array:
    """Return an axis times a band matrix, tile by tile; outside of the image is zero."""
    rows = np.moveaxis(image, axis, -1)
    shape, count, (seen, tile) = rows.shape, rows.shape[-1], band.shape
    rows = rows.reshape(-1, count)
    if tile == count:
        return np.moveaxis((rows @ band[reach : reach + count]).reshape(shape), -1, axis)
    tiles = -(-count // tile)
    result = np.empty((len(rows), tiles * tile), np.float32)
    padded = np.zeros((len(rows), tiles * tile + 2 * reach), np.float32)
    padded[:, reach : reach + count] = rows
    for at in range(0, tiles * tile, tile):
        result[:, at : at + tile] = padded[:, at : at + seen] @ band
    return np.moveaxis(result[:, :count].reshape(shape), -1, axis)


def _as_array(values: Any) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, np.float32)
