"""What every loss is given, and the list of losses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.registry import Registry

LOSSES: Registry["Loss"] = Registry("loss")


class Loss(nn.Module, ABC):
    """How wrong logits are, as one number to be made small."""

    @abstractmethod
    def forward(
        self, logits: Tensor, target: Tensor, voxel_weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: (batch, classes, *spatial), background included, any floating dtype; sums are
                taken in float32.
            target: (batch, 1, *spatial), the class of every voxel as an integer.
            voxel_weights: (batch, 1, *spatial), how much every voxel counts in a mean over voxels;
                equal if None.
        """


def check_shapes(logits: Tensor, target: Tensor) -> None:
    """Check that the two lie on one grid and that there are classes to choose from.

    Raises:
        ValueError: They don't, or there is one class only.
    """
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits have {logits.shape[1]} channel; there are two classes or more, background "
            f"included"
        )
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target is {tuple(target.shape)}, but logits of {tuple(logits.shape)} ask for "
            f"{expected}"
        )


def check_weights(weights: Tensor | None, classes: int) -> None:
    """Check that there is one weight for each class.

    Raises:
        ValueError: There are more or fewer.
    """
    if weights is not None and len(weights) != classes:
        raise ValueError(
            f"class_weights are {len(weights)} numbers, but there are {classes} classes, "
            f"background included"
        )


ClassWeights = Sequence[float] | Literal["median_frequency"] | None


def as_weights(weights: ClassWeights) -> Tensor | None:
    """Return class weights as a tensor.

    Raises:
        ValueError: One is negative, none is positive, or they are still to be counted.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        raise ValueError(
            f'class_weights "{weights}" are counted in the training labels by a job; here, give '
            f"the numbers (median_frequency_weights)"
        )
    if min(weights) < 0 or max(weights) <= 0:
        raise ValueError(f"class_weights are not negative and not all zero, got {list(weights)}")
    return torch.tensor(weights, dtype=torch.float32)
