"""MS-D on images that are larger than the memory.

One voxel of the logits sees ``receptive_field()`` voxels of the image and no more. So the image is
read strip by strip, each with a halo of half that field: what comes out is what the whole image
would have given. Along the other axes strips are as wide as the image.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from medseg.networks.msd import MSDNet

_Rows = tuple[slice, Tensor]


class ImageRows(Protocol):
    """An image of which parts can be read: a tensor, or something that reads a file."""

    @property
    def shape(self) -> torch.Size:
        """(channels, *spatial)."""

    def __getitem__(self, place: tuple[slice, slice]) -> Tensor:
        """Return some channels and rows, with all that lies in them."""


def stream_logits(network: MSDNet, image: ImageRows, *, rows: int = 256) -> Iterator[_Rows]:
    """Yield the logits of an image strip by strip along its first spatial axis.

    They are those of the whole image, edges included: halos end where the image does, and there
    they are mirrored as the network does. A strip needs the memory of ``rows`` and twice the halo,
    see :func:`halo`; what a halo holds is computed again for the next strip.

    Args:
        network: Stays in its mode; nothing is kept for a gradient.
        image: Read with ``image[:, first:last]``, which gives (channels, rows, *spatial).
        rows: Of a strip, without its halo; more rows cost more memory and less time.

    Yields:
        The place along the first spatial axis, and its logits (classes, rows, *spatial).

    Raises:
        ValueError: ``rows`` is not positive.
    """
    if rows < 1:
        raise ValueError(f"a strip has a row or more, got {rows}")
    length, reach = image.shape[1], halo(network)
    # Dilations are clamped to the image's side; a strip must not be clamped to less.
    least = max(steps[0] for steps in network.dilations) + 1
    for first in range(0, length, rows):
        last = min(first + rows, length)
        start, stop = max(first - reach, 0), min(last + reach, length)
        if stop - start < least:
            start, stop = max(stop - least, 0), min(start + least, length)
        with torch.no_grad():
            strip: Tensor = network(image[:, start:stop][None])[0]
        yield slice(first, last), strip[:, first - start : last - start].clone()


def halo(network: MSDNet) -> int:
    """Return how many rows a strip needs before and behind it: half the receptive field."""
    return network.receptive_field()[0] // 2
