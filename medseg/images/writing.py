"""Writing an image or a label image whole, or not at all."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid
from medseg.images.formats import image_suffix, writer_of
from medseg.images.image import Image
from medseg.images.reading import narrowest


def write_image(path: str | Path, image: Image) -> None:
    """Write an image in its own type, with the pixel size and orientation that the format holds.

    The file appears under its name only when it is complete.

    Raises:
        MedsegError: No writer knows the suffix, the format cannot hold the image, or the disk
            is full; nothing is left behind.
    """
    path = Path(path)
    write = writer_of(path)
    if not path.parent.is_dir():
        raise MedsegError(f"{path}: there is no folder {path.parent}; make it first")
    if image.array.dtype.kind == "b":
        image = Image(
            image.array.astype(np.uint8), image.grid, image.axes, image.channels, image.metadata
        )
    # The new name keeps the suffix, which tells the libraries what to write; hidden, it is never
    # taken for an image while it is incomplete.
    unfinished = path.with_name(f".{uuid4().hex}{image_suffix(path)}")
    try:
        write(unfinished, image)
        unfinished.replace(path)
    except MedsegError as error:
        raise MedsegError(str(error).replace(str(unfinished), str(path))) from error
    except OSError as error:
        raise MedsegError(
            f"{path}: cannot be written: {error.strerror or error}\n"
            f"  check that the disk has room and that the folder may be written to"
        ) from error
    except Exception as error:  # the libraries name no common error for a type they cannot hold
        raise MedsegError(
            f"{path}: this format cannot hold {image.array.dtype} {image.axes} "
            f"{image.array.shape}: {error}\n  choose another format, e.g. .ome.tif or .nii.gz"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_labels(path: str | Path, labels: NDArray[Any], like: Image | Grid) -> None:
    """Write labels on the grid of an image, as uint8, uint16 or uint32, the first that holds them.

    Args:
        path: Where to; the suffix chooses the format.
        labels: Whole numbers from 0, (z, y, x) or (y, x).
        like: The image that they belong to, or its grid.

    Raises:
        MedsegError: As :func:`write_image`; e.g. more than 65535 labels do not fit into PNG.
        ValueError: The labels are not whole numbers from 0, or not on this grid.
    """
    grid = like.grid if isinstance(like, Image) else like
    if labels.dtype.kind not in "bui":
        raise ValueError(f"{path}: labels are whole numbers, got {labels.dtype}; round them first")
    if labels.shape != grid.shape:
        raise ValueError(f"{path}: labels of {labels.shape} on a grid of {grid.shape}")
    if labels.size and int(labels.min()) < 0:
        raise ValueError(f"{path}: labels start at 0, got {int(labels.min())}")
    highest = int(labels.max()) if labels.size else 0
    kept = like.metadata if isinstance(like, Image) else {}
    axes = "ZYX"[-labels.ndim :]
    write_image(path, Image(labels.astype(narrowest(highest)), grid, axes, metadata=kept))
