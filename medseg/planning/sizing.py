"""Spacing, patch, depth and batch from the size of the images and the memory at hand.

The rules are nnU-Net's, in our words: a patch as large as memory takes, of the images' own
proportions, before a batch larger than two.

Source: Isensee et al., Nature Methods 18 (2021) 203-211, doi:10.1038/s41592-020-01008-z, as in
nnU-Net 2.8.1. Differences: the cost and the budget are arguments, so that the same rules fit
patches to another network, or to the arithmetic of a machine without a GPU; and an axis is never
cut below two cells of the coarsest level, where nnU-Net would never end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from medseg.networks import plan_topology

Patch = tuple[int, ...]
Strides = tuple[tuple[int, ...], ...]
Cost = Callable[[Patch, Strides], float]

WIDEST = {2: 512, 3: 320}
# Feature maps of one patch that training holds with 8 GB, and the batch that goes with them.
FEATURES_AT_8_GB = {2: 8.5e7, 3: 5.6e8}
PATCHES_AT_BUDGET = {2: 12, 3: 2}
_LARGEST_VOXELS = {2: 2048**2, 3: 256**3}
_MOST_OF_THE_DATA = 0.05
_FAR_SLICES = 3.0


@dataclass(frozen=True)
class Size:
    """What a step of training takes.

    Args:
        patch_voxels: The patch, array order.
        batch: Patches a step.
        strides: Which axes each level halves, the first all 1.
        cost: Of one patch, in the unit of the budget.
    """

    patch_voxels: Patch
    batch: int
    strides: Strides
    cost: float


def target_spacing(
    shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]]
) -> tuple[float, ...]:
    """Return the grid on which a network should learn: the cases' median spacing, axis by axis.

    Slices more than three times as far apart as the pixels, and few enough that the volume is flat
    in voxels too, take the 10th percentile instead, so that most cases keep all their slices; but
    never less than the next larger spacing.

    Args:
        shapes: Voxels of each case, per axis.
        spacings: Spacing of each case, per axis, in one unit.

    Raises:
        ValueError: No case, or shapes and spacings that do not belong together.
    """
    if not len(shapes) or np.shape(shapes) != np.shape(spacings):
        raise ValueError(f"{len(shapes)} shapes and {len(spacings)} spacings: one a case, please")
    spacing = np.median(np.asarray(spacings, float), axis=0)
    size = np.median([resampled(n, s, spacing) for n, s in zip(shapes, spacings, strict=True)], 0)
    far = int(np.argmax(spacing))
    others = [axis for axis in range(len(spacing)) if axis != far]
    flat = size[far] * _FAR_SLICES < min(size[others])
    if spacing[far] > _FAR_SLICES * max(spacing[others]) and flat:
        near = float(np.percentile([s[far] for s in spacings], 10))
        spacing[far] = max(near, max(spacing[others]) + 1e-5)
    return tuple(float(s) for s in spacing)


def resampled(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the voxels of an image of this shape and spacing on the target spacing."""
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))


def unet_features(patch: Patch, strides: Strides, *, classes: int) -> float:
    """Return the feature values that nnU-Net's U-Net computes for a patch: its need of memory.

    Two convolutions a level on the way down; an up-convolution and two convolutions on the way up;
    the logits.
    """
    spatial_dims = len(patch)
    size = np.array(patch, float)
    voxels, widths = [], []
    for level, stride in enumerate(strides):
        size = size / np.array(stride)
        voxels.append(float(size.prod()))
        widths.append(min(32 * 2**level, WIDEST[spatial_dims]))
    down = sum(2 * n * width for n, width in zip(voxels, widths, strict=True))
    up = sum(3 * n * width for n, width in zip(voxels[:-1], widths[:-1], strict=True))
    return float(down + up + classes * voxels[0])


