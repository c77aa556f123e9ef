"""Pieces that networks share: convolutions by dimension, norms, padding, sizes."""

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

Norm = Literal["auto", "batch", "group", "instance", "none"]

ByDimension = dict[int, Callable[..., nn.Module]]

CONV: ByDimension = {2: nn.Conv2d, 3: nn.Conv3d}
UP_CONV: ByDimension = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: ByDimension = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: ByDimension = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM: ByDimension = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def norm_groups(channels: int) -> int:
    """Return the groups of a group norm: the largest divisor up to 8 with 2 channels or more each.

    A group of one channel has no variance on a map of one cell, and would stop the training.
    """
    fits = (g for g in range(min(8, channels // 2), 0, -1) if channels % g == 0)
    return next(fits, 1)


def make_norm(spatial_dims: int, channels: int, norm: Norm) -> nn.Module:
    """Return the named norm; ``auto`` is a group norm, which trains with a batch of one."""
    if norm in ("auto", "group"):
        return nn.GroupNorm(norm_groups(channels), channels)
    if norm == "batch":
        return _BATCH_NORM[spatial_dims](channels)
    if norm == "instance":
        return _INSTANCE_NORM[spatial_dims](channels, affine=True)
    return nn.Identity()


def conv_norm(
    spatial_dims: int, enters: int, leaves: int, kernel: int, norm: Norm, groups: int = 1
) -> nn.Sequential:
    """Return a convolution of any odd kernel that keeps the grid, its norm, and ReLU."""
    conv = CONV[spatial_dims](
        enters, leaves, kernel, padding=kernel // 2, groups=groups, bias=norm == "none"
    )
    return nn.Sequential(conv, make_norm(spatial_dims, leaves, norm), nn.ReLU(inplace=True))


def spatial_conv(
    spatial_dims: int, enters: int, leaves: int, norm: Norm, *, separable: bool
) -> nn.Sequential:
    """Return a 3x3 convolution, norm, ReLU; the first of its layers is the one with a rate."""
    if not separable:
        return conv_norm(spatial_dims, enters, leaves, 3, norm)
    each = conv_norm(spatial_dims, enters, enters, 3, norm, groups=enters)
    across = conv_norm(spatial_dims, enters, leaves, 1, norm)
    return nn.Sequential(*each, *across)


def init_he(module: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, sqrt(2 / inputs)); biases become zero.

    A transposed convolution whose stride is its kernel meets each output with one tap, and no
    ReLU follows it: it gets N(0, sqrt(1 / in_channels)).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.normal_(part.weight, std=1 / sqrt(part.in_channels))
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def spatial_size(image: Tensor) -> tuple[int, ...]:
    """Return the sizes of the spatial axes."""
    return tuple(image.shape[2:])


def pad_end(image: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat the last voxels until every axis has ``size``; the first voxels stay the first."""
    margins = [(0, wanted - n) for n, wanted in zip(spatial_size(image), size, strict=True)]
    if not any(after for _, after in margins):
        return image
    flat = [side for margin in reversed(margins) for side in margin]
    return F.pad(image, flat, mode="replicate")


def crop_end(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the first ``size`` voxels along every spatial axis."""
    for axis, n in enumerate(size, start=2):
        logits = logits.narrow(axis, 0, n)
    return logits


def whole_cells(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """Return the next size of whole cells, and of two or more where an axis is divided.

    Two, because a norm over one image has no variance on a map of one cell.
    """
    return tuple(max(ceil(n / s), 2 if s > 1 else 1) * s for n, s in zip(size, stride, strict=True))


def mirror(image: Tensor, margins: Sequence[tuple[int, int]]) -> Tensor:
    """Pad by reflection, the outermost voxel not repeated, and go on to and fro as far as asked."""
    for axis, (before, after) in enumerate(margins, start=2):
        if before == after == 0:
            continue
        n = image.shape[axis]
        period = max(2 * (n - 1), 1)
        place = torch.arange(-before, n + after, device=image.device) % period
        image = image.index_select(axis, torch.minimum(place, period - place) if n > 1 else place)
    return image


def crop_centre(features: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the middle ``size`` voxels along every spatial axis."""
    for axis, kept in enumerate(size, start=2):
        features = features.narrow(axis, (features.shape[axis] - kept) // 2, kept)
    return features


def resize_linear(features: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Interpolate linearly onto another size.

    Args:
        features: (batch, channels, *spatial).
        size: The spatial size wanted.
        align_corners: Whether the first and last cells' centres stay in place (grids of k * s + 1
            voxels), instead of the outer edges (grids of k * s voxels).
    """
    mode = _LINEAR[features.dim() - 2]
    return F.interpolate(features, size=tuple(size), mode=mode, align_corners=align_corners)


def bin_means(features: Tensor, bins: Sequence[int]) -> Tensor:
    """Return the means of equal parts of a map, which overlap by a cell where it doesn't divide.

    The same as PyTorch's ``adaptive_avg_pool``, whose gradient is not deterministic on a GPU.
    Means keep the map's dtype under autocast, too, as a matrix product would not.

    Args:
        features: (batch, channels, *cells).
        bins: Parts along each axis.

    Returns:
        (batch, channels, *bins).
    """
    for axis, (n, count) in enumerate(zip(spatial_size(features), bins, strict=True), start=2):
        edges = [(part * n // count, -(-(part + 1) * n // count)) for part in range(count)]
        features = torch.cat(
            [features.narrow(axis, a, b - a).mean(axis, keepdim=True) for a, b in edges], dim=axis
        )
    return features


class Step(NamedTuple):
    """One layer along one axis, for :func:`receptive_field`."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    up: int = 1  # cells out of one cell, by a transposed convolution whose kernel is its stride
    blend: bool = False  # ``up`` interpolates linearly, with aligned corners, instead


def reach_back(steps: Sequence[Step], first: int, last: int) -> tuple[int, int]:
    """Return the first and last cell along one axis that the output cells first..last see.

    Args:
        steps: The layers from the cells that are asked for to the output.
        first: The first output cell.
        last: The last output cell.
    """
    for step in reversed(steps):
        reach = step.dilation * (step.kernel - 1)
        # Pooling (an even kernel) starts in its own cell, a convolution is centred on it.
        before = reach // 2 if step.kernel % 2 else 0
        first = first // step.up * step.stride - before
        last = (-(-last // step.up) if step.blend else last // step.up) * step.stride
        last += reach - before
    return first, last


def receptive_field(steps: Sequence[Step]) -> int:
    """Return how many voxels along one axis reach one output voxel, at the worst position.

    Args:
        steps: The layers from the image to the output, without those that see one voxel.
    """
    positions = 1
    for step in steps:
        positions *= step.stride
    widest = 0
    for position in range(positions):
        first, last = reach_back(steps, position, position)
        widest = max(widest, last - first + 1)
    return widest
