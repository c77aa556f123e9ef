"""How deep a voxel lies in its object."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.instances.base import Floats, Labels

Mask = NDArray[np.bool_]


def depths(labels: Labels, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Return the depth of each voxel in its object, and that of the object's deepest voxel.

    The depth is the distance to the nearest voxel outside: of the background or of another object.
    What nobody judged and what lies beyond the image counts as inside: the object may go on there.

    Args:
        labels: (*spatial), a positive number for each object, 0 for background, below 0 where
            nobody judged.
        spacing: Distance of neighbouring voxels along each axis.

    Returns:
        Two of (*spatial), in the unit of the spacing; 0 outside of objects. Of an object without
        any outside, the diagonal of the image.
    """
    depth = np.zeros(labels.shape, np.float32)
    deepest = np.zeros(labels.shape, np.float32)
    unjudged = labels < 0
    diagonal = float(np.linalg.norm(np.multiply(labels.shape, spacing)))
    for box, number in each_object(labels):
        inside = labels[box] == number
        open_inside = inside | unjudged[box]
        if open_inside.all():
            own = np.full(inside.shape, diagonal, np.float32)
        else:
            own = ndimage.distance_transform_edt(open_inside, sampling=spacing)
        depth[box][inside] = own[inside]
        deepest[box][inside] = own[inside].max()
    return depth, deepest


def each_object(
    labels: Labels, margins: Sequence[int] | None = None
) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Give the number of each object and its box, wider by a margin on each side.

    Args:
        labels: (*spatial), a positive number for each object.
        margins: Voxels along each axis; 1 if None.
    """
    wider = (1,) * labels.ndim if margins is None else margins
    names, numbered = np.unique(np.maximum(labels, 0), return_inverse=True)
    numbered = numbered.reshape(labels.shape) + int(names[0] > 0)
    names = names[names > 0]
    for number, box in zip(names.tolist(), ndimage.find_objects(numbered), strict=True):
        yield (
            tuple(
                slice(max(side.start - margin, 0), side.stop + margin)
                for side, margin in zip(box, wider, strict=True)
            ),
            number,
        )


def touching(labels: Labels) -> Mask:
    """Return the voxels of objects that share a face with another object, (*spatial)."""
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        found_along, along = np.swapaxes(found, 0, axis), np.swapaxes(labels, 0, axis)  # views
        meet = (along[1:] != along[:-1]) & (along[1:] > 0) & (along[:-1] > 0)
        found_along[1:] |= meet
        found_along[:-1] |= meet
    return found
