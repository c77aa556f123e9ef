"""What a network has to do for a patch, counted without doing it."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medseg.networks import NETWORKS


@dataclass(frozen=True)
class Work:
    """The forward pass of one image, per voxel of it.

    Args:
        multiply_adds: Of all convolutions: what time without a GPU goes into.
        features: Values that convolutions give out: what memory goes into.
    """

    multiply_adds: float
    features: float


def count_work(
    network: str, spatial_dims: int, in_channels: int, out_channels: int, settings: dict[str, Any]
) -> Work:
    """Return a network's work per voxel, counted on a middling patch of shapes without values.

    Args:
        network: Its name.
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        settings: Of the network.

    Raises:
        ValueError: The settings do not fit the network.
    """
    # A kernel of our own counts as what it stands for.
    plain = {"backend": "reference"} if "backend" in NETWORKS.settings(network) else {}
    with torch.device("meta"):
        net = NETWORKS.build(network, spatial_dims, in_channels, out_channels, **settings, **plain)
    size = [max(128 if spatial_dims == 2 else 32, least) for least in net.minimum_size]
    net.train()
    counter = _Counter()
    with torch.no_grad(), counter:
        # Two images: a norm over a batch of one has nothing to compare where all is pooled.
        net(torch.empty(2, in_channels, *size, device="meta"))
    voxels = 2 * prod(size)
    return Work(counter.multiply_adds / voxels, counter.features / voxels)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the convolutions that it sees."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0
        self.features = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "convolution":
            image, weight, transposed = args[0], args[1], args[6]
            # A weight meets each value out, or, in an up-convolution, each value in.
            met = image if transposed else result
            self.multiply_adds += met.numel() * prod(weight.shape[1:])
            self.features += result.numel()
        return result
