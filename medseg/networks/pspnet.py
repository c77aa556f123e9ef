"""PSPNet: a dilated encoder, and the means of ever smaller parts of the image as context.

The deepest map is averaged over the whole image, its quarters, ninths and thirty-sixths. Each
average is put through a 1x1 convolution, enlarged, and laid beside the map: every cell then knows
its own surroundings and the scene.

Source: Zhao et al., CVPR 2017, arXiv:1612.01105; the stem of three 3x3 convolutions as in the
authors' code (https://github.com/hszhao/semseg).
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from medseg.networks.aspp import pooled_conv
from medseg.networks.base import NETWORKS, Network
from medseg.networks.encoders import OutputStride, has_setting, make_encoder
from medseg.networks.layers import (
    CONV,
    Norm,
    Step,
    bin_means,
    conv_norm,
    init_he,
    receptive_field,
    resize_linear,
    spatial_size,
)
from medseg.networks.topology import strides_from_spacing

_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}


@NETWORKS.register("pspnet")
class PSPNet(Network):
    """PSPNet with a residual encoder, in 2D and 3D.

    Differs from the paper: a norm that trains with a batch of one; no more bins along an axis than
    the map has cells; the first block of a dilated stage keeps the previous rate, which leaves the
    counts as they are; sizes are padded to k * stride + 1 voxels and resized with aligned corners,
    bins with aligned edges, so that nothing shifts.

    The bins follow the whole input: tiles of an image, unlike the whole, give other logits.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        encoder: Name of the encoder, e.g. ``resnet18`` or, for slices, ``timm:resnet18``.
        encoder_width: Channels of the encoder's first stage; None for as many as published.
        pretrained: Whether an encoder of timm begins with downloaded weights.
        deep_stem: Whether a residual encoder begins with three 3x3 convolutions instead of one
            7x7; None for that, as the authors do, and for encoders without the choice.
        output_stride: Voxels per cell of the encoder's last map along the finest axes. There is no
            decoder: small structures need 4.
        bins: Parts along each axis that are averaged, one number for each branch of the pyramid.
        ppm_channels: Channels of each branch; None shares those of the encoder among them.
        head_channels: Channels between pyramid and logits; the auxiliary head has half as many.
        norm: Norm after every convolution; ``auto`` is a group norm, ``batch`` that of the paper,
            which needs two images a batch.
        dropout: Share of channels dropped before the logits while training.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.
        deep_supervision: Whether training also returns the logits of an auxiliary head on the
            encoder's third stage, whose loss counts 0.4. Evaluation does not compute them.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits; the auxiliary
        head's are of this shape, too.

    Raises:
        ValueError: No such encoder, or one without such a stem.
    """

    supervision_weights = (1.0, 0.4)

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        encoder: str = "resnet18",
        encoder_width: int | None = None,
        pretrained: bool = False,
        deep_stem: bool | None = None,
        output_stride: OutputStride = 8,
        bins: Sequence[int] = (1, 2, 3, 6),
        ppm_channels: int | None = None,
        head_channels: int = 512,
        norm: Norm = "auto",
        dropout: float = 0.1,
        spacing: Sequence[float] | None = None,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.deep_supervision = deep_supervision
        if deep_stem is None and has_setting(encoder, "deep_stem"):
            deep_stem = True
        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=strides_from_spacing(spatial_dims, spacing, 5),
            deep_stem=deep_stem,
            pretrained=pretrained,
        )
        self.encoder.set_output_stride(output_stride)
        self.output_stride = self.encoder.grids[-1]
        *_, middle, deep = self.encoder.channels
        branch = ppm_channels or deep // max(len(bins), 1)
        self.pyramid = PyramidPooling(spatial_dims, deep, branch, bins=bins, norm=norm)
        both = deep + branch * len(bins)
        self.head = _Head(spatial_dims, both, head_channels, out_channels, norm, dropout)
        init_he(self.pyramid)
        self.auxiliary = None
        if deep_supervision:
            self.auxiliary = _Head(
                spatial_dims, middle, head_channels // 2, out_channels, norm, dropout
            )

    @classmethod
    def paper(
        cls,
        in_channels: int = 3,
        out_channels: int = 21,
        *,
        encoder: str = "resnet50",
        deep_supervision: bool = True,
    ) -> Self:
        """Return the published 2D network, trained on crops of 473 pixels (Cityscapes: 713).

        49,081,578 parameters for 3 channels and 21 classes, 46,716,373 without the auxiliary head;
        with resnet101 68,073,706 and 65,708,501.
        """
        return cls(
            2,
            in_channels,
            out_channels,
            encoder=encoder,
            norm="batch",
            deep_supervision=deep_supervision,
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A narrow ResNet-18 (3D: -10) whose last map is a quarter of the image's size."""
        return {
            "encoder": {2: "resnet18", 3: "resnet10"}[spatial_dims],
            "encoder_width": 16,
            "output_stride": 4,
            "head_channels": 64,
        }

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits on the image's own grid; while training a list, with deep supervision."""
        *_, middle, deep = self.encoder(self.encoder.pad(image))
        logits = self.encoder.enlarge(self.head(self.pyramid(deep)), image)
        if self.auxiliary is None or not self.training:
            return logits
        return [logits, self.encoder.enlarge(self.auxiliary(middle), image)]

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis, the pyramid's means aside."""
        return tuple(
            receptive_field([*self.encoder.steps(axis), Step(3), Step(up=stride, blend=True)])
            for axis, stride in enumerate(self.output_stride)
        )


class PyramidPooling(nn.Module):
    """A map, and beside it the means of its parts on ever finer divisions of the whole.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels of the map.
        channels: Channels of each branch.
        bins: Parts along each axis, one number a branch.
        norm: Norm of each branch; a group norm stands for ``instance``.

    Shape:
        (batch, enters, *cells) -> (batch, enters + len(bins) * channels, *cells); the first
        ``enters`` channels are the map itself.
    """

    def __init__(
        self, spatial_dims: int, enters: int, channels: int, *, bins: Sequence[int], norm: Norm
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.pooled = nn.ModuleList(
            pooled_conv(spatial_dims, enters, channels, norm) for _ in self.bins
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the map with its context, on the same grid."""
        size = spatial_size(features)
        branches = [features]
        for count, branch in zip(self.bins, self.pooled, strict=True):
            means = branch(bin_means(features, [min(count, n) for n in size]))
            # The bins tile the map from edge to edge, whatever its own corners stand for.
            branches.append(resize_linear(means, size, align_corners=False))
        return torch.cat(branches, dim=1)


class _Head(nn.Sequential):
    """From features to logits: 3x3 convolution, norm, ReLU, dropout, 1x1 convolution."""

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        channels: int,
        out_channels: int,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__(
            conv_norm(spatial_dims, enters, channels, 3, norm),
            _DROPOUT[spatial_dims](dropout),
            CONV[spatial_dims](channels, out_channels, 1),
        )
        init_he(self)
