"""VGG encoders in any dimension: stages of 3x3 convolutions, each ended by a max-pooling.

Source: Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556. Poolings of 3x3 and dilation instead of
the last of them: Chen et al., ICLR 2015, arXiv:1412.7062.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.networks.encoders.base import ENCODERS, Encoder, OutputStride, check_output_stride
from medseg.networks.layers import CONV, MAX_POOL, Norm, Step, init_he, make_norm
from medseg.networks.topology import kernels_from_strides


class VGG(Encoder):
    """A VGG network without its classifier; its maps are what the five poolings leave.

    A pooling that keeps the grid dilates all that follows, the next pooling included: then the
    finer map, every second cell of it taken, is the coarser map exactly. DeepLab's paper dilates
    convolutions, and does not speak of poolings.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        blocks: Number of convolutions of each of the five stages.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        norm: Norm after every convolution; VGG has none.
        strides: One stride per axis for each of the five poolings; 2 by default. An axis that is
            not pooled yet has kernels of 1.
        pool_kernel: 3 for poolings of 3x3, padded by one, whose cells are centred on voxels as in
            DeepLab; 2 for VGG's own of 2x2, which cannot keep a grid.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        width: int = 64,
        norm: Norm = "auto",
        strides: Sequence[Sequence[int]] | None = None,
        pool_kernel: Literal[2, 3] = 3,
    ) -> None:
        super().__init__()
        self.halvings = tuple(tuple(s) for s in strides or ((2,) * spatial_dims,) * len(blocks))
        self.aligned_corners = pool_kernel == 3
        self.channels = tuple(min(2**n, 8) * width for n in range(len(blocks)))
        self.stages = nn.ModuleList()
        self.pools = nn.ModuleList()
        enters = in_channels
        for count, leaves, kernel, halving in zip(
            blocks, self.channels, kernels_from_strides(self.halvings), self.halvings, strict=False
        ):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [
                    CONV[spatial_dims](enters, leaves, kernel, bias=norm == "none"),
                    make_norm(spatial_dims, leaves, norm),
                    nn.ReLU(inplace=True),
                ]
                enters = leaves
            self.stages.append(nn.Sequential(*layers))
            window = tuple(pool_kernel if s > 1 else 1 for s in halving)
            # Only FCN's published padding leaves half a window at the far end.
            self.pools.append(MAX_POOL[spatial_dims](window, ceil_mode=pool_kernel == 2))
        init_he(self)
        self.set_output_stride(32)

    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Halve down to ``output_stride``; see :class:`Encoder`.

        Raises:
            ValueError: No such stride, or a pooling of 2x2 would have to keep its grid.
        """
        check_output_stride(output_stride)
        if not self.aligned_corners and output_stride < 32:
            raise ValueError(
                f"poolings of 2x2 cannot keep a grid without a shift of half a cell: output stride "
                f"{output_stride} needs pool_kernel 3"
            )
        one = tuple(1 for _ in self.halvings[0])
        grid = rate = one
        self.grids = []
        # PyTorch's poolings don't pad by more than half of their kernel, be it dilated or not.
        self.margins: list[list[int]] = []
        for number, halving in enumerate(self.halvings):
            for conv in self._convs(number):
                conv.dilation = rate
                conv.padding = _same(conv.kernel_size, rate)
            halved = tuple(g * h for g, h in zip(grid, halving, strict=True))
            keeps = max(halved) > output_stride
            pool: Any = self.pools[number]
            pool.stride = one if keeps else halving
            pool.dilation = rate
            margin = _same(pool.kernel_size, rate) if self.aligned_corners else (0,) * len(rate)
            self.margins.append([side for n in reversed(margin) for side in (n, n)])
            if keeps:
                rate = tuple(r * h for r, h in zip(rate, halving, strict=True))
            else:
                grid = halved
            self.grids.append(grid)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps after each pooling, finest first."""
        maps = []
        features = image
        for stage, pool, margin in zip(self.stages, self.pools, self.margins, strict=True):
            # After a ReLU, zeros are never more than what they pad.
            features = pool(F.pad(stage(features), margin))
            maps.append(features)
        return maps

    def steps(self, axis: int) -> list[Step]:
        """Return the layers along one axis, for the receptive field."""
        steps = []
        for number, pool in enumerate(self.pools):
            for conv in self._convs(number):
                steps.append(Step(conv.kernel_size[axis], dilation=conv.dilation[axis]))
            layer: Any = pool
            window, stride = layer.kernel_size[axis], layer.stride[axis]
            steps.append(Step(window, stride=stride, dilation=layer.dilation[axis]))
        return steps

    def _convs(self, stage: int) -> Iterator[Any]:
        layers: Any = self.stages[stage]
        return (layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Conv3d))


def _same(kernel: Sequence[int], rate: Sequence[int]) -> tuple[int, ...]:
    return tuple(k // 2 * r for k, r in zip(kernel, rate, strict=True))


for _name, _blocks in (("vgg11", (1, 1, 2, 2, 2)), ("vgg16", (2, 2, 3, 3, 3))):
    ENCODERS.register(_name)(partial(VGG, blocks=_blocks))
