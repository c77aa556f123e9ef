"""What microscopes write, CZI (Zeiss) and ND2 (Nikon), through the readers of bioio."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader
from medseg.images.image import Image
from medseg.images.orient import check_spacing
from medseg.images.raster import RGB
from medseg.images.trust import check_size, decoding


@reader(".czi")
def read_czi(path: Path, stated: Stated) -> Image:
    """Read a CZI file with pixel size and channel names.

    Raises:
        MedsegError: As :func:`_read`.
    """
    return _read(path, stated, "czi")


@reader(".nd2")
def read_nd2(path: Path, stated: Stated) -> Image:
    """Read an ND2 file with pixel size and channel names.

    Raises:
        MedsegError: As :func:`_read`.
    """
    return _read(path, stated, "nd2")


def _read(path: Path, stated: Stated, kind: str) -> Image:
    """Read the one image of a file.

    Raises:
        MedsegError: The reader is not installed, or the file is damaged, holds several images or
            time points.
    """
    plugin = _plugin(path, kind)
    with decoding(path, kind.upper()):
        file = plugin.Reader(path)
        if len(file.scenes) > 1:
            raise MedsegError(
                f"{path}: the file holds {len(file.scenes)} images ({', '.join(file.scenes[:5])}); "
                f"one is expected\n  save each as a file of its own"
            )
        letters = str(file.dims.order)
        check_size(path, tuple(file.shape), np.dtype(file.dtype).itemsize)
        voxels = np.asarray(file.data)
        channels = tuple(map(str, file.channel_names or ()))
        sizes = file.physical_pixel_sizes
    # The readers give every file the axes T, C and Z: of length 1, they hold nothing.
    for letter in "Z" if "S" not in letters else "ZC":
        axis = letters.find(letter)
        stack = letter == "Z" and "Z" in (stated.axes or "")
        if axis >= 0 and voxels.shape[axis] == 1 and not stack:
            voxels, letters = voxels.take(0, axis), letters.replace(letter, "")
    if "S" in letters:
        letters, channels = letters.replace("S", "C"), RGB
    array, axes = arrange(path, voxels, letters, stated.axes)
    names = channels if len(channels) == (len(array) if axes.startswith("C") else 1) else ()
    return Image(array, _grid(path, array.shape[axes.startswith("C") :], sizes), axes, names)


def _plugin(path: Path, kind: str) -> Any:
    try:
        return import_module(f"bioio_{kind}")
    except ImportError as error:
        raise MedsegError(
            f"{path}: reading {kind.upper()} needs bioio-{kind}, which cannot be imported here "
            f"({error})\n  pip install 'medseg[{kind}]', or save the image as OME-TIFF"
        ) from error


def _grid(path: Path, shape: tuple[int, ...], sizes: Any) -> Grid:
    """Return the grid in um, as both readers measure; in px unless every axis has a size."""
    spacing = [getattr(sizes, letter, None) for letter in "ZYX"[-len(shape) :]]
    if not all(spacing):
        return Grid(shape, (1.0,) * len(shape))
    lengths = tuple(float(size) for size in spacing if size is not None)
    check_spacing(path, lengths[::-1])
    return Grid(shape, lengths, Unit.UM)
