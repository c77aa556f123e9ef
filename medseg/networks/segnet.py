"""SegNet: a decoder that puts each maximum back where it was found.

The way down is VGG's: convolutions and max-poolings, but every pooling keeps the places of its
maxima. The way up writes each value back to its place, zeros elsewhere, and lets convolutions fill
the gaps. No features are handed across, only places.

Source: Badrinarayanan, Kendall & Cipolla, IEEE TPAMI 39 (2017) 2481-2495, arXiv:1511.00561; details
that the text leaves open are those of its authors' release.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import (
    CONV,
    MAX_POOL,
    Norm,
    Step,
    crop_end,
    init_he,
    make_norm,
    pad_end,
    receptive_field,
    spatial_size,
    whole_cells,
)
from medseg.networks.topology import kernels_from_strides, strides_from_spacing


@NETWORKS.register("segnet")
class SegNet(Network):
    """SegNet, in 2D and 3D.

    Differs from the paper by default: a norm that trains with a batch of one, four levels instead
    of five, and fewer channels. :meth:`paper` and :meth:`basic` are the published ones. Images are
    padded to whole cells, where the paper pools incomplete cells at the end.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, finest first; every level ends in a pooling.
        convs: Convolutions of each level, as many on the way up as on the way down.
        kernel_size: Kernel of all convolutions, odd. An axis that is not pooled yet has 1.
        decoder_act: Whether ReLU follows the convolutions of the way up.
        bias: Whether convolutions have a bias.
        separate_head: Whether a convolution of kernel 1 gives the classes, after the last level.
            Otherwise the last convolution of that level does, without norm and ReLU.
        norm: ``auto`` is a group norm; ``batch`` as in the paper.
        dropout: Share of features dropped at the two deepest levels while training, below each
            pooling and after each level of the way up.
        strides: One stride per axis, for each pooling; 2 by default.
        spacing: Distance of neighbouring voxels per axis: gives the strides if these are not set.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: ``convs`` or ``strides`` do not fit the levels, or a kernel is even.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        convs: Sequence[int] = (2, 2, 3, 3),
        kernel_size: int = 3,
        decoder_act: bool = True,
        bias: bool = True,
        separate_head: bool = False,
        norm: Norm = "auto",
        dropout: float = 0.0,
        strides: Sequence[Sequence[int]] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        levels = len(channels)
        if not channels or len(convs) != levels or min(convs) < 1:
            raise ValueError(
                f"convs are one number of convolutions for each level of channels "
                f"{tuple(channels)}, got {tuple(convs)}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is odd, so that the grid is kept; got {kernel_size}")
        if strides is None:
            strides = strides_from_spacing(spatial_dims, spacing, levels)
        if len(strides) != levels or any(len(s) != spatial_dims for s in strides):
            raise ValueError(
                f"strides are {levels} (as many as channels) of {spatial_dims} numbers each, "
                f"got {[list(s) for s in strides]}"
            )
        self.convs = tuple(convs)
        self.strides = tuple(tuple(s) for s in strides)
        self.kernels = [
            tuple(kernel_size if k > 1 else 1 for k in kernel)
            for kernel in kernels_from_strides(self.strides)[:levels]
        ]
        self.output_stride = tuple(prod(axis) for axis in zip(*self.strides, strict=True))

        self.down = nn.ModuleList()
        self.pools = nn.ModuleList(IndexPool(s) for s in self.strides)
        self.unpools = nn.ModuleList(IndexUnpool() for _ in self.strides)
        self.up = nn.ModuleList()  # finest first, as all others
        self.drops = nn.ModuleList(
            nn.Dropout(dropout if level >= levels - 2 else 0.0) for level in range(levels)
        )
        above = [in_channels, *channels]
        for level, (wide, number) in enumerate(zip(channels, convs, strict=True)):
            block = partial(_conv_norm, self.kernels[level], norm, bias)
            down = [block(above[level] if i == 0 else wide, wide) for i in range(number)]
            self.down.append(nn.Sequential(*down))
            up = [block(wide, wide, act=decoder_act) for _ in range(number - 1)]
            if level or separate_head:
                up.append(block(wide, above[level] if level else wide, act=decoder_act))
            self.up.append(nn.Sequential(*up))
        head_kernel = (1,) * spatial_dims if separate_head else self.kernels[0]
        self.head = _conv(head_kernel, bias, channels[0], out_channels)
        init_he(self)

    @classmethod
    def paper(cls, in_channels: int = 3, out_channels: int = 11) -> Self:
        """Return the published network: 29,449,355 parameters for 3 channels, 11 classes."""
        return cls(
            2,
            in_channels,
            out_channels,
            channels=(64, 128, 256, 512, 512),
            convs=(2, 2, 3, 3, 3),
            norm="batch",
            dropout=0.5,
        )

    @classmethod
    def basic(cls, in_channels: int = 3, out_channels: int = 11, *, spatial_dims: int = 2) -> Self:
        """Return SegNet-Basic: four levels of one convolution, no ReLU on the way up.

        Its size is 1,416,064 for 3 channels and 11 classes; the paper states 1.425 M, by a way of
        counting that it does not tell.
        """
        return cls(
            spatial_dims,
            in_channels,
            out_channels,
            channels=(64, 64, 64, 64),
            convs=(1, 1, 1, 1),
            kernel_size=7,
            decoder_act=False,
            bias=False,
            separate_head=True,
            norm="batch",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Levels of two convolutions, 16 channels at the finest: four in 2D, three in 3D."""
        channels = (16, 32, 64, 128) if spatial_dims == 2 else (16, 32, 64)
        return {"channels": channels, "convs": (2,) * len(channels)}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        size = spatial_size(image)
        padded = pad_end(image, whole_cells(size, self.output_stride))
        return crop_end(self.decode(*self.encode(padded)), size)

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the coarsest features and the places of each pooling's maxima, finest first.

        Args:
            image: (batch, in_channels, *spatial), of whole cells of ``output_stride``.
        """
        features, places = image, []
        for down, pool, drop in zip(self.down, self.pools, self.drops, strict=True):
            features, place = pool(down(features))
            features = drop(features)
            places.append(place)
        return features, places

    def decode(self, features: Tensor, places: Sequence[Tensor]) -> Tensor:
        """Return the logits of what :meth:`encode` returns; nothing else crosses over."""
        for level in reversed(range(len(self.up))):
            size = [n * s for n, s in zip(spatial_size(features), self.strides[level], strict=True)]
            features = self.up[level](self.unpools[level](features, places[level], size))
            features = self.drops[level](features)
        logits: Tensor = self.head(features)
        return logits

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        return tuple(
            receptive_field([*self._steps_down(axis), *self._steps_up(axis)])
            for axis in range(self.spatial_dims)
        )

    def context(self) -> tuple[int, ...]:
        """Return the voxels that one cell of the coarsest features sees, per axis.

        The paper gives this figure: 106 for SegNet-Basic.
        """
        return tuple(receptive_field(self._steps_down(axis)) for axis in range(self.spatial_dims))

    def _steps_down(self, axis: int) -> list[Step]:
        steps = []
        for kernel, number, stride in zip(self.kernels, self.convs, self.strides, strict=True):
            steps += [Step(kernel[axis])] * number
            steps.append(Step(stride[axis], stride=stride[axis]))
        return steps

    def _steps_up(self, axis: int) -> list[Step]:
        steps: list[Step] = []
        for kernel, number, stride in zip(self.kernels, self.convs, self.strides, strict=True):
            steps = [Step(up=stride[axis]), *[Step(kernel[axis])] * number, *steps]
        return steps


class IndexPool(nn.Module):
    """Max-pooling without overlap that tells where each maximum was.

    Args:
        stride: Voxels per cell, per axis.

    Shape:
        (batch, channels, *spatial) -> twice (batch, channels, *cells): the maxima and their places,
        each counted through the flattened spatial axes. Voxels beyond the last whole cell are left
        out.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.pool = MAX_POOL[len(stride)](tuple(stride), return_indices=True)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima and their places."""
        with torch.no_grad():
            places: Tensor = self.pool(features)[1]
        # Not the pooling's own output: its 3D gradient on a GPU is not deterministic.
        maxima = features.flatten(2).gather(2, places.flatten(2))
        return maxima.reshape(places.shape), places


class IndexUnpool(nn.Module):
    """Writes values back to where :class:`IndexPool` found them, and zeros elsewhere.

    The same as PyTorch's ``max_unpool``, which refuses to run in deterministic mode.
    """

    def forward(self, features: Tensor, places: Tensor, size: Sequence[int]) -> Tensor:
        """Return the unpooled features.

        Args:
            features: (batch, channels, *cells).
            places: (batch, channels, *cells), as counted by the pooling.
            size: Spatial size of what was pooled.
        """
        empty = features.new_zeros((*features.shape[:2], prod(size)))
        filled = empty.scatter(2, places.flatten(2), features.flatten(2))
        return filled.reshape(*features.shape[:2], *size)


def _conv(kernel: tuple[int, ...], bias: bool, enters: int, leaves: int) -> nn.Module:
    """Return a convolution that keeps the grid."""
    padding = tuple(k // 2 for k in kernel)
    return CONV[len(kernel)](enters, leaves, kernel, padding=padding, bias=bias)


def _conv_norm(
    kernel: tuple[int, ...], norm: Norm, bias: bool, enters: int, leaves: int, *, act: bool = True
) -> nn.Sequential:
    """Return a convolution, its norm and, if asked for, ReLU."""
    layers = [_conv(kernel, bias, enters, leaves), make_norm(len(kernel), leaves, norm)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))
