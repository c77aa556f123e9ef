"""DeepLab V3: a dilated encoder, and context at several rates with the whole image's mean.

Source: Chen et al., arXiv:1706.05587.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from torch import Tensor

from medseg.networks.aspp import ASPP, context_rates, make_head
from medseg.networks.base import NETWORKS, Network
from medseg.networks.dpc import CITYSCAPES_TOP1, Branch, DPCHead, cell_from_settings
from medseg.networks.encoders import check_output_stride, has_setting, make_encoder
from medseg.networks.layers import Norm, Step, init_he, receptive_field
from medseg.networks.topology import strides_from_spacing

__all__ = ["DeepLabV3", "make_head"]


@NETWORKS.register("deeplabv3")
class DeepLabV3(Network):
    """DeepLab V3 with a residual encoder, in 2D and 3D.

    Differs from the paper: a norm that trains with a batch of one; rates that shrink with the
    patch, since a rate beyond the feature map meets only padding; the first block of a dilated
    stage keeps the previous rate (with a multi-grid of 1, 2, 4 at output stride 16, the last
    stage of a ResNet-50 has the rates 1, 4, 8, not 2, 4, 8), so that the output stride can be
    switched; sizes are padded to k * stride + 1 voxels and resized with aligned corners, so that
    nothing shifts. As published, logits are enlarged to the labels while training, never labels
    reduced to the logits.

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
        output_stride: Voxels per cell of the encoder's last map along the finest axes: 16 in the
            paper's training, 8 in its tests. May be changed after training, with
            :meth:`set_output_stride`.
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
        separable: Whether the 3x3 convolutions of the context are split into one per channel and
            one across channels; those of a ``dpc`` always are.
        norm: Norm after every convolution; ``auto`` is a group norm, ``batch`` that of the paper.
        dropout: Share of features dropped after the context while training.
        patch_voxels: The training patch, for ``aspp_rates``.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No such encoder, an ``output_stride`` other than 8 and 16, a rate below 1, a
            ``context_cell`` that cannot be, or one for an ``aspp``, or ``aspp_rates`` for a
            ``dpc``.
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
        separable: bool = False,
        norm: Norm = "auto",
        dropout: float = 0.1,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        check_output_stride(output_stride, (8, 16))
        if multi_grid is None and has_setting(encoder, "multi_grid"):
            multi_grid = (1, 2, 4)
        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=strides_from_spacing(spatial_dims, spacing, 5),
            multi_grid=multi_grid,
            pretrained=pretrained,
        )
        # Published rates are rounded once, at the finer stride: built at 16 or switched to it, a
        # network is the same. Rates that were given are those at the stride given with them.
        finest = self.encoder.grid_at(8)
        self.context: ASPP | DPCHead
        if context == "aspp":
            if context_cell is not None:
                raise ValueError('context_cell is for the context "dpc"; an "aspp" has none')
            stated_at = finest if aspp_rates == "auto" else self.encoder.grid_at(output_stride)
            self.context = ASPP(
                spatial_dims,
                self.encoder.channels[-1],
                aspp_channels,
                rates=context_rates(aspp_rates, 8, stated_at, patch_voxels),
                built_for=stated_at,
                image_pooling=image_pooling,
                separable=separable,
                norm=norm,
                dropout=dropout,
            )
        else:
            if aspp_rates != "auto":
                raise ValueError('aspp_rates are for the context "aspp"; a "dpc" has its own')
            cell: Sequence[Branch] = CITYSCAPES_TOP1
            if context_cell is not None:
                cell = cell_from_settings(context_cell, spatial_dims)
            self.context = DPCHead(
                spatial_dims,
                self.encoder.channels[-1],
                aspp_channels,
                cell=cell,
                finest_stride=8,
                built_for=finest,
                patch_voxels=patch_voxels,
                norm=norm,
                dropout=dropout,
            )
        init_he(self.context)
        self.set_output_stride(output_stride)
        self.head = make_head(spatial_dims, aspp_channels, out_channels)

    @classmethod
    def paper(
        cls, in_channels: int = 3, out_channels: int = 21, *, encoder: str = "resnet101"
    ) -> Self:
        """Return the published 2D network, trained at output stride 16 on crops of 513 voxels.

        58,040,661 parameters for 3 channels and 21 classes; with resnet50 39,048,533.
        """
        return cls(2, in_channels, out_channels, encoder=encoder, output_stride=16, norm="batch")

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A ResNet-18 of half width (3D: -10, a quarter) and a narrow context."""
        encoder, width, patch = {2: ("resnet18", 32, 192), 3: ("resnet10", 16, 64)}[spatial_dims]
        return {
            "encoder": encoder,
            "encoder_width": width,
            "multi_grid": (1, 1, 1),
            "aspp_channels": 64,
            "patch_voxels": (patch,) * spatial_dims,
        }

    def set_output_stride(self, output_stride: Literal[8, 16]) -> None:
        """Change the encoder's output stride, also after training; the context rates follow.

        Raises:
            ValueError: It is neither 8 nor 16.
        """
        check_output_stride(output_stride, (8, 16))
        self.encoder.set_output_stride(output_stride)
        self.output_stride = self.encoder.grids[-1]
        self.context.set_output_stride(self.output_stride)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        maps = self.encoder(self.encoder.pad(image))
        return self.encoder.enlarge(self.head(self.context(maps[-1])), image)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis, the image pooling aside."""
        return tuple(
            receptive_field(
                [
                    *self.encoder.steps(axis),
                    *self.context.steps(axis),
                    Step(up=self.output_stride[axis], blend=True),
                ]
            )
            for axis in range(self.spatial_dims)
        )