def plan_size(
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    cases: int,
    cost: Cost,
    budget: float,
    patches_at_budget: int | None = None,
    inside: Sequence[int] | None = None,
) -> Size:
    """Return the largest patch that the budget takes, and the batch that fills what is left.

    The patch begins as a cube in space, no larger than the median image, rounded up to whole cells
    of the coarsest level; while it costs more than the budget, the axis that covers most of the
    image gives way by one cell.

    Args:
        shape: Median voxels of the cases on the target spacing, per axis.
        spacing: The target spacing.
        cases: Number of training cases: a batch sees at most a twentieth of their voxels.
        cost: Of one patch with its strides, e.g. :func:`unet_features`.
        budget: Largest cost of a patch in a batch of ``patches_at_budget``.
        patches_at_budget: nnU-Net's 12 in 2D and 2 in 3D by default.
        inside: Voxels of an image that the patch shall not exceed: it is rounded down to whole
            cells then. Where a patch reaches beyond the image, norms see the filling, too.

    Raises:
        ValueError: Shape and spacing have other axes, or the budget is no positive number.
    """
    spatial_dims = len(shape)
    if len(spacing) != spatial_dims or spatial_dims not in WIDEST or budget <= 0:
        raise ValueError(
            f"shape {tuple(shape)} and spacing {tuple(spacing)} have 2 or 3 axes each, and the "
            f"budget is positive, got {budget}"
        )
    if patches_at_budget is None:
        patches_at_budget = PATCHES_AT_BUDGET[spatial_dims]
    patch = _first_patch(shape, spacing)
    if inside is not None:
        patch = tuple(min(n, most) for n, most in zip(patch, inside, strict=True))
        cell = _cell(plan_topology(patch, spacing)[0])
        patch = tuple(n // c * c for n, c in zip(patch, cell, strict=True))
    strides, _ = plan_topology(patch, spacing)
    patch = _whole_cells(patch, strides)
    while cost(patch, strides) > budget:
        smaller = _smaller(patch, strides, shape, spacing)
        if smaller is None:
            break
        patch, strides = smaller
    now = cost(patch, strides)
    batch = round(budget / now * patches_at_budget)
    most = round(prod(float(n) for n in shape) * cases * _MOST_OF_THE_DATA / prod(patch))
    return Size(patch, max(2, min(batch, most)), strides, now)


def _first_patch(shape: Sequence[int], spacing: Sequence[float]) -> Patch:
    fine = 1 / np.asarray(spacing, float)
    side = (_LARGEST_VOXELS[len(shape)] / fine.prod()) ** (1 / len(shape))
    return tuple(
        max(1, min(round(float(n)), int(s))) for n, s in zip(fine * side, shape, strict=True)
    )


def _smaller(
    patch: Patch, strides: Strides, shape: Sequence[int], spacing: Sequence[float]
) -> tuple[Patch, Strides] | None:
    """Return the patch with one axis shortened, and its strides; None if none can be."""
    for axis in sorted(range(len(patch)), key=lambda a: (patch[a] / shape[a], a), reverse=True):
        tried = _shorter(patch, axis, _cell(strides)[axis])
        if tried is None:
            continue
        # A shorter axis may be halved less often: then it need not shrink by a whole cell.
        step = _cell(plan_topology(tried, spacing)[0])[axis]
        shorter = _shorter(patch, axis, step) or tried
        fewer, _ = plan_topology(shorter, spacing)
        padded = _whole_cells(shorter, fewer)
        if prod(padded) < prod(patch):
            return padded, fewer
    return None


def _shorter(patch: Patch, axis: int, step: int) -> Patch | None:
    if patch[axis] - step < 1:
        return None
    return tuple(n - step if a == axis else n for a, n in enumerate(patch))


def _cell(strides: Strides) -> tuple[int, ...]:
    """Return the voxels in a cell of the coarsest level, per axis."""
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


def _whole_cells(patch: Patch, strides: Strides) -> Patch:
    return tuple(ceil(n / cell) * cell for n, cell in zip(patch, _cell(strides), strict=True))
