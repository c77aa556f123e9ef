"""What every backend of MS-D has to know beside the tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """The shape of a mixed-scale dense network.

    Maps are counted from 0. The planes that a network works on are the image's channels, then its
    maps: map m is plane ``in_channels + m``.

    Attributes:
        in_channels: Channels of the image.
        width: Maps of a layer; they don't see each other.
        dilations: Of each map, in voxels along each axis, slowest first.
        reflect: Whether planes are mirrored at the edges, instead of zero beyond.
    """

    in_channels: int
    width: int
    dilations: tuple[tuple[int, ...], ...]
    reflect: bool

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.dilations[0])

    @property
    def taps(self) -> int:
        """Weights of a kernel: 9 or 27."""
        return int(3**self.spatial_dims)

    @property
    def maps(self) -> int:
        """The number of maps: depth * width."""
        return len(self.dilations)

    @property
    def planes(self) -> int:
        """The number of planes: the image's channels and the maps."""
        return self.in_channels + self.maps

    def known(self, m: int) -> int:
        """Return how many planes the ``m``-th map sees."""
        return self.in_channels + m // self.width * self.width

    def blocks(self, size: int) -> Iterator[range]:
        """Yield the numbers of all maps, ``size`` at a time."""
        for first in range(0, self.maps, size):
            yield range(first, min(first + size, self.maps))

    def reach(self, m: int, size: Sequence[int]) -> tuple[int, ...]:
        """Return the dilation of the ``m``-th map, no more than an image of ``size`` allows."""
        return tuple(min(d, max(n - 1, 1)) for d, n in zip(self.dilations[m], size, strict=True))

    def filters(self, weights: Tensor) -> list[Tensor]:
        """Return the kernels of each map, (planes seen, 3, 3[, 3]), as views of all weights."""
        kernel = (3,) * self.spatial_dims
        shapes = [(self.known(m), *kernel) for m in range(self.maps)]
        parts = torch.split(weights, [prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
