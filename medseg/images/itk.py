"""MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr) and GIPL through SimpleITK."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader, writer
from medseg.images.image import Image
from medseg.images.itk_headers import Claim, check_gipl, check_meta, check_nrrd
from medseg.images.orient import LPS, oriented_grid
from medseg.images.trust import decoding


@reader(".mha", ".mhd")
def read_meta(path: Path, stated: Stated) -> Image:
    """Read a MetaImage; millimetres, as ITK has it."""
    return _read(path, stated, check_meta(path), "MetaImageIO")


@reader(".nrrd", ".nhdr")
def read_nrrd(path: Path, stated: Stated) -> Image:
    """Read an NRRD; millimetres unless it states micrometres or nanometres."""
    return _read(path, stated, check_nrrd(path), "NrrdImageIO")


@reader(".gipl", ".gipl.gz")
def read_gipl(path: Path, stated: Stated) -> Image:
    """Read a GIPL; millimetres. It states no orientation, so the grid has none."""
    image = _read(path, stated, check_gipl(path), "GiplImageIO")
    return replace(image, grid=replace(image.grid, origin=None, direction=None))


def _read(path: Path, stated: Stated, claim: Claim, kind: str) -> Image:
    import SimpleITK

    sitk: Any = SimpleITK  # ships no types
    with decoding(path, f"an ITK image ({kind})"):
        itk = sitk.ReadImage(str(path), imageIO=kind)
        voxels = sitk.GetArrayFromImage(itk)
    n = itk.GetDimension()
    letters = "TZYX"[-n:] + ("C" if itk.GetNumberOfComponentsPerPixel() > 1 else "")
    array, axes = arrange(path, voxels, letters, stated.axes)
    d = min(n, 3)
    grid = oriented_grid(
        path,
        array.shape[axes.startswith("C") :],
        np.array(itk.GetSpacing()[:d]),
        np.array(itk.GetOrigin()[:d]) * LPS[:d],
        np.array(itk.GetDirection()).reshape(n, n)[:d, :d] * LPS[:d, np.newaxis],
        claim.unit,
    )
    return Image(array, grid, axes)


@writer(".mha", ".nrrd")
def write_itk(path: Path, image: Image) -> None:
    """Write compressed, in millimetres; a grid without orientation is written as RAS+.

    Raises:
        MedsegError: The pixel size is unknown.
    """
    import SimpleITK

    sitk: Any = SimpleITK  # ships no types
    if image.grid.unit is Unit.PX:
        raise MedsegError(
            f"{path}: this format states millimetres, but the pixel size of this image is not "
            f"known\n  state it (pixel_size in the dataset card), or write TIFF or PNG"
        )
    grid = image.grid.in_unit(Unit.MM)
    n = grid.spatial_dims
    channels = image.axes.startswith("C")
    array: Any = np.moveaxis(image.array, 0, -1) if channels else image.array
    itk = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=channels)
    itk.SetSpacing(grid.spacing[::-1])
    itk.SetOrigin([float(v) for v in grid.affine[:n, n] * LPS[:n]])
    direction = grid.affine[:n, :n] / np.array(grid.spacing)
    itk.SetDirection([float(v) for v in (direction[:, ::-1] * LPS[:n, np.newaxis]).ravel()])
    sitk.WriteImage(itk, str(path), useCompression=True)
