"""Mixed-scale dense network.

Every layer sees the image and all earlier layers at full resolution. Scales are mixed by cycling
the dilation, not by pooling, so a border never passes through a coarser grid.

Source: Pelt & Sethian, PNAS 115 (2018) 254-259, doi:10.1073/pnas.1715832114.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import CONV, mirror, spatial_size
from medseg.networks.msd_blocked import blocked_msd

_CONVOLVE = {2: F.conv2d, 3: F.conv3d}
_WIDEST_DILATION = {2: 10, 3: 5}


@NETWORKS.register("msd")
class MSDNet(Network):
    """A small dense network without pooling, for 2D and 3D.

    Its last layer starts at zero, as published: the first logits are zero, and the first step
    moves the last layer only.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image; neighbouring slices may be channels.
        out_channels: Classes, background included.
        depth: Number of dilated layers.
        width: Channels that each layer adds.
        dilations: Dilations in voxels, cycled over the channels of all layers; 1 to 10 by
            default, 1 to 5 in 3D. On an image with a side of n voxels none exceeds n - 1 there.
        padding_mode: ``reflect`` mirrors the image and the features at the edges, as published.
        engine: ``blocked`` computes the same as ``plain`` by large matrix products, with a
            fraction of the time and the memory, and in the weights' own precision also under
            autocast; its gradient can be taken once only.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No layer, channel or dilation; or, in ``forward``, an image side of one voxel.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        depth: int = 100,
        width: int = 1,
        dilations: Sequence[int] | None = None,
        padding_mode: Literal["reflect", "zeros"] = "reflect",
        engine: Literal["blocked", "plain"] = "blocked",
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        cycle = tuple(dilations or range(1, _WIDEST_DILATION[spatial_dims] + 1))
        if min(depth, width, *cycle) < 1:
            raise ValueError(
                f"depth, width and dilations are 1 or more, got {depth}, {width}, {list(cycle)}"
            )
        self.depth = depth
        self.width = width
        self.padding_mode = padding_mode
        self.engine = engine
        self.minimum_size = ((2 if padding_mode == "reflect" else 1),) * spatial_dims
        maps = range(depth * width)
        self.dilations = tuple(cycle[m % len(cycle)] for m in maps)
        kernel = (3,) * spatial_dims
        self.filters = nn.ParameterList(
            torch.empty(1, in_channels + m // width * width, *kernel) for m in maps
        )
        self.biases = nn.Parameter(torch.zeros(depth * width))
        self.head = CONV[spatial_dims](in_channels + depth * width, out_channels, 1)
        connections = 3**spatial_dims * (in_channels + width * (depth - 1)) + out_channels
        for weights in self.filters:
            nn.init.normal_(weights, std=sqrt(2 / connections))
        for last in self.head.parameters():
            nn.init.zeros_(last)

    @classmethod
    def paper(cls, in_channels: int = 1, out_channels: int = 2, *, spatial_dims: int = 2) -> Self:
        """Return the published network: 45,754 parameters for 1 channel and 2 classes in 2D."""
        return cls(spatial_dims, in_channels, out_channels, dilations=tuple(range(1, 11)))

    @classmethod
    def small(cls, spatial_dims: int, in_channels: int, out_channels: int) -> Self:
        """Return half of the layers, and a quarter in 3D, where each costs three times as much."""
        return cls(spatial_dims, in_channels, out_channels, depth=50 if spatial_dims == 2 else 25)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        size = spatial_size(image)
        if any(n < least for n, least in zip(size, self.minimum_size, strict=True)):
            raise ValueError(
                f"image of {size} voxels: mirroring needs {self.minimum_size[0]} along every axis"
            )
        if self.engine == "plain":
            return self._plain(image)
        return blocked_msd(
            image,
            list(self.filters),
            self.biases,
            *self.head.parameters(),
            dilations=self.dilations,
            reflect=self.padding_mode == "reflect",
        )

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        widest = (
            max(self.dilations[m : m + self.width])
            for m in range(0, len(self.dilations), self.width)
        )
        return (1 + 2 * sum(widest),) * self.spatial_dims

    def _plain(self, image: Tensor) -> Tensor:
        """Return the logits as the paper's words say it: the reference of the other engine."""
        features = image
        for layer in range(self.depth):
            first = layer * self.width
            new = [self._map(features, m) for m in range(first, first + self.width)]
            features = torch.cat([features, *new], dim=1)
        logits: Tensor = self.head(features)
        return logits

    def _map(self, features: Tensor, m: int) -> Tensor:
        """Return the ``m``-th feature map of all the earlier ones."""
        reach = tuple(min(self.dilations[m], max(n - 1, 1)) for n in spatial_size(features))
        convolve = _CONVOLVE[self.spatial_dims]
        weights, bias = self.filters[m], self.biases[m : m + 1]
        if self.padding_mode == "reflect":
            padded = mirror(features, [(d, d) for d in reach])
            return torch.relu(convolve(padded, weights, bias, dilation=reach))
        return torch.relu(convolve(features, weights, bias, padding=reach, dilation=reach))
