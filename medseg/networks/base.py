"""What every network promises, and the list of networks."""

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from medseg.registry import Registry

NETWORKS: Registry["Network"] = Registry(
    "network", given=("spatial_dims", "in_channels", "out_channels")
)


class Network(nn.Module, ABC):
    """A segmentation network for slices or volumes of any size.

    A job that leaves out the settings ``spacing`` and ``patch_voxels`` of a network that has them
    may fill them in from its own grid: they shape strides and kernels, and nothing else.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.

    Attributes:
        minimum_size: Smallest image side in voxels, per axis.
        output_stride: Voxels of the image per cell of the coarsest feature map, per axis.
        deep_supervision: Whether training returns a list: the logits, then those of coarser
            levels or of auxiliary heads.
        supervision_weights: Weight of each loss of that list; None for 1, 1/2, 1/4 ... and 0 for
            the coarsest, as in nnU-Net.

    Raises:
        ValueError: ``spatial_dims`` is neither 2 nor 3, or there are no channels.
    """

    minimum_size: tuple[int, ...]
    output_stride: tuple[int, ...]
    deep_supervision: bool = False
    supervision_weights: tuple[float, ...] | None = None

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        _check_dims(spatial_dims)
        if min(in_channels, out_channels) < 1:
            raise ValueError(
                f"a network needs channels in and out, got {in_channels} and {out_channels}"
            )
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.minimum_size = (1,) * spatial_dims
        self.output_stride = (1,) * spatial_dims

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits on the image's own grid.

        Args:
            image: (batch, in_channels, *spatial), any size from ``minimum_size`` up.

        Returns:
            (batch, out_channels, *spatial), logits. While training with ``deep_supervision``, a
            list: these first, then those of each coarser level, finest first, or of auxiliary
            heads. A level of stride s has ceil(side / s) cells along an axis; its cell i covers
            the voxels from i * s on.
        """

    @abstractmethod
    def receptive_field(self) -> tuple[int, ...]:
        """Return how many voxels along each axis the convolutions of one output voxel can see.

        Statistics that a normalisation or an image-wide pooling gathers are not counted: they
        see the whole image.
        """

    @classmethod
    def small(cls, spatial_dims: int, in_channels: int, out_channels: int) -> Self:
        """Return the preset for little data: tens of images, batches of one or two.

        A job asks for it with ``preset: small``.
        """
        _check_dims(spatial_dims)
        return cls(spatial_dims, in_channels, out_channels, **cls.small_settings(spatial_dims))

    @classmethod
    @abstractmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """Return the settings of the preset for little data."""


def _check_dims(spatial_dims: int) -> None:
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is 2 for slices or 3 for volumes, got {spatial_dims}")
