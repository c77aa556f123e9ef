"""U-Net's map of narrow gaps: how much each voxel weighs in a loss.

Source: Ronneberger, Fischer & Brox, MICCAI 2015, arXiv:1505.04597, equation 2.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.instances.depth import each_object

_REACH = 6.0  # in sigmas: beyond, less than 2e-8 of w0 is left


def unet_weight_map(
    instances: NDArray[Any],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    spacing: Sequence[float] | None = None,
    class_weights: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float32]:
    """Return w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) for every voxel.

    d1 and d2 are the distances to the borders of the nearest and second nearest instance, so that
    their sum is the width of the gap. Background only: an instance's own voxels get w_c. Instances
    that touch have no gap; draw one first, a voxel wide.

    Memory is that of a few images, however many instances there are: each is visited in its own
    surroundings.

    Args:
        instances: (*spatial), a positive integer per instance, 0 for background; below 0 for
            voxels that nobody judged, which are no part of an instance.
        w0: Weight of a gap without width.
        sigma: Width over which the weight falls, in the unit of ``spacing``; voxels by default.
        spacing: Distance of neighbouring voxels per axis.
        class_weights: w_c of the background and of the instances.

    Returns:
        (*spatial) weights. With fewer than two instances w_c everywhere: there is no gap.

    Raises:
        ValueError: ``sigma`` is not positive, ``w0`` negative, or ``spacing`` has other axes.
    """
    voxel = np.ones(instances.ndim) if spacing is None else np.asarray(spacing, dtype=float)
    if voxel.shape != (instances.ndim,) or not (voxel > 0).all():
        raise ValueError(f"spacing {spacing} on an image of {instances.ndim} axes")
    if sigma <= 0 or w0 < 0:
        raise ValueError(f"sigma is a width and w0 a weight, got {sigma} and {w0}")
    background = instances <= 0
    weights = np.where(background, *class_weights).astype(np.float32)
    nearest = np.full(instances.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    margins = [ceil(_REACH * sigma / v) for v in voxel]
    for around, number in each_object(instances, margins):
        distance = _border_distance(instances[around] == number, voxel)
        here, next_here = nearest[around], second[around]
        np.minimum(next_here, np.maximum(here, distance), out=next_here)
        np.minimum(here, distance, out=here)
    gap = (nearest + second)[background]
    weights[background] += w0 * np.exp(-(gap**2) / (2 * sigma**2))
    return weights


def _border_distance(instance: NDArray[np.bool_], voxel: NDArray[Any]) -> NDArray[np.float32]:
    """Return the distance of every voxel's centre to the outline of the nearest voxel inside."""
    inside = ndimage.distance_transform_edt(
        ~instance, sampling=voxel, return_distances=False, return_indices=True
    )
    squares = np.zeros(instance.shape, dtype=np.float32)
    for axis, (nearest, size) in enumerate(zip(inside, voxel, strict=True)):
        shape = [1] * instance.ndim
        shape[axis] = -1
        here = np.arange(instance.shape[axis]).reshape(shape)
        # The outline of a voxel lies half its size from its centre.
        squares += (np.maximum(np.abs(nearest - here) - 0.5, 0.0) * size).astype(np.float32) ** 2
    return np.sqrt(squares)
