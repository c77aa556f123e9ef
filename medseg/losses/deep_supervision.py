"""One loss for logits on several grids."""

from collections.abc import Sequence
from math import ceil, log2

import torch
from torch import Tensor, nn


class DeepSupervision(nn.Module):
    """Weighted sum of one loss over logits on ever coarser grids.

    Args:
        loss: The loss of each grid.
        weights: Weight of each grid, finest first. By default 1, 1/2, 1/4 ..., 0 for the coarsest,
            divided by their sum, as in nnU-Net. A weight of 0 is not computed at all.
    """

    def __init__(self, loss: nn.Module, *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = None if weights is None else tuple(weights)

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss of a network's output, be it one tensor or a list, finest first.

        Args:
            outputs: Logits, or a list of them, each (batch, classes, *its own spatial).
            target: (batch, 1, *spatial), the class of every voxel on the finest grid, or other
                targets. A coarser cell takes those at its centre.

        Raises:
            ValueError: There are other weights than outputs.
        """
        if isinstance(outputs, Tensor):
            total: Tensor = self.loss(outputs, target)
            return total
        weights = self.weights or supervision_weights(len(outputs))
        if len(weights) != len(outputs):
            raise ValueError(f"{len(weights)} weights for logits on {len(outputs)} grids")
        losses = [
            weight * self.loss(logits, nearest_onto(target, logits.shape[2:]))
            for weight, logits in zip(weights, outputs, strict=True)
            if weight > 0
        ]
        return torch.stack(losses).sum()


def supervision_weights(grids: int) -> tuple[float, ...]:
    """Return 1, 1/2, 1/4 ... for all grids but the coarsest, which gets 0, summing to 1."""
    raw = [0.5**grid for grid in range(grids)]
    if grids > 1:
        raw[-1] = 0.0
    return tuple(weight / sum(raw) for weight in raw)


def nearest_onto(target: Tensor, size: Sequence[int]) -> Tensor:
    """Return the target on a coarser grid: of every cell, the voxel at its centre.

    Along an axis of n voxels a grid of stride s, a power of two, has ceil(n / s) cells; cell i
    covers the voxels from i * s on, and the last one may reach beyond the image.

    Args:
        target: (batch, channels, *spatial), of any dtype.
        size: The coarser spatial size.
    """
    for axis, cells in enumerate(size, start=2):
        n = target.shape[axis]
        if n != cells:
            stride = 2 ** ceil(log2(n / cells))
            centres = torch.arange(cells, device=target.device) * stride + stride // 2
            target = target.index_select(axis, centres.clamp(max=n - 1))
    return target
