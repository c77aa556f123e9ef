"""What a network costs: the memory of its training, and seconds."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from medseg.networks.base import Network


@dataclass(frozen=True)
class Cost:
    """What a network costs at one image size, in bytes and in seconds of this machine.

    Attributes:
        kept_bytes: What the forward pass keeps for the backward pass: feature maps, and the image.
            Tensors that share their memory count once; weights are not counted.
        memory_bytes: These, and the weights, their gradients and the two moments of Adam. Training
            holds this much at least: what a convolution needs while it computes, the gradients of
            feature maps and the loss come on top.
        training_seconds: One step: forward, backward and optimiser.
        inference_seconds: One forward pass without gradients.
    """

    kept_bytes: int
    memory_bytes: int
    training_seconds: float
    inference_seconds: float


def measure_cost(network: Network, size: Sequence[int], *, batch: int = 1) -> Cost:
    """Return what a network costs on the CPU, from two steps of training on noise.

    The first step counts the memory and warms up; the second is timed.

    Args:
        network: Is trained by these steps.
        size: Voxels of the image along each spatial axis.
        batch: Images of a step.

    Raises:
        ValueError: The image is smaller than the network takes, or a step keeps more than this
            machine's memory.
    """
    for n, least in zip(size, network.minimum_size, strict=True):
        if n < least:
            raise ValueError(f"{n} voxels along an axis are too few: it takes {least} or more")
    image = torch.randn(batch, network.in_channels, *size)
    optimiser = torch.optim.AdamW(network.parameters())
    weights = nbytes(network.parameters())
    network.train()
    kept = Kept(network, limit=machine_memory() - 4 * weights)
    with saved_tensors_hooks(kept.add, lambda tensor: tensor):
        outputs = network(image)
    _learn(outputs, optimiser)
    began = perf_counter()
    _learn(network(image), optimiser)
    trained = perf_counter()
    network.eval()
    with torch.no_grad():
        network(image)
    return Cost(
        kept_bytes=kept.bytes,
        memory_bytes=kept.bytes + 4 * weights + nbytes(network.buffers()),
        training_seconds=trained - began,
        inference_seconds=perf_counter() - trained,
    )


class Kept:
    """Counts the memory that a forward pass keeps for the backward pass.

    Args:
        network: Its weights and buffers are there anyway, and not counted.
        limit: Bytes at which to stop.
    """

    def __init__(self, network: nn.Module, *, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        tensors = [*network.parameters(), *network.buffers()]
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor's memory, if none that shares it has been counted.

        Raises:
            ValueError: It is more than the limit.
        """
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        if self.bytes > self.limit:
            raise ValueError(f"a training step keeps more than {self.limit / 1e9:.1f} GB")
        return tensor.detach()


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors that share no memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def machine_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _learn(outputs: Tensor | list[Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Take one step with the cross-entropy against noise."""
    losses = []
    for logits in [outputs] if isinstance(outputs, Tensor) else outputs:
        classes = torch.randint(logits.shape[1], (len(logits), *logits.shape[2:]))
        losses.append(F.cross_entropy(logits, classes))
    optimiser.zero_grad()
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
