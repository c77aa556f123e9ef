"""MONAI's BasicUNet: max-poolings, concatenation, instance norm, leaky ReLU.

Source: Falk et al., Nature Methods 16 (2019) 67-70, doi:10.1038/s41592-018-0261-2, as in MONAI.
"""

from collections.abc import Sequence
from typing import Any, Literal

from monai.networks.nets.basic_unet import BasicUNet as MonaiBasicUNet
from torch import Tensor

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import (
    Step,
    crop_end,
    norm_groups,
    pad_end,
    receptive_field,
    spatial_size,
    whole_cells,
)

_POOLINGS = 4


@NETWORKS.register("basicunet")
class BasicUNet(Network):
    """MONAI's BasicUNet for any image size: the image is padded to whole cells, the logits cropped.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of the five levels, finest first, then those before the head.
        norm: Norm of every convolution; instance norm, as published, or a group norm, batch norm.
        dropout: Share of channels dropped after each convolution while training.
        up: ``deconv`` learns the way up; ``linear`` interpolates.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: There are not six numbers of channels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 32, 64, 128, 256, 32),
        norm: Literal["instance", "group", "batch"] = "instance",
        dropout: float = 0.0,
        up: Literal["deconv", "linear"] = "deconv",
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        if len(channels) != _POOLINGS + 2:
            raise ValueError(
                f"channels are {_POOLINGS + 2}: five levels and the last layer, "
                f"got {list(channels)}"
            )
        self.output_stride = (2**_POOLINGS,) * spatial_dims
        self.net = MonaiBasicUNet(
            spatial_dims,
            in_channels,
            out_channels,
            features=tuple(channels),
            norm=_norm(norm, channels),
            dropout=dropout,
            upsample="deconv" if up == "deconv" else "nontrainable",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Half of the channels."""
        return {"channels": (16, 16, 32, 64, 128, 16)}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        size = spatial_size(image)
        logits: Tensor = self.net(pad_end(image, whole_cells(size, self.output_stride)))
        return crop_end(logits, size)

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        convs = [Step(3)] * 2
        down = [*convs, Step(2, stride=2)] * _POOLINGS
        return (receptive_field([*down, *convs, *([Step(up=2), *convs] * _POOLINGS)]),) * (
            self.spatial_dims
        )


def _norm(norm: str, channels: Sequence[int]) -> tuple[str, dict[str, Any]]:
    if norm == "group":
        # MONAI takes one number of groups for all layers.
        return "group", {"num_groups": min(norm_groups(wide) for wide in channels)}
    return norm, {"affine": True}
