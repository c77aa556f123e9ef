"""Mixed-scale dense network.

Every layer sees the image and all earlier layers at full resolution. Scales are mixed by cycling
the dilation, not by pooling, so a border never passes through a coarser grid.

Source: Pelt & Sethian, PNAS 115 (2018) 254-259, doi:10.1073/pnas.1715832114.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import CONV, spatial_size
from medseg.networks.mixed_scale_dense import Backend, mixed_scale_dense

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
        dilations: Dilations in voxels, cycled over the channels of all layers, each one number or
            one per axis, slowest first; 1 to 10 by default, 1 to 5 in 3D. On an image with a side
            of n voxels none exceeds n - 1 there.
        padding_mode: ``reflect`` mirrors the image and the features at the edges, as published.
        backend: What computes it; ``medseg networks --backends`` lists them. All give the same;
            ``auto`` takes the fastest that runs here. But for ``reference`` the gradient can be
            taken once only, and sums have the weights' own precision also under autocast.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No layer, channel or dilation, or one for too few axes; or, in ``forward``, an
            image side of one voxel, or a backend that does not run here.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        depth: int = 100,
        width: int = 1,
        dilations: Sequence[int | Sequence[int]] | None = None,
        padding_mode: Literal["reflect", "zeros"] = "reflect",
        backend: Backend = "auto",
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        cycle = _per_axis(dilations or range(1, _WIDEST_DILATION[spatial_dims] + 1), spatial_dims)
        if min(depth, width, *(d for steps in cycle for d in steps)) < 1:
            raise ValueError(
                f"depth, width and dilations are 1 or more, got {depth}, {width}, {dilations}"
            )
        self.depth = depth
        self.width = width
        self.padding_mode = padding_mode
        self.backend = backend
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
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Half of the layers, and a quarter in 3D, where each costs three times as much."""
        return {"depth": 50 if spatial_dims == 2 else 25}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        size = spatial_size(image)
        if any(n < least for n, least in zip(size, self.minimum_size, strict=True)):
            raise ValueError(
                f"image of {size} voxels: mirroring needs {self.minimum_size[0]} along every axis"
            )
        weight, bias = self.head.parameters()
        return mixed_scale_dense(
            image,
            list(self.filters),
            self.biases,
            self.dilations,
            self.padding_mode,
            head_weight=weight,
            head_bias=bias,
            width=self.width,
            backend=self.backend,
        )

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        layers = [
            self.dilations[first : first + self.width]
            for first in range(0, len(self.dilations), self.width)
        ]
        return tuple(
            1 + 2 * sum(max(steps[axis] for steps in layer) for layer in layers)
            for axis in range(self.spatial_dims)
        )


def _per_axis(dilations: Sequence[int | Sequence[int]], spatial_dims: int) -> list[tuple[int, ...]]:
    """Return every dilation with one number per axis."""
    cycle = [(d,) * spatial_dims if isinstance(d, int) else tuple(d) for d in dilations]
    if any(len(steps) != spatial_dims for steps in cycle):
        raise ValueError(
            f"a dilation is one number or {spatial_dims}, one per axis, got {list(dilations)}"
        )
    return cycle
