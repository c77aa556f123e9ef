"""What every encoder promises, and the list of encoders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil
from typing import Any, Literal, get_args

from torch import Tensor, nn

from medseg.networks.layers import (
    Norm,
    Step,
    crop_end,
    pad_end,
    resize_linear,
    spatial_size,
    whole_cells,
)
from medseg.registry import Registry

OutputStride = Literal[4, 8, 16, 32]
ENCODERS: Registry["Encoder"] = Registry("encoder", given=("spatial_dims", "in_channels"))


class Encoder(nn.Module, ABC):
    """A classifier's trunk without its classifier: feature maps on ever coarser grids.

    A stage that would halve the grid can keep it and dilate its kernels instead, so that the same
    weights serve at several output strides.

    Attributes:
        channels: Channels of each feature map that ``forward`` returns, finest first: one for each
            of five halvings, and the last four at least.
        grids: Voxels per cell of each of these maps, per axis.
        halvings: One stride per axis for each of the halvings down to a 32nd.
        aligned_corners: How cells lie on voxels. If true (strided 3x3 convolutions and poolings,
            padded by one), the centre of cell i is voxel i * stride, and images are padded to
            k * stride + 1 voxels. If false (2x2 pooling), cell i covers the voxels from i * stride
            on, and images are padded to k * stride.
    """

    channels: tuple[int, ...]
    grids: list[tuple[int, ...]]
    halvings: tuple[tuple[int, ...], ...]
    aligned_corners: bool

    @abstractmethod
    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Halve down to ``output_stride`` along the finest axes, and dilate from there on.

        The weights stay as they are: what was trained at one output stride works at another.

        Raises:
            ValueError: It is none of 4, 8, 16 and 32.
        """

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps, finest first.

        Args:
            image: (batch, in_channels, *spatial), of a size that :meth:`pad` gives.
        """

    @abstractmethod
    def steps(self, axis: int) -> list[Step]:
        """Return the layers along one axis, for the receptive field."""

    def grid_at(self, output_stride: OutputStride) -> tuple[int, ...]:
        """Return the voxels per cell that the last map would have, per axis."""
        grid = tuple(1 for _ in self.halvings[0])
        for halving in self.halvings:
            halved = tuple(g * h for g, h in zip(grid, halving, strict=True))
            if max(halved) <= output_stride:
                grid = halved
        return grid

    def padded_size(self, image: Tensor) -> tuple[int, ...]:
        """Return the smallest size of whole cells of the coarsest map that holds the image."""
        size, stride = spatial_size(image), self.grids[-1]
        if self.aligned_corners:
            return tuple(ceil((n - 1) / s) * s + 1 for n, s in zip(size, stride, strict=True))
        return whole_cells(size, stride)

    def cells(self, padded: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of a map on ``grid`` of an image whose size is ``padded``."""
        if self.aligned_corners:
            return tuple((n - 1) // s + 1 for n, s in zip(padded, grid, strict=True))
        return tuple(n // s for n, s in zip(padded, grid, strict=True))

    def pad(self, image: Tensor) -> Tensor:
        """Repeat the last voxels until the image has its :meth:`padded_size`."""
        return pad_end(image, self.padded_size(image))

    def resize(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate a map onto the size of a finer one, or of the padded image, unshifted."""
        return resize_linear(features, size, align_corners=self.aligned_corners)

    def enlarge(self, logits: Tensor, image: Tensor) -> Tensor:
        """Interpolate logits of a coarse grid onto the voxels of the image, as it was unpadded.

        Args:
            logits: (batch, classes, *cells), of one of the maps' grids.
            image: (batch, in_channels, *spatial), before :meth:`pad`.
        """
        return crop_end(self.resize(logits, self.padded_size(image)), spatial_size(image))


def check_output_stride(
    output_stride: int, possible: Sequence[int] = get_args(OutputStride)
) -> None:
    """Raise a ValueError if this is none of the possible output strides."""
    if output_stride not in possible:
        *others, last = possible
        listed = f"{', '.join(str(stride) for stride in others)} or {last}"
        raise ValueError(f"output_stride is {listed}, got {output_stride}")


def has_setting(encoder: str, setting: str) -> bool:
    """Return whether encoders of this name's family have a setting, e.g. ``multi_grid``."""
    return setting in ENCODERS.settings(encoder.partition(":")[0])


def make_encoder(
    name: str,
    spatial_dims: int,
    in_channels: int,
    *,
    norm: Norm = "auto",
    strides: Sequence[Sequence[int]] | None = None,
    width: int | None = None,
    multi_grid: Sequence[int] | None = None,
    deep_stem: bool | None = None,
    pretrained: bool = False,
) -> Encoder:
    """Return the named encoder, with those of the settings that are not None.

    Args:
        name: One of :data:`ENCODERS`; ``timm:<model>`` for one of timm's.
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        norm: Norm after every convolution; those of timm keep their own.
        strides: One stride per axis for each of the five halvings.
        width: Channels of the first stage's convolutions (of an Xception's stem); all others are
            in proportion.
        multi_grid: Factors of the dilations of the last stage's blocks.
        deep_stem: Whether three 3x3 convolutions stand for the stem's 7x7.
        pretrained: Whether to begin with downloaded weights; only timm has them.

    Raises:
        ValueError: No such encoder, or one without a setting that was given; the message has the
            setting's name in a network.
    """
    family, _, model = name.partition(":")
    known = ENCODERS.settings(family)
    if model and "model" not in known:
        raise ValueError(f'encoder: "{family}" has no models, got "{name}"; say "{family}"')
    if "model" in known and not model:
        raise ValueError(f'encoder "{name}" needs a model, as in "{name}:resnet18"')
    given = {
        "model": model or None,
        "norm": norm if "norm" in known else None,
        "strides": strides,
        "width": width,
        "multi_grid": multi_grid,
        "deep_stem": deep_stem,
        "pretrained": pretrained or None,
    }
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key in settings:
        if key not in known:
            setting = "encoder_width" if key == "width" else key
            raise ValueError(f'{setting}: not a setting of encoder "{name}"; leave it out')
    return ENCODERS[family](spatial_dims, in_channels, **settings)
