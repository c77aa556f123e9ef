"""What every method for single objects promises, and the list of methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.registry import Registry

INSTANCES: Registry["Method"] = Registry("method", given=("spatial_dims",))

Array = NDArray[Any]
Floats = NDArray[np.float32]
Ids = NDArray[np.uint32]
Labels = NDArray[np.integer[Any]]

IGNORED = -1


class Method(ABC):
    """How a network learns objects that a class map cannot tell apart.

    Labels become targets after the augmentation, patch by patch, so that a border has the same
    width in each. The network gives scores, and these become objects again.

    Lengths are in the unit of the ``spacing`` that each function is given.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.

    Attributes:
        outputs: What each output of the network says, e.g. background, interior, border.
        averages: Whether scores of mirrored and resized views of an image may be averaged.
    """

    outputs: tuple[str, ...]
    averages: bool = True

    def __init__(self, spatial_dims: int) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is 2 for slices or 3 for volumes, got {spatial_dims}")
        self.spatial_dims = spatial_dims

    @abstractmethod
    def targets(self, labels: Labels, spacing: Sequence[float]) -> Floats:
        """Return what the network is to say of a patch.

        Args:
            labels: (*spatial), a positive number for each object, 0 for background, below 0 where
                nobody judged.
            spacing: Distance of neighbouring voxels along each axis.

        Returns:
            (channels, *spatial); the first channel is -1 where nobody judged.
        """

    @abstractmethod
    def loss(self, of_classes: nn.Module) -> nn.Module:
        """Return a loss of the network's outputs against :meth:`targets`.

        Args:
            of_classes: The job's loss, of logits (batch, classes, *spatial) against the class of
                each voxel (batch, 1, *spatial), -1 where nobody judged.
        """

    def scores(self, logits: Tensor) -> Tensor:
        """Return scores from 0 to 1 of the network's logits, each (batch, outputs, *spatial)."""
        return logits.softmax(1)

    @property
    @abstractmethod
    def thresholds(self) -> Mapping[str, float]:
        """What :meth:`objects` takes, ``smallest`` too, as it does before any is tuned."""

    @property
    @abstractmethod
    def candidates(self) -> Mapping[str, tuple[float, ...]]:
        """Values of each threshold that are worth trying on validation cases."""

    @abstractmethod
    def grown(self, scores: Floats, spacing: Sequence[float], chosen: Mapping[str, float]) -> Array:
        """Return the objects in the scores of one image, of any size, as :meth:`objects` does.

        Args:
            scores: (outputs, *spatial), of a whole image.
            spacing: Distance of neighbouring voxels along each axis.
            chosen: A value of each of :attr:`thresholds`.

        Returns:
            (*spatial), whole numbers: 0 for background, any other for each object.
        """

    def objects(self, scores: Floats, spacing: Sequence[float], **thresholds: float) -> Ids:
        """Return the objects in the scores of one image, grown to their full size.

        Args:
            scores: (outputs, *spatial), of a whole image.
            spacing: Distance of neighbouring voxels along each axis.
            thresholds: Some of :attr:`thresholds`; the others are as they stand there. Objects of
                fewer voxels than ``smallest`` are left out.

        Returns:
            (*spatial), uint32: 0 for background, the objects 1, 2, ...

        Raises:
            TypeError: The method has no such threshold.
        """
        unknown = thresholds.keys() - self.thresholds.keys()
        if unknown:
            raise TypeError(
                f"no threshold {', '.join(sorted(unknown))}, only {', '.join(self.thresholds)}"
            )
        chosen = {**self.thresholds, **thresholds}
        grown = self.grown(scores, spacing, chosen)
        return without_small(grown.astype(np.uint32), chosen["smallest"])


def without_small(ids: Ids, least: float) -> Ids:
    """Return objects without those of fewer voxels than ``least``, numbered 1, 2, ... anew."""
    sizes = np.bincount(ids.ravel())
    kept = sizes >= max(least, 1)
    if len(kept):
        kept[0] = False
    numbers = np.cumsum(kept, dtype=np.uint32) * kept
    renumbered: Ids = numbers.astype(np.uint32)[ids]
    return renumbered
