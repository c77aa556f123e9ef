"""DeepLab V1: VGG that dilates instead of pooling from 1/8 on, and a dilated classifier.

Source: Chen et al., ICLR 2015, arXiv:1412.7062. Its fully connected CRF is not part of the network.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.aspp import make_head, scaled_to_patch
from medseg.networks.base import NETWORKS, Network
from medseg.networks.encoders import ENCODERS, Encoder, check_output_stride
from medseg.networks.layers import Norm, Step, conv_norm, init_he, receptive_field
from medseg.networks.topology import strides_from_spacing

# Cells from end to end of the published classifier: 3x3 rate 12, 4x4 rate 8, 7x7 rate 4.
_REACH = 24


@NETWORKS.register("deeplabv1")
class DeepLabV1(Network):
    """DeepLab V1 with a VGG encoder, in 2D and 3D.

    Differs from the paper by default: a norm that trains with a batch of one; a classifier whose
    rate shrinks with the patch, since a rate beyond the feature map meets only padding; logits
    enlarged to the labels while training, where the paper reduces the labels to the logits. The
    pooling after a pooling that keeps its grid is dilated, as the convolutions are; the paper does
    not speak of it.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        encoder: ``vgg11`` or ``vgg16``.
        encoder_width: Channels of the encoder's first stage; its last has 8 times as many.
        output_stride: Voxels per cell of the encoder's last map along the finest axes.
        fov_kernel: Kernel of the classifier's first layer: 3 is "LargeFOV".
        fov_rate: Its dilation, even for a kernel of 4. ``auto`` reaches over 24 cells of a map of
            41, as published (rates 12, 8, 4 of kernels 3, 4, 7), and in proportion on that of
            ``patch_voxels``.
        fov_channels: Channels of the classifier's two layers.
        multiscale_skip: Whether the classes are told from the image and the first four poolings,
            too ("MSc"), each by two convolutions.
        skip_channels: Channels of each of these convolutions.
        norm: Norm after every convolution; ``auto`` is a group norm, ``none`` as in the paper.
        dropout: Share of the classifier's features dropped while training.
        patch_voxels: The training patch, for ``fov_rate``.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: An ``output_stride`` other than 8 and 16, a rate below 1, or a kernel of 4 with
            an odd rate, which is centred on no cell.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        encoder: Literal["vgg11", "vgg16"] = "vgg16",
        encoder_width: int = 64,
        output_stride: Literal[8, 16] = 8,
        fov_kernel: Literal[3, 4, 7] = 3,
        fov_rate: Literal["auto"] | int = "auto",
        fov_channels: int = 1024,
        multiscale_skip: bool = False,
        skip_channels: int = 128,
        norm: Norm = "auto",
        dropout: float = 0.5,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        check_output_stride(output_stride, (8, 16))
        if fov_rate != "auto" and fov_rate < 1:
            raise ValueError(f"fov_rate is auto or 1 and up, got {fov_rate}")
        self.encoder: Encoder = ENCODERS[encoder](
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=strides_from_spacing(spatial_dims, spacing, 5),
        )
        self.encoder.set_output_stride(output_stride)
        self.output_stride = self.encoder.grids[-1]
        self.fov_kernel = fov_kernel
        if fov_rate == "auto":
            self.fov_rate = _auto_rate(fov_kernel, output_stride, self.output_stride, patch_voxels)
        else:
            self.fov_rate = (fov_rate,) * spatial_dims
        wide = self.encoder.channels
        fov = conv_norm(spatial_dims, wide[-1], fov_channels, fov_kernel, norm)
        fov[0].dilation = self.fov_rate  # type: ignore[assignment]
        fov[0].padding = _centred(fov_kernel, self.fov_rate)  # type: ignore[assignment]
        self.classifier = nn.Sequential(
            fov,
            nn.Dropout(dropout),
            conv_norm(spatial_dims, fov_channels, fov_channels, 1, norm),
            nn.Dropout(dropout),
        )
        self.sides = nn.ModuleList()
        if multiscale_skip:
            grids = [(1,) * spatial_dims, *self.encoder.grids[:4]]
            for enters, grid in zip((in_channels, *wide[:4]), grids, strict=True):
                first = conv_norm(spatial_dims, enters, skip_channels, 3, norm)
                stride = tuple(c // f for c, f in zip(self.output_stride, grid, strict=True))
                first[0].stride = stride  # type: ignore[assignment]
                second = conv_norm(spatial_dims, skip_channels, skip_channels, 1, norm)
                self.sides.append(nn.Sequential(first, second))
        init_he(self.classifier)
        init_he(self.sides)
        self.head = make_head(
            spatial_dims, fov_channels + len(self.sides) * skip_channels, out_channels
        )

    @classmethod
    def paper(
        cls,
        in_channels: int = 3,
        out_channels: int = 21,
        *,
        fov_kernel: Literal[3, 4, 7] = 3,
        fov_rate: Literal["auto"] | int = "auto",
        multiscale_skip: bool = False,
    ) -> Self:
        """Return the published 2D network.

        For 3 channels and 21 classes: 20,505,429 parameters with a kernel of 3 (LargeFOV),
        65,140,565 with 4 (at rate 8, or 4), and 134,346,581 with 7.
        """
        return cls(
            2,
            in_channels,
            out_channels,
            fov_kernel=fov_kernel,
            fov_rate=fov_rate,
            fov_channels=1024 if fov_kernel == 3 else 4096,
            multiscale_skip=multiscale_skip,
            norm="none",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A VGG-16 of a quarter of the width (3D: VGG-11) with a narrow LargeFOV."""
        encoder, patch = {2: ("vgg16", 192), 3: ("vgg11", 64)}[spatial_dims]
        return {
            "encoder": encoder,
            "encoder_width": 16,
            "fov_channels": 128,
            "skip_channels": 32,
            "dropout": 0.1,
            "patch_voxels": (patch,) * spatial_dims,
        }

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        padded = self.encoder.pad(image)
        maps = self.encoder(padded)
        features = [self.classifier(maps[-1])]
        for side, finer in zip(self.sides, (padded, *maps), strict=False):
            features.append(side(finer))
        return self.encoder.enlarge(self.head(torch.cat(features, dim=1)), image)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        return tuple(
            receptive_field(
                [
                    *self.encoder.steps(axis),
                    Step(self.fov_kernel, dilation=self.fov_rate[axis]),
                    Step(up=self.output_stride[axis], blend=True),
                ]
            )
            for axis in range(self.spatial_dims)
        )


def _auto_rate(
    kernel: int,
    finest_stride: int,
    output_stride: Sequence[int],
    patch_voxels: Sequence[int] | None,
) -> tuple[int, ...]:
    unit = 1 if kernel % 2 else 2  # an even kernel is centred at even rates
    published = (_REACH // (kernel - 1) // unit,) * len(output_stride)
    rate = scaled_to_patch(
        published, finest_stride, output_stride, patch_voxels, paper_stride=8, paper_cells=41
    )
    return tuple(unit * r for r in rate)


def _centred(kernel: int, rate: Sequence[int]) -> tuple[int, ...]:
    """Return the padding that keeps the grid and the kernel's centre on its cell."""
    if any(r * (kernel - 1) % 2 for r in rate):
        raise ValueError(f"fov_kernel {kernel} is centred on a cell at even rates, got {rate[0]}")
    return tuple(r * (kernel - 1) // 2 for r in rate)
