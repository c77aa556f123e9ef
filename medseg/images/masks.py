"""A folder with one mask file an object, as one label image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.errors import MedsegError
from medseg.images.formats import is_image_file
from medseg.images.image import Image

# Two outlines of neighbours may share a rim; more is a fault of the files.
_MOST_SHARED = 0.05


def holds_masks(path: Path) -> bool:
    """Tell whether a path is a folder of image files, and no DICOM series."""
    return path.is_dir() and not is_image_file(path) and any(map(is_image_file, path.iterdir()))


def merge_masks(folder: Path, read: Callable[[Path], Image]) -> Image:
    """Return the objects of a folder as one label image: 1, 2, ... in the order of the names.

    Voxels in two masks stay with the first; so an object may lose up to a twentieth of itself.

    Args:
        folder: Of mask files: an object's voxels are those above 0.
        read: Reads a label file.

    Raises:
        MedsegError: A mask is empty, of another size than the others, or shares more with them.
    """
    files = sorted(path for path in folder.iterdir() if is_image_file(path))
    first = read(files[0])
    labels = np.zeros(first.array.shape, np.uint32)
    for number, file in enumerate(files, start=1):
        image = read(file)
        if image.array.shape != labels.shape:
            raise MedsegError(
                f"{file}: a mask of {image.grid.describe()} beside one of {first.grid.describe()}\n"
                f"  all masks of an image have its size"
            )
        mask = image.array > 0
        shared = int(np.count_nonzero(labels[mask]))
        size = int(mask.sum())
        if shared > _MOST_SHARED * size or not size:
            what = (
                f"shares {shared} of its {size} voxels with other objects" if size else "is empty"
            )
            raise MedsegError(f"{file}: the mask {what}\n  draw it again, or remove the file")
        labels[mask & (labels == 0)] = number
    return replace(first, array=labels)
