"""Objects in a network's scores: a method with the unit of its lengths and its thresholds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Unit
from medseg.instances import INSTANCES


class ObjectFinder:
    """What turns labels into targets for a network, and its scores into objects.

    Args:
        spatial_dims: 2 or 3.
        name: The method.
        settings: Its settings; lengths as numbers in ``unit``.
        unit: In ``px`` lengths count voxels of the prepared image, whatever their size.
        thresholds: The method's own if None.

    Raises:
        ValueError: The method or one of its settings is not known.
    """

    def __init__(
        self,
        spatial_dims: int,
        name: str,
        settings: Mapping[str, Any],
        unit: Unit,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.method = INSTANCES.build(name, spatial_dims, **settings)
        self.name = name
        self.settings = dict(settings)
        self.unit = unit
        self.thresholds = {**self.method.thresholds, **(thresholds or {})}

    @classmethod
    def from_dict(cls, spatial_dims: int, saved: Mapping[str, Any]) -> "ObjectFinder":
        """Return what :meth:`to_dict` described."""
        values = dict(saved)
        return cls(spatial_dims, unit=Unit(values.pop("unit")), **values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "name": self.name,
            "settings": self.settings,
            "unit": str(self.unit),
            "thresholds": self.thresholds,
        }

    def with_thresholds(self, thresholds: Mapping[str, float]) -> "ObjectFinder":
        """Return a finder with other thresholds."""
        dims = self.method.spatial_dims
        return ObjectFinder(dims, self.name, self.settings, self.unit, thresholds)

    def find(self, scores: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.uint32]:
        """Return the objects in the scores (outputs, *spatial) of a prepared image.

        Args:
            scores: Of the network.
            spacing: Of the voxels, in :attr:`unit`.
        """
        return self.method.objects(scores, spacing, **self.thresholds)
