"""DeepLab V2: scores at several rates, summed, and the image at several scales.

Source: Chen et al., TPAMI 40 (2018) 834-848, arXiv:1606.00915. Its fully connected CRF is not part
of the network.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.aspp import context_rates, make_head, rescaled
from medseg.networks.base import NETWORKS, Network
from medseg.networks.encoders import check_output_stride, make_encoder
from medseg.networks.layers import Norm, Step, conv_norm, init_he, receptive_field, spatial_size
from medseg.networks.topology import strides_from_spacing

_RATES = (6, 12, 18, 24)  # "ASPP-L", at output stride 8 on maps of 41 cells


@NETWORKS.register("deeplabv2")
class DeepLabV2(Network):
    """DeepLab V2 with a residual or a VGG encoder, in 2D and 3D.

    Differs from the paper by default: a smaller encoder with a norm that trains with a batch of
    one; rates that shrink with the patch, since a rate beyond the feature map meets only padding;
    the first block of a residual encoder's dilated stage keeps the previous rate, and VGG's last
    pooling is dilated as the convolutions are, so that finer maps contain the coarser ones; one
    scale of the image. Scores of several scales are compared on the image's own grid, in the
    authors' code on that of the coarse scores.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        encoder: Name of the encoder, e.g. ``resnet18``, ``vgg16`` or, for slices,
            ``timm:resnet18``.
        encoder_width: Channels of the encoder's first stage (Xception: its stem), all others in
            proportion; None for as many as published.
        pretrained: Whether an encoder of timm begins with downloaded weights.
        output_stride: Voxels per cell of the encoder's last map along the finest axes.
        aspp_rates: Dilations of the branches at this ``output_stride``. ``auto`` are 6, 12, 18 and
            24 on a map of 41 cells, and in proportion on that of ``patch_voxels``, rounded at
            output stride 8 whatever this one is.
        aspp_channels: Channels of a branch's two hidden layers: 1024 as published for VGG. 0 as
            published for ResNet: one convolution from the features to the classes.
        input_scales: Sizes of the image, relative to its own, that the same weights see; of each
            class and voxel the highest score counts. Published are 0.5, 0.75 and 1. An axis that
            is too thick to be halved at once keeps its size.
        deep_supervision: Whether training returns the logits of every scale after the fused ones,
            for a loss of weight 1 each.
        norm: Norm after every convolution of the encoder; ``auto`` is a group norm, ``batch``
            (ResNet) and ``none`` (VGG) those of the paper. The branches have none.
        dropout: Share of a branch's hidden features dropped while training.
        patch_voxels: The training patch, for ``aspp_rates``.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No such encoder, an ``output_stride`` other than 8 and 16, no scale or rate, or
            one that is not positive.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        encoder: str = "resnet18",
        encoder_width: int | None = None,
        pretrained: bool = False,
        output_stride: Literal[8, 16] = 8,
        aspp_rates: Literal["auto"] | Sequence[int] = "auto",
        aspp_channels: int = 0,
        input_scales: Sequence[float] = (1.0,),
        deep_supervision: bool = False,
        norm: Norm = "auto",
        dropout: float = 0.5,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        check_output_stride(output_stride, (8, 16))
        if not input_scales or min(input_scales) <= 0:
            raise ValueError(f"input_scales are one or more above 0, got {list(input_scales)}")
        if not aspp_rates:
            raise ValueError("aspp_rates are one or more of 1 and up, got []")
        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=strides_from_spacing(spatial_dims, spacing, 5),
            pretrained=pretrained,
        )
        self.encoder.set_output_stride(output_stride)
        self.output_stride = self.encoder.grids[-1]
        # Published rates are rounded at the finer stride: at both there are as many branches.
        stated_at = self.encoder.grid_at(8) if aspp_rates == "auto" else self.output_stride
        stated = context_rates(
            aspp_rates, 8, stated_at, patch_voxels, paper=_RATES, paper_stride=8, paper_cells=41
        )
        self.rates = [rescaled(rate, stated_at, self.output_stride) for rate in stated]
        self.branches = nn.ModuleList(
            _branch(
                spatial_dims, self.encoder.channels[-1], aspp_channels, out_channels, rate, dropout
            )
            for rate in self.rates
        )
        self.input_scales = tuple(input_scales)
        self.deep_supervision = deep_supervision
        outputs = 1 + len(self.input_scales) if len(self.input_scales) > 1 else 1
        self.supervision_weights = (1.0,) * outputs

    @classmethod
    def paper(
        cls,
        in_channels: int = 3,
        out_channels: int = 21,
        *,
        encoder: Literal["resnet101", "vgg16"] = "resnet101",
    ) -> Self:
        """Return the published 2D network, with ResNet-101 at three scales, or with VGG-16.

        For 3 channels and 21 classes 44,048,532 parameters, with VGG-16 37,877,652.
        """
        if encoder == "vgg16":
            return cls(
                2, in_channels, out_channels, encoder=encoder, aspp_channels=1024, norm="none"
            )
        return cls(
            2,
            in_channels,
            out_channels,
            encoder=encoder,
            input_scales=(0.5, 0.75, 1.0),
            deep_supervision=True,
            norm="batch",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A ResNet-18 of half width (3D: -10, a quarter)."""
        encoder, width, patch = {2: ("resnet18", 32, 192), 3: ("resnet10", 16, 64)}[spatial_dims]
        return {
            "encoder": encoder,
            "encoder_width": width,
            "patch_voxels": (patch,) * spatial_dims,
        }

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits on the image's own grid; a list while training with deep supervision."""
        each = [self.logits_at(image, scale) for scale in self.input_scales]
        fused = each[0]
        for logits in each[1:]:
            fused = torch.maximum(fused, logits)
        if not (self.training and self.deep_supervision):
            return fused
        return [fused, *each] if len(each) > 1 else [fused]

    def logits_at(self, image: Tensor, scale: float) -> Tensor:
        """Return the logits of the image seen at another size, on its own grid."""
        size = spatial_size(image)
        scaled = self._scaled(size, scale)
        if scaled == size:
            return self._logits(image)
        return self.encoder.resize(self._logits(self.encoder.resize(image, scaled)), size)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis; with scales, at the most."""
        fields = []
        for axis in range(self.spatial_dims):
            field = receptive_field(
                [
                    *self.encoder.steps(axis),
                    Step(3, dilation=max(rate[axis] for rate in self.rates)),
                    Step(up=self.output_stride[axis], blend=True),
                ]
            )
            scales = self.input_scales if self._is_scaled(axis) else (1.0,)
            # Interpolating there and back reads a neighbour more on either grid.
            fields.append(max(field if s == 1 else int((field + 1) / s) + 2 for s in scales))
        return tuple(fields)

    def _logits(self, image: Tensor) -> Tensor:
        features = self.encoder(self.encoder.pad(image))[-1]
        scores = [branch(features) for branch in self.branches]
        return self.encoder.enlarge(torch.stack(scores).sum(0), image)

    def _is_scaled(self, axis: int) -> bool:
        return self.encoder.halvings[0][axis] > 1

    def _scaled(self, size: tuple[int, ...], scale: float) -> tuple[int, ...]:
        # With aligned corners n voxels span n - 1 steps.
        corner = int(self.encoder.aligned_corners)
        return tuple(
            max(1, round((n - corner) * scale) + corner) if self._is_scaled(axis) else n
            for axis, n in enumerate(size)
        )


def _branch(
    spatial_dims: int,
    enters: int,
    hidden: int,
    out_channels: int,
    rate: tuple[int, ...],
    dropout: float,
) -> nn.Module:
    """Return the scores at one rate: VGG's whole classifier, or one convolution without a norm."""
    if not hidden:
        return make_head(spatial_dims, enters, out_channels, rate)
    wide = conv_norm(spatial_dims, enters, hidden, 3, "none")
    wide[0].dilation = wide[0].padding = rate  # type: ignore[assignment]
    mixed = conv_norm(spatial_dims, hidden, hidden, 1, "none")
    init_he(wide)
    init_he(mixed)
    head = make_head(spatial_dims, hidden, out_channels)
    return nn.Sequential(wide, nn.Dropout(dropout), mixed, nn.Dropout(dropout), head)
