"""MONAI's DynUNet: the U-Net of nnU-Net, whose strides and kernels follow from patch and spacing.

Source: Isensee et al., Nature Methods 18 (2021) 203-211, doi:10.1038/s41592-020-01008-z, as in
MONAI.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil, prod
from typing import Any, Literal, Self

import torch
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from torch import Tensor

from medseg.networks.base import NETWORKS, Network
from medseg.networks.layers import (
    Step,
    crop_end,
    pad_end,
    receptive_field,
    spatial_size,
    whole_cells,
)
from medseg.networks.topology import kernels_from_strides, plan_topology

_PATCH = {2: 256, 3: 64}
_WIDEST = {2: 512, 3: 320}
_NORMS = {
    "instance": ("INSTANCE", {"affine": True}),
    "batch": ("BATCH", {"affine": True}),
    "group": ("GROUP", {"num_groups": 8}),
}


@NETWORKS.register("dynunet")
class DynUNet(Network):
    """MONAI's DynUNet for any image size: the image is padded to whole cells, the logits cropped.

    Differs from nnU-Net's own: the convolutions have no bias, which the norm would remove.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        patch_voxels: The training patch, from which strides and kernels follow; 256 voxels a side
            by default, 64 in 3D.
        spacing: Distance of neighbouring voxels per axis; equal by default.
        strides: One stride per axis for each level, the first 1, instead of those that follow.
        kernels: One kernel per axis for each level, instead of those that follow.
        channels: Channels of each level, finest first; more than there are levels do no harm.
            By default 32, doubled at each level up to 512, or 320 in 3D.
        norm: Norm of every convolution; ``group`` has 8 groups.
        dropout: Share of channels dropped after each convolution while training.
        residual: Whether each level's two convolutions are bridged.
        deep_supervision: Whether training returns the logits of the coarser levels, too: all but
            the deepest.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: Fewer than three levels (the patch is too small for two halvings), or strides,
            kernels and channels that don't fit each other.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        strides: Sequence[Sequence[int]] | None = None,
        kernels: Sequence[Sequence[int]] | None = None,
        channels: Sequence[int] | None = None,
        norm: Literal["instance", "group", "batch"] = "instance",
        dropout: float = 0.0,
        residual: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        planned = plan_topology(
            patch_voxels or (_PATCH[spatial_dims],) * spatial_dims,
            spacing or (1.0,) * spatial_dims,
        )
        if strides is not None:
            planned = tuple(tuple(s) for s in strides), kernels_from_strides(strides[1:])
        self.strides = planned[0]
        self.kernels = planned[1] if kernels is None else tuple(tuple(k) for k in kernels)
        widths = channels or [
            min(32 * 2**level, _WIDEST[spatial_dims]) for level in range(len(self.strides))
        ]
        self._check(widths)
        self.deep_supervision = deep_supervision
        self.output_stride = tuple(prod(axis) for axis in zip(*self.strides, strict=True))
        net = MonaiDynUNet(
            spatial_dims,
            in_channels,
            out_channels,
            kernel_size=self.kernels,
            strides=self.strides,
            upsample_kernel_size=self.strides[1:],
            filters=list(widths),
            dropout=dropout or None,
            norm_name=_NORMS[norm],
            deep_supervision=deep_supervision,
            deep_supr_num=len(self.strides) - 2,
            res_block=residual,
        )
        # The body holds all layers but the head; MONAI's own network would list them twice.
        self.body = net.skip_layers
        self.head = net.output_block
        self.coarse_logits: list[Tensor] = net.heads

    @classmethod
    def paper(cls, in_channels: int = 1, out_channels: int = 2) -> Self:
        """Return nnU-Net's 3D network for a patch of 128 voxels a side: about 31 M parameters."""
        return cls(3, in_channels, out_channels, patch_voxels=(128, 128, 128))

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """16 to 128 channels, and three halvings unless a job's patch asks for more."""
        return {"patch_voxels": (32,) * spatial_dims, "channels": (16, 32, 64, *(128,) * 6)}

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits on the image's own grid; a list while training with deep supervision."""
        size = spatial_size(image)
        padded = pad_end(image, whole_cells(size, self.output_stride))
        logits = crop_end(self.head(self.body(padded)), size)
        if not self.deep_supervision:
            return logits
        coarse = list(self.coarse_logits)
        # MONAI's layers leave their logits in this one list, where they would outlive the step
        # and keep the network from being copied.
        self.coarse_logits[:] = [torch.empty(0)] * len(coarse)
        if not self.training:
            return logits
        cumulative = accumulate(
            self.strides, lambda a, b: tuple(x * y for x, y in zip(a, b, strict=True))
        )
        outputs = [logits]
        for aux, stride in zip(coarse, list(cumulative)[1:], strict=False):
            outputs.append(crop_end(aux, [ceil(n / s) for n, s in zip(size, stride, strict=True)]))
        return outputs

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis."""
        fields = []
        for axis in range(self.spatial_dims):
            levels = [(k[axis], s[axis]) for k, s in zip(self.kernels, self.strides, strict=True)]
            steps = []
            for kernel, stride in levels:
                steps += [Step(kernel, stride=stride), Step(kernel)]
            for level in reversed(range(1, len(levels))):
                steps += [Step(up=levels[level][1]), *[Step(levels[level - 1][0])] * 2]
            fields.append(receptive_field(steps))
        return tuple(fields)

    def _check(self, channels: Sequence[int]) -> None:
        levels = len(self.strides)
        if levels < 3:
            raise ValueError(
                f"a DynUNet halves the image twice or more, here {max(levels - 1, 0)} times; "
                f"enlarge patch_voxels, or set strides"
            )
        if len(self.kernels) != levels or len(channels) < levels:
            raise ValueError(
                f"{levels} levels of strides, but {len(self.kernels)} of kernels and "
                f"{len(channels)} of channels"
            )
        for name, rows in (("strides", self.strides), ("kernels", self.kernels)):
            if any(len(row) != self.spatial_dims for row in rows):
                raise ValueError(
                    f"{name} have {self.spatial_dims} numbers a level, got {list(rows)}"
                )
