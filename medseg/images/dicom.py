"""A DICOM series: one folder, one file a slice, through SimpleITK.

The slices are put in order by their position along the normal of the image plane. What would
bend the grid (a missing slice, two at one place, a tilted gantry) is refused with its size in mm.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated
from medseg.images.image import Image
from medseg.images.orient import LPS, oriented_grid
from medseg.images.trust import check_present, check_size, decoding

_SERIES, _POSITION, _ORIENTATION = "0020|000e", "0020|0032", "0020|0037"
_FRAME_OF_REFERENCE = "0020|0052"
_PIXEL_SPACING, _THICKNESS, _FRAMES, _KIND = "0028|0030", "0018|0050", "0028|0008", "0008|0060"

_HEAD = 512  # bytes that hold the preamble and the class of the object
_NO_SLICE = "  copy it again from its origin; a file that is no slice does not belong here"
# Classes of what lies beside images: radiotherapy objects, segments, reports, presentation states.
_NO_IMAGES = tuple(
    b"1.2.840.10008.5.1.4.1.1." + family for family in (b"481.", b"66.", b"88.", b"11.")
)


@dataclass(frozen=True)
class _Slice:
    """One file: its series, its place (LPS+, mm), and its pixels' size (x, y) and count."""

    path: Path
    series: str
    frame_of_reference: str
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    size: tuple[int, int]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector along which slices are stacked, LPS+."""
        return np.cross(self.axes[0], self.axes[1])


def read_series(folder: Path, stated: Stated) -> Image:
    """Read the one series that a folder holds, as (z, y, x) in mm with rescaled values.

    Raises:
        MedsegError: Files are broken or of several series, or slices are missing, doubled,
            unevenly spaced or tilted; the message has the files and the distances.
    """
    slices = _ordered(folder)
    first = slices[0]
    normal = first.normal
    depth = _depth(folder, slices, normal)
    shape = (len(slices), first.size[1], first.size[0])
    check_size(folder, shape, 8)
    voxels, axes = arrange(folder, np.stack([_pixels(s) for s in slices]), "ZYX", stated.axes)
    direction = np.stack([first.axes[0], first.axes[1], normal], axis=1) * LPS[:, np.newaxis]
    grid = oriented_grid(
        folder,
        voxels.shape,
        np.array([*first.spacing, depth]),
        slices[0].position * LPS,
        direction,
        Unit.MM,
    )
    metadata = {"series": first.series, "frame_of_reference": first.frame_of_reference}
    return Image(voxels, grid, axes, metadata=metadata)


def series_files(folder: Path) -> list[Path]:
    """Return the files of the one series in a folder, in the order of :func:`read_series`.

    Raises:
        MedsegError: Files are broken, of several series, or not on one grid.
    """
    return [one.path for one in _ordered(folder)]


def _ordered(folder: Path) -> list[_Slice]:
    slices = [_slice(path) for path in _files(folder)]
    _check_one_series(folder, slices)
    _check_same(slices)
    normal = slices[0].normal
    return sorted(slices, key=lambda s: float(s.position @ normal))


def _files(folder: Path) -> list[Path]:
    """Return the DICOM images of a folder, known by their suffix or by their content."""
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        with path.open("rb") as file:
            head = file.read(_HEAD)
        marked = head[128:132] == b"DICM"
        if marked and any(family in head for family in _NO_IMAGES):
            continue
        if marked or path.suffix.lower() in (".dcm", ".ima"):
            check_present(path)
            found.append(path)
    if not found:
        raise MedsegError(
            f"{folder}: the folder holds no DICOM images\n  name the folder that directly holds "
            f"the slices of one series, or a single image file"
        )
    return found


def _slice(path: Path) -> _Slice:
    import SimpleITK

    sitk: Any = SimpleITK  # ships no types
    file = sitk.ImageFileReader()
    file.SetImageIO("GDCMImageIO")
    file.SetFileName(str(path))
    with decoding(path, "a DICOM image", _NO_SLICE):
        file.ReadImageInformation()
    tags = {key: file.GetMetaData(key).strip() for key in file.GetMetaDataKeys()}
    if int(tags.get(_FRAMES) or 1) > 1 or tags.get(_KIND) in ("SEG", "RTSTRUCT", "RTDOSE"):
        raise MedsegError(
            f"{path}: a DICOM file of kind {tags.get(_KIND, 'unknown')} with "
            f"{tags.get(_FRAMES) or 1} frames is not a slice of a series\n"
            f"  move it out of the folder, or convert it to NIfTI first (e.g. with dcm2niix)"
        )
    if file.GetNumberOfComponents() > 1:
        raise MedsegError(f"{path}: colour DICOM is not read; convert it to PNG or TIFF first")
    rows, columns = _numbers(path, tags, _PIXEL_SPACING, "PixelSpacing", 2)
    axes = _numbers(path, tags, _ORIENTATION, "ImageOrientationPatient", 6).reshape(2, 3)
    return _Slice(
        path,
        tags.get(_SERIES, "none"),
        tags.get(_FRAME_OF_REFERENCE, ""),
        _numbers(path, tags, _POSITION, "ImagePositionPatient", 3),
        axes,
        (float(columns), float(rows)),
        float(tags.get(_THICKNESS) or "nan"),
        (int(file.GetSize()[0]), int(file.GetSize()[1])),
    )


def _numbers(
    path: Path, tags: dict[str, str], key: str, name: str, count: int
) -> NDArray[np.float64]:
    words = tags.get(key, "").split("\\")
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise MedsegError(
            f"{path}: the DICOM tag {name} should hold {count} numbers, found "
            f"{tags.get(key, 'nothing')!r}\n  export the series again from the archive"
        )
    return values


def _pixels(one: _Slice) -> NDArray[Any]:
    import SimpleITK

    sitk: Any = SimpleITK  # ships no types
    with decoding(one.path, "a DICOM image"):
        itk = sitk.ReadImage(str(one.path), imageIO="GDCMImageIO")
        array: NDArray[Any] = sitk.GetArrayFromImage(itk)
    return array.reshape(one.size[1], one.size[0])


def _check_one_series(folder: Path, slices: list[_Slice]) -> None:
    counts = Counter(s.series for s in slices)
    if len(counts) > 1:
        listed = "\n".join(f"    {uid}  {count} files" for uid, count in sorted(counts.items()))
        raise MedsegError(
            f"{folder}: the folder mixes {len(counts)} DICOM series; one image is expected\n"
            f"{listed}\n  put each series into its own folder"
        )


def _check_same(slices: list[_Slice]) -> None:
    first = slices[0]
    for one in slices[1:]:
        same = one.size == first.size and np.allclose(one.spacing, first.spacing, rtol=1e-3)
        if not (same and np.allclose(one.axes, first.axes, atol=1e-3)):
            raise MedsegError(
                f"{one.path}: the slice does not lie on the grid of {first.path.name}\n"
                f"  {first.path.name}  {_plane(first)}\n  {one.path.name}  {_plane(one)}\n"
                f"  move slices that belong to another image (e.g. a scout) out of the folder"
            )


def _plane(one: _Slice) -> str:
    cosines = " ".join(f"{v:.4g}" for v in one.axes.ravel())
    size = f"{one.size[0]} x {one.size[1]} pixels"
    return f"{size} of {one.spacing[0]:.4g} x {one.spacing[1]:.4g} mm, orientation {cosines}"


def _depth(folder: Path, slices: list[_Slice], normal: NDArray[np.float64]) -> float:
    """Return the distance of neighbouring slices, after checking that there is one."""
    if len(slices) == 1:
        if not slices[0].thickness > 0:
            raise MedsegError(
                f"{slices[0].path}: a single slice without SliceThickness has no depth\n"
                f"  name the folder that holds the whole series"
            )
        return slices[0].thickness
    places = np.array([s.position @ normal for s in slices])
    gaps = np.diff(places)
    if gaps.min() < 1e-3:
        i = int(np.argmin(gaps))
        raise MedsegError(
            f"{folder}: two slices lie at the same place, {places[i]:.2f} mm\n"
            f"  {slices[i].path.name}\n  {slices[i + 1].path.name}\n"
            f"  keep one of them, or put repeated scans into folders of their own"
        )
    usual = float(np.median(gaps))
    off = np.flatnonzero(np.abs(gaps - usual) > max(0.01 * usual, 0.01))
    if off.size:
        i = int(off[np.argmax(gaps[off])])
        missing = round(gaps[i] / usual) - 1
        what = f"{missing} slice(s) missing" if missing > 0 else "slices unevenly spaced"
        raise MedsegError(
            f"{folder}: {what}: a gap of {gaps[i]:.2f} mm, where {usual:.2f} mm is usual\n"
            f"  between {slices[i].path.name} at {places[i]:.2f} mm\n"
            f"  and     {slices[i + 1].path.name} at {places[i + 1]:.2f} mm\n"
            f"  export the whole series again, or resample it onto even slices first"
        )
    _check_upright(folder, slices, normal)
    return float(gaps.mean())


def _check_upright(folder: Path, slices: list[_Slice], normal: NDArray[np.float64]) -> None:
    stack = slices[-1].position - slices[0].position
    along = float(stack @ normal)
    aside = float(np.linalg.norm(stack - along * normal))
    if aside > 1e-3 * along:
        angle = float(np.degrees(np.arctan2(aside, along)))
        raise MedsegError(
            f"{folder}: the slices are stacked at a slant of {angle:.1f} degrees (a tilted "
            f"gantry): the last is {aside:.2f} mm aside of the first\n"
            f"  straighten it first, e.g. with dcm2niix, which corrects the tilt"
        )
