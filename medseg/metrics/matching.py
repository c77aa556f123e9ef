"""Two label images of one case, and which predicted object stands for which reference object."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from medseg.geometry import Unit
from medseg.metrics.contingency import Contingency, Indices, Labels, Runs, checked_labels
from medseg.metrics.masks import Status, check_same_shape, checked_spacing, image_diagonal

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matching:
    """Which objects were found at one threshold of IoU.

    Args:
        reference: (matches,), place of the matched object among the pair's reference objects.
        prediction: (matches,), place of the object that stands for it.
        iou: (matches,), the overlap of the two.
        missed: Reference objects without a match (false negatives).
        invented: Predicted objects without a match (false positives).
    """

    reference: Indices
    prediction: Indices
    iou: Floats
    missed: int
    invented: int

    @property
    def found(self) -> int:
        """Matched objects (true positives)."""
        return len(self.iou)


class InstancePair:
    """The objects of the reference and of the prediction, on one grid.

    Args:
        reference_labels: Label image as drawn, (z, y, x) or (y, x): 0 is the background, every
            other number one object. Numbers may have gaps and any integer type.
        predicted_labels: Label image to be judged, of the same shape; its numbers are its own.
        spacing: Distance of neighbouring voxels along each array axis; 1 if not given.
        unit: Unit of the spacing: ``mm``, ``um``, ``nm`` or ``px``.

    Raises:
        ValueError: Shapes differ, the images are neither 2D nor 3D, their numbers are not whole
            or negative, or the spacing is not positive and finite.
    """

    def __init__(
        self,
        reference_labels: NDArray[Any],
        predicted_labels: NDArray[Any],
        spacing: Sequence[float] | None = None,
        unit: str | Unit = Unit.PX,
    ) -> None:
        self.reference_labels = checked_labels("reference", reference_labels)
        self.predicted_labels = checked_labels("prediction", predicted_labels)
        check_same_shape(self.reference_labels, self.predicted_labels)
        self.spacing = checked_spacing(spacing, self.reference_labels.ndim)
        self.unit = Unit(unit)
        self._matchings: dict[float, Matching] = {}

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return self.reference_labels.ndim

    @property
    def diagonal(self) -> float:
        """Length of the image's diagonal in the pair's unit: no distance is longer."""
        return image_diagonal(self.reference_labels.shape, self.spacing)

    @property
    def status(self) -> Status:
        """Whether both images hold objects, and if not, which is empty."""
        if self.reference_count and self.predicted_count:
            return "ok"
        if self.predicted_count:
            return "empty_reference"
        return "empty_prediction" if self.reference_count else "both_empty"

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of the images holds objects."""
        return self.status in ("empty_reference", "empty_prediction")

    @cached_property
    def runs(self) -> Runs:
        """Stretches of equal labels in both images."""
        return Runs.of(self.reference_labels, self.predicted_labels)

    @cached_property
    def contingency(self) -> Contingency:
        """Shared voxels of all labels, background included."""
        return Contingency.of(self.runs)

    @cached_property
    def overlaps(self) -> Contingency:
        """Shared voxels of objects only."""
        table = self.contingency
        is_object = (table.reference_ids[table.reference] > 0) & (
            table.predicted_ids[table.prediction] > 0
        )
        return table.choose(is_object)

    @cached_property
    def iou(self) -> Floats:
        """(cells,), IoU of the two objects of every cell of ``overlaps``."""
        cells, sizes = self.overlaps, self.contingency
        union = (
            sizes.reference_sizes[cells.reference]
            + sizes.predicted_sizes[cells.prediction]
            - cells.shared
        )
        iou: Floats = cells.shared / union
        return iou

    @property
    def reference_count(self) -> int:
        """Objects of the reference."""
        return int(np.count_nonzero(self.contingency.reference_ids))

    @property
    def predicted_count(self) -> int:
        """Objects of the prediction."""
        return int(np.count_nonzero(self.contingency.predicted_ids))

    def matching(self, threshold: float) -> Matching:
        """Match objects one to one whose IoU exceeds ``threshold``; kept for the next call.

        From 0.5 up an object can exceed it with one partner only. Below, as many objects as
        possible are matched, and among such matchings the one of largest total IoU is taken.

        Raises:
            ValueError: ``threshold`` is not in [0, 1).
        """
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is an IoU of at least 0 and below 1, got {threshold}")
        if threshold not in self._matchings:
            self._matchings[threshold] = self._match(threshold)
        return self._matchings[threshold]

    def prediction_in_reference_ids(self, threshold: float = 0.5) -> Labels:
        """Return the predicted labels with found objects numbered like their references.

        Objects that stand for none get numbers above all of the reference, so that a voxel is
        right if both images carry one number.

        Raises:
            ValueError: ``threshold`` is not in [0, 1).
        """
        match, runs = self.matching(threshold), self.runs
        numbers = np.arange(len(runs.predicted_ids), dtype=np.int64) + int(runs.reference_ids[-1])
        numbers += 1
        numbers[match.prediction] = runs.reference_ids[match.reference]
        numbers[runs.predicted_ids == 0] = 0
        renumbered: Labels = np.repeat(numbers[runs.prediction], runs.length)
        return renumbered.reshape(runs.shape)

    def _match(self, threshold: float) -> Matching:
        cells = np.flatnonzero(self.iou > threshold)
        if threshold < 0.5:
            cells = _assign(self.overlaps, self.iou, cells)
        return Matching(
            self.overlaps.reference[cells],
            self.overlaps.prediction[cells],
            self.iou[cells],
            self.reference_count - len(cells),
            self.predicted_count - len(cells),
        )


def _assign(table: Contingency, iou: Floats, cells: Indices) -> Indices:
    """Choose cells so that no label occurs twice: as many as possible, then of largest IoU."""
    rows, columns = table.reference[cells], table.prediction[cells]
    offset = len(table.reference_ids)
    size = offset + len(table.predicted_ids)
    graph = sparse.coo_array((np.ones(len(cells)), (rows, columns + offset)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(part, kind="stable")
    borders = np.flatnonzero(np.diff(part[order])) + 1
    chosen = [_assign_part(table, iou, cells[block]) for block in np.split(order, borders)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _assign_part(table: Contingency, iou: Floats, cells: Indices) -> Indices:
    if len(cells) < 2:
        return cells
    rows, row = np.unique(table.reference[cells], return_inverse=True)
    columns, column = np.unique(table.prediction[cells], return_inverse=True)
    place = np.full((len(rows), len(columns)), -1)
    place[row, column] = cells
    # One more match outweighs any gain of IoU: all gains together stay below 1/2.
    gain = np.zeros(place.shape)
    gain[row, column] = 1 + iou[cells] / (2 * min(place.shape) + 1)
    taken = place[linear_sum_assignment(gain, maximize=True)]
    chosen: Indices = taken[taken >= 0]
    return chosen


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``, NaN for 0/0."""
    return part / whole if whole else math.nan
