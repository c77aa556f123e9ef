"""DeepLab V3+: a dilated encoder, context at several rates, and a decoder that redraws borders.

Source: Chen et al., ECCV 2018, arXiv:1802.02611; its encoder is that of V3, arXiv:1706.05587.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.aspp import make_head
from medseg.networks.base import NETWORKS
from medseg.networks.deeplabv3 import DeepLabV3
from medseg.networks.layers import (
    Norm,
    Step,
    conv_norm,
    init_he,
    receptive_field,
    spatial_conv,
    spatial_size,
)


@NETWORKS.register("deeplabv3plus")
class DeepLabV3Plus(DeepLabV3):
    """DeepLab V3 with a decoder, in 2D and 3D.

    Differs from the paper: a norm that trains with a batch of one; rates that shrink with the
    patch, since a rate beyond the feature map meets only padding; the first block of a dilated
    stage keeps the previous rate (with a multi-grid of 1, 2, 4 at output stride 16, the last
    stage of a ResNet-50 has the rates 1, 4, 8, not 2, 4, 8), so that the output stride can be
    switched; a decoder at stride 2 on request; sizes are padded to k * stride + 1 voxels and
    resized with aligned corners, so that nothing shifts.

    The image pooling sees the whole input: tiles of an image, unlike the whole, give other logits.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        encoder: Name of the encoder, e.g. ``resnet18``, ``xception65`` or, for slices,
            ``timm:resnet18``.
        encoder_width: Channels of the encoder's first stage (Xception: its stem), all others in
            proportion; None for as many as published.
        pretrained: Whether an encoder of timm begins with downloaded weights.
        output_stride: Voxels per cell of the encoder's last map along the finest axes. May be
            changed after training, with :meth:`set_output_stride`.
        multi_grid: Factors of the dilations in the encoder's last stage; None for 1, 2 and 4 in a
            residual encoder, and for encoders without them.
        context: ``aspp``, the published pyramid, or ``dpc``, the dense prediction cell that a
            search found to do better.
        context_cell: The cell of a ``dpc``, for each branch its ``source`` (-1 for the features,
            else an earlier branch) and its ``rates`` at output stride 16 or its averages' ``grid``,
            per axis, or neither for a 1x1 convolution; None for the published one.
        aspp_rates: Dilations of the pyramid's branches at this ``output_stride``. ``auto`` are 6,
            12 and 18 on a map of 33 cells, and in proportion on that of ``patch_voxels``, rounded
            at output stride 8 whatever this one is.
        aspp_channels: Channels of each context branch.
        image_pooling: Whether a branch of the pyramid averages the whole image.
        low_level_channels: Channels that the decoder keeps of the early map.
        decoder_channels: Channels of the decoder's two convolutions.
        decoder_stride: Stride of the early map: 4 as published, or 2 for small structures.
        separable: Whether the 3x3 convolutions of context and decoder are split into one per
            channel and one across channels; those of a ``dpc`` always are.
        norm: Norm after every convolution; ``auto`` is a group norm, ``batch`` that of the paper.
        dropout: Share of features dropped after the context while training.
        patch_voxels: The training patch, for ``aspp_rates``.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No such encoder, one without a map at ``decoder_stride``, an ``output_stride``
            other than 8 and 16, a rate below 1, a ``context_cell`` that cannot be, or one for an
            ``aspp``, or ``aspp_rates`` for a ``dpc``.
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
        multi_grid: Sequence[int] | None = None,
        context: Literal["aspp", "dpc"] = "aspp",
        context_cell: Sequence[Mapping[str, Any]] | None = None,
        aspp_rates: Literal["auto"] | Sequence[int] = "auto",
        aspp_channels: int = 256,
        image_pooling: bool = True,
        low_level_channels: int = 48,
        decoder_channels: int = 256,
        decoder_stride: Literal[2, 4] = 4,
        separable: bool = False,
        norm: Norm = "auto",
        dropout: float = 0.1,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            encoder=encoder,
            encoder_width=encoder_width,
            pretrained=pretrained,
            output_stride=output_stride,
            multi_grid=multi_grid,
            context=context,
            context_cell=context_cell,
            aspp_rates=aspp_rates,
            aspp_channels=aspp_channels,
            image_pooling=image_pooling,
            separable=separable,
            norm=norm,
            dropout=dropout,
            patch_voxels=patch_voxels,
            spacing=spacing,
        )
        self.low_level = {2: -5, 4: -4}[decoder_stride]  # the last map is that of a 32nd
        if len(self.encoder.channels) < -self.low_level:
            raise ValueError(f'encoder "{encoder}" has no map at stride 2; set decoder_stride to 4')
        self.reduce = conv_norm(
            spatial_dims, self.encoder.channels[self.low_level], low_level_channels, 1, norm
        )
        both = low_level_channels + aspp_channels
        self.decoder = nn.Sequential(
            *(
                spatial_conv(spatial_dims, enters, decoder_channels, norm, separable=separable)
                for enters in (both, decoder_channels)
            )
        )
        init_he(self.reduce)
        init_he(self.decoder)
        self.head = make_head(spatial_dims, decoder_channels, out_channels)

    @classmethod
    def paper(
        cls,
        in_channels: int = 3,
        out_channels: int = 21,
        *,
        encoder: str = "resnet101",
        separable: bool = False,
    ) -> Self:
        """Return the published 2D network, trained at output stride 16 on crops of 513 voxels.

        59,344,309 parameters for 3 channels and 21 classes; with resnet50 40,352,181.
        """
        return cls(
            2,
            in_channels,
            out_channels,
            encoder=encoder,
            output_stride=16,
            separable=separable,
            norm="batch",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A ResNet-18 of half width (3D: -10, a quarter) with a decoder at stride 2."""
        encoder, width, patch = {2: ("resnet18", 32, 192), 3: ("resnet10", 16, 64)}[spatial_dims]
        return {
            "encoder": encoder,
            "encoder_width": width,
            "multi_grid": (1, 1, 1),
            "aspp_channels": 64,
            "low_level_channels": 24,
            "decoder_channels": 64,
            "decoder_stride": 2,
            "patch_voxels": (patch,) * spatial_dims,
        }

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        maps = self.encoder(self.encoder.pad(image))
        context = self.context(maps[-1])
        fine = self.reduce(maps[self.low_level])
        context = self.encoder.resize(context, spatial_size(fine))
        logits = self.head(self.decoder(torch.cat([fine, context], dim=1)))
        return self.encoder.enlarge(logits, image)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis, the image pooling aside."""
        early = self.encoder.grids[self.low_level]
        fields = []
        for axis in range(self.spatial_dims):
            coarse, fine = self.output_stride[axis], early[axis]
            steps = [
                *self.encoder.steps(axis),
                *self.context.steps(axis),
                Step(up=coarse // fine, blend=True),
                *[Step(3)] * 2,
                Step(up=fine, blend=True),
            ]
            fields.append(receptive_field(steps))
        return tuple(fields)
