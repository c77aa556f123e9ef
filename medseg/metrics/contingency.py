"""How many voxels each reference object shares with each predicted object.

The table is sparse, and ids may be of any size: neighbouring voxels mostly carry the same pair of
labels, so runs along the last axis are counted instead of voxels.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Labels = NDArray[np.integer[Any]]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of voxels along the last axis that share both labels, in raster order.

    Args:
        shape: Voxels of the image along each axis.
        start: (runs,), number of the first voxel in the flattened image.
        length: (runs,), voxels.
        reference: (runs,), place of the reference label in ``reference_ids``.
        prediction: (runs,), place of the predicted label in ``predicted_ids``.
        reference_ids: Reference labels in ascending order, background included where it occurs.
        predicted_ids: Predicted labels, likewise.
    """

    shape: tuple[int, ...]
    start: Indices
    length: Indices
    reference: Indices
    prediction: Indices
    reference_ids: Labels
    predicted_ids: Labels

    @classmethod
    def of(cls, reference: Labels, prediction: Labels) -> "Runs":
        """Find the runs of two label images of one shape; the last axis is never wrapped."""
        new = np.ones(reference.shape, bool)
        new[..., 1:] = reference[..., 1:] != reference[..., :-1]
        new[..., 1:] |= prediction[..., 1:] != prediction[..., :-1]
        start = np.flatnonzero(new)
        reference_ids, in_reference = _numbered(reference.ravel()[start])
        predicted_ids, in_prediction = _numbered(prediction.ravel()[start])
        length = np.diff(start, append=reference.size)
        return cls(
            reference.shape,
            start,
            length,
            in_reference,
            in_prediction,
            reference_ids,
            predicted_ids,
        )

    def boxes(self, which: Indices, count: int) -> tuple[Indices, Indices]:
        """Return the first voxel and the one past the last of each object, (count, axes) each.

        Args:
            which: (runs,), the object of each run: ``reference`` or ``prediction``.
            count: Number of objects.
        """
        lower = np.empty((count, len(self.shape)), np.int64)
        upper = np.zeros_like(lower)
        lower[...] = self.shape
        for axis, index in enumerate(np.unravel_index(self.start, self.shape)):
            along = self.length if axis == len(self.shape) - 1 else 1
            np.minimum.at(lower[:, axis], which, index)
            np.maximum.at(upper[:, axis], which, index + along)
        return lower, upper


@dataclass(frozen=True, eq=False)
class Contingency:
    """The sparse table of shared voxels, without empty cells.

    Args:
        reference: (cells,), place of the cell's reference label among the ids.
        prediction: (cells,), place of its predicted label.
        shared: (cells,), voxels that carry both labels.
        reference_ids: Reference labels in ascending order.
        predicted_ids: Predicted labels in ascending order.
    """

    reference: Indices
    prediction: Indices
    shared: Indices
    reference_ids: Labels
    predicted_ids: Labels

    @classmethod
    def of(cls, runs: Runs) -> "Contingency":
        """Count the voxels of every pair of labels that occurs."""
        table = sparse.coo_array(
            (runs.length, (runs.reference, runs.prediction)),
            shape=(len(runs.reference_ids), len(runs.predicted_ids)),
        ).tocsr()
        cells = table.tocoo()
        return cls(
            cells.row.astype(np.int64),
            cells.col.astype(np.int64),
            cells.data.astype(np.int64),
            runs.reference_ids,
            runs.predicted_ids,
        )

    @cached_property
    def reference_sizes(self) -> Indices:
        """Voxels of each reference label that the table holds."""
        return _sums(self.reference, self.shared, len(self.reference_ids))

    @cached_property
    def predicted_sizes(self) -> Indices:
        """Voxels of each predicted label that the table holds."""
        return _sums(self.prediction, self.shared, len(self.predicted_ids))

    def choose(self, cells: NDArray[np.bool_]) -> "Contingency":
        """Return a table of some of the cells; labels keep their places."""
        return Contingency(
            self.reference[cells],
            self.prediction[cells],
            self.shared[cells],
            self.reference_ids,
            self.predicted_ids,
        )


def checked_labels(which: str, array: NDArray[Any]) -> Labels:
    """Return a label image: whole numbers of 0 (background) and more.

    Raises:
        ValueError: The numbers are not whole, or some are negative.
    """
    array = np.asarray(array)
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{which} is of {array.dtype}, a label image holds whole numbers; convert it first, "
            f"e.g. labels.astype(np.uint32)"
        )
    if np.issubdtype(array.dtype, np.signedinteger) and array.size and array.min() < 0:
        raise ValueError(
            f"{which} holds the label {array.min()}; 0 is the background, objects count from 1"
        )
    return array


def _numbered(labels: Labels) -> tuple[Labels, Indices]:
    ids, places = np.unique(labels, return_inverse=True)
    return ids, places.reshape(-1)


def _sums(places: Indices, counts: Indices, size: int) -> Indices:
    sums = np.zeros(size, np.int64)
    np.add.at(sums, places, counts)
    return sums
