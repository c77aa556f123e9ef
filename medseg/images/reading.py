"""Reading an image or a label image, whatever its format."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images.dicom import read_series
from medseg.images.dicom_labels import kind_of_labels, read_dicom_labels
from medseg.images.formats import Stated, reader_of, zarr_root
from medseg.images.image import Image
from medseg.images.masks import holds_masks, merge_masks
from medseg.images.trust import check_present

_LISTED = 5
_TOLERANCE = 0.01


def read_image(
    path: str | Path,
    *,
    axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
    unit: Unit | None = None,
    nonfinite: Literal["refuse", "keep"] = "refuse",
) -> Image:
    """Read an image file, an OME-Zarr, or a folder of DICOM slices.

    Args:
        path: The file or folder.
        axes: Meaning of the axes, e.g. ``ZYX``, where the file leaves it open. A NIfTI with a
            fourth axis needs ``CZYX`` to have it taken as channels.
        spacing: Pixel size along (z, y, x) or (y, x), where the file states none.
        unit: Unit of ``spacing``; the grid is returned in it.
        nonfinite: What to do with NaN and infinite voxels.

    Returns:
        The image as YX, ZYX, CYX or CZYX, in the file's own type (1-bit files as uint8).

    Raises:
        MedsegError: The file cannot be read, leaves something open, or contradicts the caller.
        ValueError: ``spacing`` without ``unit``.
    """
    path = Path(path)
    image = _read(path, Stated(axes), spacing, unit)
    if nonfinite == "refuse":
        _check_finite(path, image)
    return image


def read_labels(
    path: str | Path,
    *,
    axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
    unit: Unit | None = None,
    image: Image | None = None,
    numbers: Mapping[str, int] | None = None,
) -> Image:
    """Read a label image: one whole number a voxel, 0 the background.

    A folder of mask files is read as well, each mask an object with a number of its own; and an
    RTSTRUCT or DICOM SEG, if ``image`` is given.

    Whole numbers stored as decimals are accepted, and colour files whose channels repeat each
    other.

    Args:
        path: The file or folder.
        axes: As in :func:`read_image`.
        spacing: As in :func:`read_image`.
        unit: As in :func:`read_image`.
        image: What the labels were drawn on, which an RTSTRUCT or DICOM SEG only refers to.
        numbers: Which structures of such a file to read, and what numbers they get; None reads
            all, numbered as in the file.

    Returns:
        The labels as YX or ZYX in the narrowest of uint8, uint16, uint32.

    Raises:
        MedsegError: As :func:`read_image`, or the values are no labels; they are listed.
    """
    path = Path(path)
    kind = kind_of_labels(path)
    if kind is not None and image is None:
        raise MedsegError(
            f"{path}: a DICOM {kind} says where things are, not on which voxels: it is read "
            f"together with the image that it was drawn on"
        )
    if kind is not None and image is not None:
        read = read_dicom_labels(path, image, numbers)
    elif holds_masks(path):
        read = merge_masks(path, lambda file: _read_mask(file, axes, spacing, unit))
    else:
        read = _read(path, Stated(axes, labels=True), spacing, unit)
    array = _one_channel(path, read)
    _check_whole(path, array)
    lowest, highest = (int(array.min()), int(array.max()))
    if lowest < 0 or highest >= 2**32:
        bad = np.unique(array[(array < 0) | (array >= 2**32)])
        raise MedsegError(
            f"{path}: labels are whole numbers from 0 to 4294967295, found "
            f"{', '.join(f'{v:g}' for v in bad[:_LISTED])}\n"
            f"  give these voxels another label in the program that wrote the file"
        )
    small = array.astype(narrowest(highest), copy=False)
    return replace(read, array=small, axes=read.axes.removeprefix("C"), channels=())


def _read_mask(
    path: Path, axes: str | None, spacing: tuple[float, ...] | None, unit: Unit | None
) -> Image:
    image = _read(path, Stated(axes, labels=True), spacing, unit)
    return replace(image, array=_one_channel(path, image), axes=image.axes.removeprefix("C"))


def narrowest(highest: int) -> type[np.unsignedinteger[Any]]:
    """Return the narrowest of uint8, uint16, uint32 that holds a label.

    Raises:
        ValueError: It exceeds 32 bits.
    """
    for dtype in (np.uint8, np.uint16, np.uint32):
        if highest <= np.iinfo(dtype).max:
            return dtype
    raise ValueError(f"label {highest} exceeds 32 bits; renumber the objects")


def _read(
    path: Path, stated: Stated, spacing: tuple[float, ...] | None, unit: Unit | None
) -> Image:
    if spacing is not None and unit is None:
        raise ValueError(f"spacing {spacing} has no unit; give unit=Unit.UM or another")
    check_present(path)
    series = path.is_dir() and zarr_root(path) is None
    image = read_series(path, stated) if series else reader_of(path)(path, stated)
    array = image.array
    if array.dtype.kind not in "buif":
        raise MedsegError(
            f"{path}: the voxels are of type {array.dtype}; whole or decimal numbers are "
            f"expected\n  save it as grey values (16 bit or 32-bit float)"
        )
    plain = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    grid = image.grid
    if spacing is not None and unit is not None:
        grid = _with_spacing(path, grid, spacing, unit)
    return replace(image, array=array.astype(plain, copy=False), grid=grid)


def _with_spacing(path: Path, grid: Grid, spacing: tuple[float, ...], unit: Unit) -> Grid:
    """Return the grid with the stated pixel size, or in its unit if the file states the same."""
    if len(spacing) != grid.spatial_dims:
        raise MedsegError(
            f"{path}: a pixel size of {len(spacing)} numbers is stated, the image has "
            f"{grid.spatial_dims} axes ({grid.describe()})\n  state one number an axis"
        )
    stated = Grid(grid.shape, spacing, unit)
    if grid.unit is Unit.PX or unit is Unit.PX:
        return stated if grid.unit is Unit.PX else grid
    found = grid.in_unit(unit)
    apart = np.abs(np.array(found.spacing) / np.array(spacing) - 1).max()
    if apart > _TOLERANCE:
        raise MedsegError(
            f"{path}: the file states another pixel size than the one given\n"
            f"  file   {found.describe()}\n  given  {stated.describe()}\n"
            f"  correct the one that is wrong; leave out what is given to use the file's"
        )
    return found


def _check_finite(path: Path, image: Image) -> None:
    array = image.array
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    first = np.argwhere(~np.isfinite(array))[0][::-1]
    place = ", ".join(f"{a.lower()} {i}" for a, i in zip(image.axes[::-1], first, strict=True))
    raise MedsegError(
        f"{path}: {nan:,} NaN and {infinite:,} infinite voxels, the first at {place}\n"
        f"  give them a value in the program that wrote the file (e.g. that of the background), "
        f"or leave the image out"
    )


def _one_channel(path: Path, image: Image) -> NDArray[Any]:
    if not image.axes.startswith("C"):
        return image.array
    channels = image.array
    if (channels == channels[:1]).all():
        first: NDArray[Any] = channels[0]
        return first
    colours = np.unique(channels.reshape(len(channels), -1), axis=1).T
    listed = ", ".join(str(tuple(c.tolist())) for c in colours[:_LISTED])
    raise MedsegError(
        f"{path}: labels have one number a voxel, this file has {len(channels)} channels with "
        f"{len(colours)} colours: {listed}{', ...' if len(colours) > _LISTED else ''}\n"
        f"  save it as label numbers (grey 8 or 16 bit), one number for each colour"
    )


def _check_whole(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        return
    wrong = array[~(np.isfinite(array) & (array == np.round(array)))]
    if wrong.size:
        values, counts = np.unique(wrong, return_counts=True)
        listed = ", ".join(
            f"{v:g} ({n:,} voxels)" for v, n in list(zip(values, counts, strict=True))[:_LISTED]
        )
        raise MedsegError(
            f"{path}: {wrong.size:,} voxels are no whole numbers, so they are no labels: "
            f"{listed}{', ...' if len(values) > _LISTED else ''}\n"
            f"  threshold a probability map first; resample labels by nearest neighbour"
        )
