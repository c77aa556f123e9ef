"""Strides and kernels that follow from the spacing: thick slices are halved late."""

from collections.abc import Sequence


def strides_from_spacing(
    spatial_dims: int, spacing: Sequence[float] | None, levels: int
) -> tuple[tuple[int, ...], ...]:
    """Return which axes each of ``levels`` poolings halves.

    An axis is halved once its spacing is no more than twice the finest axis's. With slices of
    5 x 1 x 1 mm: (1, 2, 2), (1, 2, 2), (2, 2, 2).

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        spacing: Distance of neighbouring voxels per axis, in any unit; None if all are alike.
        levels: Number of poolings.

    Returns:
        One stride per axis, for each pooling.

    Raises:
        ValueError: A spacing is not positive, or there is not one per axis.
    """
    now = [1.0] * spatial_dims if spacing is None else [float(s) for s in spacing]
    if len(now) != spatial_dims or min(now) <= 0:
        raise ValueError(
            f"spacing is {spatial_dims} distances of voxels, one per axis, got {tuple(now)}"
        )
    strides = []
    for _ in range(levels):
        # A thousandth of slack: 2.0004 mm beside 1 mm is twice as thick.
        limit = 2.001 * min(now)
        strides.append(tuple(2 if s <= limit else 1 for s in now))
        now = [s * step for s, step in zip(now, strides[-1], strict=True)]
    return tuple(strides)


def kernels_from_strides(strides: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the kernels of every level: 1 along an axis that is not halved yet, else 3.

    Args:
        strides: One stride per axis, for each pooling.

    Returns:
        One kernel per axis for each level, one more than poolings. The deepest level's are 3.
    """
    axes = range(len(strides[0]))
    kernels = [
        tuple(3 if any(s[axis] > 1 for s in strides[: level + 1]) else 1 for axis in axes)
        for level in range(len(strides))
    ]
    return (*kernels, (3,) * len(axes))


def plan_topology(
    patch_voxels: Sequence[int], spacing: Sequence[float], minimum: int = 4
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return the strides and kernels that nnU-Net would give a network for this patch.

    Again and again, the axes that still have twice ``minimum`` cells, and whose spacing is less
    than twice the finest of those, are halved. An axis that would be halved alone needs three
    times ``minimum``. Kernels are 1 along an axis until its spacing is less than twice the finest.

    Args:
        patch_voxels: The training patch, per axis.
        spacing: Distance of neighbouring voxels per axis, in any unit.
        minimum: Fewest cells along an axis that a pooling may leave.

    Returns:
        Strides, the first all 1, and kernels: one of each per axis, for every level.

    Raises:
        ValueError: The patch and the spacing have other axes, or one is not positive.

    Source:
        The rules of nnU-Net v2, Isensee et al., Nature Methods 18 (2021) 203-211.
    """
    if len(patch_voxels) != len(spacing) or min(*patch_voxels, *spacing) <= 0:
        raise ValueError(
            f"patch_voxels {tuple(patch_voxels)} and spacing {tuple(spacing)} are one positive "
            f"number per axis each"
        )
    size, now = list(patch_voxels), [float(s) for s in spacing]
    axes = range(len(size))
    kernel = [1] * len(size)
    strides, kernels = [(1,) * len(size)], []
    while True:
        long = [axis for axis in axes if size[axis] >= 2 * minimum]
        finest = min((now[axis] for axis in long), default=0.0)
        halved = [axis for axis in long if now[axis] < 2 * finest]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * minimum):
            break
        kernel = [3 if now[axis] < 2 * min(now) else kernel[axis] for axis in axes]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            size[axis], now[axis] = (size[axis] + 1) // 2, now[axis] * 2
    return tuple(strides), (*kernels, (3,) * len(size))
