"""Upsampling by a transposed convolution that starts as linear interpolation.

Source: Long, Shelhamer & Darrell, CVPR 2015, arXiv:1411.4038.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

_UP: dict[int, Callable[..., Tensor]] = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


class BilinearUpsample(nn.Module):
    """A transposed convolution, one kernel a channel, that starts as (tri)linear interpolation.

    Differs from the paper: its kernels between different channels, which start at zero and stay
    there unless they are learned, are not stored. 64^3 taps between all pairs would not fit.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        channels: Channels of the features, which do not mix.
        scale: Cells out of one cell, for all axes or per axis.
        learnable: Whether the kernels are weights; else they are constants, and not saved.
        edges: ``repeat`` takes the outermost cells to go on beyond the edge, and leaves n * scale
            cells, as ``interpolate`` with ``align_corners=False``. ``none`` writes every kernel in
            full, and leaves (n - 1) * scale + kernel cells, as published.

    Shape:
        (batch, channels, *spatial) -> (batch, channels, *larger).

    Raises:
        ValueError: A scale is less than 1, or there is not one per axis.
    """

    weight: Tensor

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        scale: int | Sequence[int],
        *,
        learnable: bool = False,
        edges: Literal["repeat", "none"] = "repeat",
    ) -> None:
        super().__init__()
        self.scale = (scale,) * spatial_dims if isinstance(scale, int) else tuple(scale)
        if len(self.scale) != spatial_dims or min(self.scale) < 1:
            raise ValueError(f"scale is 1 or more for each of {spatial_dims} axes, got {scale}")
        self.edges = edges
        kernel = torch.ones(())
        for s in self.scale:
            kernel = kernel[..., None] * _tent(s)
        weight = kernel.expand(channels, 1, *kernel.shape).clone()
        if learnable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features on the finer grid."""
        padding = [0] * len(self.scale)
        if self.edges == "repeat":
            for axis, s in enumerate(self.scale):
                if s > 1:
                    features = _repeat_ends(features, axis + 2)
                    padding[axis] = s + s // 2
        return _UP[len(self.scale)](
            features, self.weight, stride=self.scale, padding=padding, groups=features.shape[1]
        )


def _tent(scale: int) -> Tensor:
    """Return the taps of linear interpolation: 2 * scale of them, one less if it is odd."""
    taps = 2 * scale - scale % 2
    place = torch.arange(taps, dtype=torch.float32)
    return 1 - (place - (taps - 1) / 2).abs() / scale


def _repeat_ends(features: Tensor, axis: int) -> Tensor:
    # Not by F.pad: the gradient of its "replicate" is not deterministic on a GPU.
    last = features.shape[axis] - 1
    ends = features.narrow(axis, 0, 1), features.narrow(axis, last, 1)
    return torch.cat([ends[0], features, ends[1]], dim=axis)
