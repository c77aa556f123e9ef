"""The plain fully convolutional network: full resolution from end to end.

Convolutions of one width that keep the grid, then a score for each class. No pooling and no
dilation: each layer lets a voxel see one voxel further, and keeps a map of the image's own size.
Both are what every later architecture works around, and what this one is here to show.

Source: none in particular; the network of lectures, e.g. CS231n (Stanford, 2017), lecture 11.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import CONV, Norm, Step, init_he, make_norm, receptive_field


@NETWORKS.register("plain_fcn")
class PlainFCN(Network):
    """Convolutions of one width at full resolution, for 2D and 3D.

    It sees 2 * depth + 1 voxels with kernels of 3. Without a norm, moving the image moves the
    logits, voxel by voxel, away from the edges, where zeros are padded.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of every layer.
        depth: Number of layers.
        kernel_size: Kernel along each axis, odd.
        norm: ``auto`` is a group norm.
        checkpoint: Whether training keeps the maps of some sqrt(depth) layers only, and computes
            the others again for the gradient: about a third more time, much less memory. Not
            with ``batch``, whose running statistics would count every image twice.
        spacing: Distance of neighbouring voxels per axis. Along an axis whose voxels are n times as
            long as the shortest, only one layer in n looks at neighbours, so that the network
            sees about the same length along each.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: There is no layer, the kernel is even, a spacing is not one positive length per
            axis, or ``checkpoint`` meets a norm of ``batch``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 32,
        depth: int = 8,
        kernel_size: int = 3,
        norm: Norm = "auto",
        checkpoint: bool = False,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        if min(channels, depth) < 1:
            raise ValueError(f"channels and depth are 1 or more, got {channels} and {depth}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is odd, so that the grid is kept; got {kernel_size}")
        if checkpoint and norm == "batch":
            raise ValueError(
                'norm "batch" with checkpoint would count every image twice in its running '
                'statistics; set norm to "group", or checkpoint to false'
            )
        lengths = tuple(spacing or (1.0,) * spatial_dims)
        if len(lengths) != spatial_dims or min(lengths) <= 0:
            raise ValueError(f"spacing is {spatial_dims} positive lengths, got {lengths}")
        self.checkpoint = checkpoint
        self.kernels = _kernels(lengths, depth, kernel_size)
        conv = CONV[spatial_dims]
        self.layers = nn.ModuleList(
            nn.Sequential(
                conv(
                    channels if layer else in_channels,
                    channels,
                    kernel,
                    padding=tuple(k // 2 for k in kernel),
                ),
                make_norm(spatial_dims, channels, norm),
                nn.ReLU(inplace=True),
            )
            for layer, kernel in enumerate(self.kernels)
        )
        self.head = conv(channels, out_channels, 1)
        init_he(self)

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Ten layers of 32 channels in 2D, eight of 16 in 3D."""
        return {"channels": 32, "depth": 10} if spatial_dims == 2 else {"channels": 16, "depth": 8}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        features = image
        if self.training and self.checkpoint:
            several = ceil(sqrt(len(self.layers)))
            for first in range(0, len(self.layers), several):
                part = nn.Sequential(*list(self.layers)[first : first + several])
                features = recompute(part, features, use_reentrant=False)
        else:
            for layer in self.layers:
                features = layer(features)
        logits: Tensor = self.head(features)
        return logits

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        return tuple(
            receptive_field([Step(k) for k in axis]) for axis in zip(*self.kernels, strict=True)
        )


def _kernels(lengths: Sequence[float], depth: int, kernel_size: int) -> tuple[tuple[int, ...], ...]:
    """Return a kernel for each layer: one in n looks along an axis of n times longer voxels."""
    looks = [max(1, round(depth * min(lengths) / length)) for length in lengths]
    return tuple(
        tuple(kernel_size if (layer + 1) * n // depth > layer * n // depth else 1 for n in looks)
        for layer in range(depth)
    )
