"""What the DeepLabs share: context at several rates, and the last layer.

Source: Chen et al., arXiv:1706.05587; the pyramid is that of V3 and V3+.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.networks.layers import CONV, Norm, Step, conv_norm, spatial_conv, spatial_size

_PAPER_RATES = (6, 12, 18)  # at output stride 16, on maps of 33 cells
_PAPER_CELLS = 33
Rates = Literal["auto"] | Sequence[int]


def context_rates(
    rates: Rates,
    finest_stride: int,
    output_stride: Sequence[int],
    patch_voxels: Sequence[int] | None,
    *,
    paper: Sequence[int] = _PAPER_RATES,
    paper_stride: int = 16,
    paper_cells: int = _PAPER_CELLS,
) -> list[tuple[int, ...]]:
    """Return the dilations of the context's branches per axis, none of them twice.

    A rate beyond the feature map meets only padding, and leaves a 1x1 convolution: on a patch, the
    published rates shrink with it. Two of them may then be one, depending on the output stride: a
    network that has several takes the rates of the finest, and derives the others by
    :func:`rescaled`.

    Args:
        rates: The rates wanted at this output stride, or ``auto``.
        finest_stride: The output stride along the finest axes.
        output_stride: The output stride, per axis.
        patch_voxels: The training patch; None for the published rates.
        paper: The published rates.
        paper_stride: The output stride for which they are published.
        paper_cells: Cells of the map, along an axis, for which they are published.

    Raises:
        ValueError: A rate is below 1.
    """
    axes = len(output_stride)
    if rates != "auto":
        if min(rates, default=1) < 1:
            raise ValueError(f"aspp_rates are 1 and up, got {list(rates)}")
        return [(rate,) * axes for rate in rates]
    scaled = [
        scaled_to_patch(
            (rate,) * axes, finest_stride, output_stride, patch_voxels, paper_stride, paper_cells
        )
        for rate in paper
    ]
    return list(dict.fromkeys(scaled))


def scaled_to_patch(
    rate: Sequence[int],
    finest_stride: int,
    output_stride: Sequence[int],
    patch_voxels: Sequence[int] | None,
    paper_stride: int = 16,
    paper_cells: int = _PAPER_CELLS,
) -> tuple[int, ...]:
    """Return a published rate for this output stride; on a patch, in proportion to its map."""
    if patch_voxels is None:
        return tuple(max(1, r * paper_stride // finest_stride) for r in rate)
    cells = [n / s for n, s in zip(patch_voxels, output_stride, strict=True)]
    return tuple(max(1, round(n / paper_cells * r)) for n, r in zip(cells, rate, strict=True))


def rescaled(rate: Sequence[int], built: Sequence[int], now: Sequence[int]) -> tuple[int, ...]:
    """Return the rate that reaches at one output stride as far as ``rate`` at another."""
    return tuple(max(1, round(r * b / n)) for r, b, n in zip(rate, built, now, strict=True))


def pooled_conv(spatial_dims: int, enters: int, leaves: int, norm: Norm) -> nn.Sequential:
    """Return a 1x1 convolution, norm and ReLU for a map of few cells.

    An instance norm has no variance on a map of one cell: there a group norm stands for it.
    """
    return conv_norm(spatial_dims, enters, leaves, 1, "group" if norm == "instance" else norm)


def make_head(
    spatial_dims: int, enters: int, out_channels: int, rate: tuple[int, ...] | None = None
) -> nn.Module:
    """Return the convolution onto the classes, drawn from N(0, 0.01) as the authors do.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels that enter.
        out_channels: Classes.
        rate: Dilations of a 3x3 convolution; None for a 1x1 one.
    """
    conv = CONV[spatial_dims]
    if rate is None:
        head = conv(enters, out_channels, 1)
    else:
        head = conv(enters, out_channels, 3, padding=rate, dilation=rate)
    for name, last in head.named_parameters():
        nn.init.normal_(last, std=0.01 if name == "weight" else 0.0)
    return head


class ASPP(nn.Module):
    """Context at several rates: a 1x1 branch, dilated 3x3 branches, and the whole image's mean.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels of the features.
        channels: Channels of each branch, and of the result.
        rates: Dilations of each 3x3 branch along each axis.
        built_for: Output stride, per axis, at which these are the rates; the branches are dilated
            for it until :meth:`set_output_stride` says another.
        image_pooling: Whether a branch averages the whole map.
        separable: Whether the 3x3 convolutions are split into one per channel and one across
            channels.
        norm: Norm after every convolution.
        dropout: Share of the result dropped while training.

    Shape:
        (batch, enters, *cells) -> (batch, channels, *cells).
    """

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        channels: int,
        *,
        rates: Sequence[tuple[int, ...]],
        built_for: tuple[int, ...],
        image_pooling: bool,
        separable: bool,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.built_rates = tuple(rates)
        self.built_for = built_for
        self.near = conv_norm(spatial_dims, enters, channels, 1, norm)
        self.far = nn.ModuleList(
            spatial_conv(spatial_dims, enters, channels, norm, separable=separable) for _ in rates
        )
        self.pooled = pooled_conv(spatial_dims, enters, channels, norm) if image_pooling else None
        branches = 1 + len(rates) + image_pooling
        self.project = nn.Sequential(
            conv_norm(spatial_dims, branches * channels, channels, 1, norm), nn.Dropout(dropout)
        )
        self.set_output_stride(built_for)

    def set_output_stride(self, output_stride: tuple[int, ...]) -> None:
        """Dilate so that the branches reach as far in voxels as at the stride built for."""
        self.rates = [rescaled(rate, self.built_for, output_stride) for rate in self.built_rates]
        for branch, rate in zip(self.far, self.rates, strict=True):
            dilated = next(branch.children())
            dilated.dilation = dilated.padding = rate  # type: ignore[assignment]

    def forward(self, features: Tensor) -> Tensor:
        """Return the context of every cell, on the same grid."""
        branches = [self.near(features), *(branch(features) for branch in self.far)]
        if self.pooled is not None:
            spatial = tuple(range(2, features.dim()))
            mean = self.pooled(features.mean(dim=spatial, keepdim=True))
            branches.append(mean.expand(-1, -1, *spatial_size(features)))
        projected: Tensor = self.project(torch.cat(branches, dim=1))
        return projected

    def steps(self, axis: int) -> list[Step]:
        """Return the widest branch along one axis, for the receptive field."""
        return [Step(3, dilation=max((rate[axis] for rate in self.rates), default=1))]
