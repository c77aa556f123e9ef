"""NIfTI-1 and NIfTI-2, plain or gzip-compressed.

The header and the writing are nibabel's. The voxels are read here in one pass that checks the
gzip checksum and the exact length, which nibabel does not.
"""

import gzip
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader, writer
from medseg.images.image import Image
from medseg.images.orient import check_spacing, oriented_grid
from medseg.images.trust import (
    check_length,
    check_size,
    decoding,
    opened,
    read_exactly,
)

_UNITS = {"mm": (Unit.MM, 1.0), "micron": (Unit.UM, 1.0), "meter": (Unit.MM, 1000.0)}


@reader(".nii", ".nii.gz")
def read_nifti(path: Path, stated: Stated) -> Image:
    """Read a NIfTI file as (z, y, x), with channels first if it has any.

    A header without a unit is taken as millimetres, as every NIfTI tool does
    (``metadata["unit_assumed"]``). The sform counts before the qform; if neither is stated, the
    grid has no orientation.

    Raises:
        MedsegError: The file is damaged, or its header states an impossible grid.
    """
    with opened(path) as file:
        header, offset = _header(path, file)
        voxels = _voxels(path, file, header, offset)
    letters = "VUCTZYX"[-voxels.ndim :]  # V and U: axes 7 and 6, which have no meaning
    array, axes = arrange(path, voxels, letters, stated.axes)
    grid = _grid(path, header, array.shape[axes.startswith("C") :])
    assumed = header.get_xyzt_units()[0] == "unknown"
    code = int(header["sform_code"]) or int(header["qform_code"])
    return Image(array, grid, axes, metadata={"unit_assumed": assumed, "space_code": code})


def _header(path: Path, file: BufferedIOBase) -> tuple[Any, int]:
    """Return the header and the bytes that were read."""
    import nibabel

    nib: Any = nibabel  # ships half its types
    block = file.read(348)
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    if 540 in sizes:
        block += file.read(192)
    magic = block[4:8] if 540 in sizes else block[344:348]
    if len(block) not in (348, 540) or magic[:3] not in (b"n+1", b"n+2"):
        raise MedsegError(
            f"{path}: not a NIfTI file; its content starts with {block[:16]!r}\n"
            f"  rename it to what it is, or copy the true file again from its origin"
        )
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    with decoding(path, "a NIfTI header"):
        return kind(binaryblock=block, check=False), len(block)


def _voxels(path: Path, file: BufferedIOBase, header: Any, read: int) -> NDArray[Any]:
    """Return the scaled voxels with reversed axes, after the header has been believed."""
    with decoding(path, "a NIfTI header"):
        dtype = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
    count = int(header["dim"][0])
    if not 2 <= count <= 7:
        raise MedsegError(f"{path}: the header states {count} axes; an image has 2 to 7")
    shape = tuple(int(n) for n in header["dim"][1 : count + 1])
    size = check_size(path, shape[::-1], dtype.itemsize)
    offset = float(header["vox_offset"])
    if not (read <= offset <= read + 2**26):
        raise MedsegError(
            f"{path}: the header puts the voxels at byte {offset:g}, which is impossible\n"
            f"  the header is damaged: copy the file again from its origin"
        )
    if not isinstance(file, gzip.GzipFile):
        check_length(path, path.stat().st_size, int(offset) + size)
    file.read(int(offset) - read)
    raw = np.frombuffer(read_exactly(path, file, size), dtype).reshape(shape[::-1])
    raw = raw.astype(dtype.newbyteorder("="), copy=False)
    if (slope, intercept) in ((None, None), (1.0, 0.0)) or dtype.kind not in "iuf":
        return raw
    precise = np.float32 if dtype.itemsize <= 2 else np.float64
    return (raw * np.float64(slope) + np.float64(intercept)).astype(precise)


def _grid(path: Path, header: Any, shape: tuple[int, ...]) -> Grid:
    spatial = min(int(header["dim"][0]), 3)
    pixdim = np.asarray(header["pixdim"][1 : spatial + 1], float)
    check_spacing(path, tuple(pixdim))
    unit, factor = _UNITS.get(header.get_xyzt_units()[0], (Unit.MM, 1.0))
    pixdim = np.append(pixdim, [1.0] * (3 - spatial))
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        return oriented_grid(path, shape, pixdim[:spatial] * factor, None, None, unit)
    with decoding(path, "a NIfTI orientation"):
        stated = header.get_sform() if int(header["sform_code"]) else header.get_qform()
    affine = np.asarray(stated, float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    check_spacing(path, tuple(spacing))
    if (np.abs(spacing - pixdim) > 0.01 * pixdim)[:spatial].any():
        raise MedsegError(
            f"{path}: the header states two pixel sizes\n"
            f"  pixdim  {' x '.join(f'{s:.4g}' for s in pixdim)} (x, y, z)\n"
            f"  sform   {' x '.join(f'{s:.4g}' for s in spacing)}\n"
            f"  find out which is true and write it into both"
        )
    direction = affine[:3, :3] / spacing
    origin = affine[:3, 3] * factor
    return oriented_grid(path, shape, spacing * factor, origin, direction, unit)


@writer(".nii", ".nii.gz")
def write_nifti(path: Path, image: Image) -> None:
    """Write as NIfTI-1 with sform and qform, or with neither if the grid has no orientation.

    Channels become the fifth axis (a vector image, as ITK writes it).

    Raises:
        MedsegError: The pixel size is unknown.
    """
    import nibabel

    nib: Any = nibabel  # ships half its types
    grid = image.grid
    if grid.unit is Unit.PX:
        raise MedsegError(
            f"{path}: a NIfTI file states millimetres, but the pixel size of this image is not "
            f"known\n  state it (pixel_size in the dataset card), or write TIFF or PNG"
        )
    grid = grid.in_unit(Unit.UM) if grid.unit is Unit.NM else grid
    array = image.array.T
    if image.axes.startswith("C"):
        volume = array if image.axes == "CZYX" else array[:, :, np.newaxis]
        array = volume[:, :, :, np.newaxis]
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("micron" if grid.unit is Unit.UM else "mm")
    if array.ndim == 5:
        header.set_intent("vector")
    affine = _affine(grid)
    code = int(image.metadata.get("space_code", 0)) or 1
    code = code if grid.direction is not None else 0
    output = nib.Nifti1Image(array, affine, header)
    output.set_sform(affine, code)
    output.set_qform(affine, code)
    nib.save(output, path)


def _affine(grid: Grid) -> NDArray[np.float64]:
    """Return the 4 x 4 affine of (x, y, z) indices."""
    n = grid.spatial_dims
    affine = np.eye(4)
    affine[:n, :n] = grid.affine[:n, :n][:, ::-1]
    affine[:n, 3] = grid.affine[:n, n]
    return affine
