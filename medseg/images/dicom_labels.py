"""Labels in DICOM: contours (RTSTRUCT) and segments (SEG), as voxels of the image they are of.

Neither says more than where it is drawn: which number a structure has is the caller's to say. What
would be guessed is refused: two structures in one voxel, a contour between two slices, a segment
outside of the image.

Sources: DICOM PS3.3, C.8.8.6 (ROI Contour) and A.51 (Segmentation). Segments are read through
highdicom; the libraries that turn contours into voxels (rt-utils, dcmrtstruct2nii) are not kept any
more, so contours are filled here, with scikit-image's polygons.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, nearest
from medseg.geometry import Grid, Unit
from medseg.images.image import Image
from medseg.images.orient import LPS

RTSTRUCT, SEG = "RTSTRUCT", "SEG"

Mask = NDArray[np.bool_]

_OFF_A_SLICE = 0.1  # of the distance of slices: more is rounding no longer
_OF_A_VOXEL = 0.01


def kind_of_labels(path: Path) -> str | None:
    """Return ``RTSTRUCT`` or ``SEG`` of such a DICOM file; None of any other file or folder.

    Raises:
        MedsegError: It is a DICOM file, and pydicom is not installed.
    """
    if not (path.is_file() and _marked(path)):
        return None
    kind = str(_header(path, ["Modality"]).get("Modality", ""))
    return kind if kind in (RTSTRUCT, SEG) else None


@dataclass(frozen=True)
class DicomFile:
    """What one file says that it is: ``CT``, ``RTSTRUCT`` ..., and an identifier of its patient."""

    path: Path
    kind: str
    patient: str


def dicom_files(folder: Path) -> list[DicomFile]:
    """Return the DICOM files in a folder and all folders below, told by their content.

    Raises:
        MedsegError: pydicom is not installed.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.name == "DICOMDIR" or not path.is_file() or not _marked(path):
            continue
        said = _header(path, ["Modality", "PatientID"])
        found.append(DicomFile(path, str(said.get("Modality", "")), str(said.get("PatientID", ""))))
    return found


def _marked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def names_in(path: Path) -> dict[str, int]:
    """Return the names of what is drawn in an RTSTRUCT or SEG file, each with its number there.

    Raises:
        MedsegError: The file is neither, or the extra is not installed.
    """
    kind = kind_of_labels(path)
    if kind is None:
        raise MedsegError(f"{path}: neither an RTSTRUCT nor a DICOM SEG")
    return {name: number for number, name in _listed(path, _header(path), kind).items()}


def read_dicom_labels(path: Path, image: Image, numbers: Mapping[str, int] | None) -> Image:
    """Return what an RTSTRUCT or SEG file draws, on the grid of its image.

    A voxel is inside of a contour if its centre is. A contour within another of the same structure
    cuts a hole (even-odd rule). A slice without contour or frame is empty.

    Args:
        path: The file.
        image: The image that was drawn on.
        numbers: Number of each structure to read; names that are not asked for are left out. None
            numbers all as the file does.

    Raises:
        MedsegError: A structure that is asked for is not in the file, structures share voxels,
            the file is of another image, or holds what is no closed contour and no mask.
    """
    if image.grid.spatial_dims != 3 or image.grid.unit is Unit.PX:
        raise MedsegError(
            f"{path}: DICOM labels lie in a volume measured in mm; the image is "
            f"{image.grid.describe()}"
        )
    kind = kind_of_labels(path)
    dataset = _header(path)
    _check_frame_of_reference(path, dataset, image)
    listed = _listed(path, dataset, kind or "")
    chosen = _chosen(path, listed, numbers)
    drawn = _contoured if kind == RTSTRUCT else _segmented
    array = np.zeros(image.grid.shape, np.uint32)
    owner = np.zeros(image.grid.shape, np.uint32)
    for number, mask in drawn(path, dataset, image.grid, chosen):
        shared = mask & (owner > 0)
        if shared.any():
            other = listed[int(owner[shared][0])]
            raise MedsegError(
                f"{path}: {listed[number]!r} and {other!r} share {int(shared.sum()):,} voxels, but "
                f"a voxel has one label\n  name only one of them in the card, or draw them apart"
            )
        owner[mask] = number
        array[mask] = chosen[number]
    return Image(array, image.grid, "ZYX")


def _header(path: Path, tags: list[str] | None = None) -> Any:
    pydicom = dicom_library("pydicom")
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, OSError) as error:
        raise MedsegError(f"{path}: not readable as DICOM ({error})") from None


def dicom_library(name: str) -> Any:
    """Return pydicom or highdicom.

    Raises:
        MedsegError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise MedsegError(
            f"RTSTRUCT and DICOM SEG need {name}, which is not installed: "
            f"pip install 'medseg[dicom]'"
        ) from None


def _listed(path: Path, dataset: Any, kind: str) -> dict[int, str]:
    """Return the names of the structures by their number."""
    if kind == RTSTRUCT:
        found = [(roi.ROINumber, roi.ROIName) for roi in dataset.StructureSetROISequence]
    else:
        segments = dataset.get("SegmentSequence", [])
        # Segment 0 of a label map is its background.
        found = [(s.SegmentNumber, s.SegmentLabel) for s in segments if s.SegmentNumber]
    names = [str(name) for _, name in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if kind == RTSTRUCT and twice:
        raise MedsegError(f"{path}: two structures have the name {twice[0]!r}; rename one")
    return {int(number): str(name) for number, name in found}


def _chosen(
    path: Path, listed: Mapping[int, str], numbers: Mapping[str, int] | None
) -> dict[int, int]:
    """Return the label of each number in the file."""
    if numbers is None:
        return {number: number for number in listed}
    missing = [name for name in numbers if name not in listed.values()]
    if missing:
        there = ", ".join(repr(name) for name in listed.values()) or "nothing"
        raise MedsegError(
            f"{path}: no structure {missing[0]!r} in it{nearest(missing[0], listed.values())}\n"
            f"  it holds {there}\n"
            f"  write its name under 'labels' in the card as it stands in the files, or leave the "
            f"case out"
        )
    return {number: numbers[name] for number, name in listed.items() if name in numbers}


def _check_frame_of_reference(path: Path, dataset: Any, image: Image) -> None:
    of_labels = dataset.get("FrameOfReferenceUID")
    if of_labels is None:
        of_labels = next(
            (
                roi.get("ReferencedFrameOfReferenceUID")
                for roi in dataset.get("StructureSetROISequence", [])
            ),
            None,
        )
    of_image = image.metadata.get("frame_of_reference")
    if of_labels and of_image and str(of_labels) != of_image:
        raise MedsegError(
            f"{path}: drawn in another frame of reference than that of the image, so positions "
            f"cannot be compared\n  image   {of_image}\n  labels  {of_labels}\n"
            f"  take the series that it was drawn on"
        )


def _contoured(
    path: Path, dataset: Any, grid: Grid, chosen: Mapping[int, int]
) -> Iterator[tuple[int, Mask]]:
    """Give the voxels of each structure of an RTSTRUCT."""
    names = _listed(path, dataset, RTSTRUCT)
    to_index = np.linalg.inv(_lps_affine(grid)).astype(np.float64)
    for roi in dataset.get("ROIContourSequence", []):
        number = int(roi.ReferencedROINumber)
        if number in chosen:
            who = f"{path}: structure {names[number]!r}"
            contours = [_corners(who, one, to_index) for one in roi.get("ContourSequence", [])]
            yield number, _filled(who, contours, grid)


def _corners(who: str, contour: Any, to_index: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of one contour as array indices, (corners, 3)."""
    if contour.ContourGeometricType != "CLOSED_PLANAR":
        raise MedsegError(
            f"{who} has a contour of type {contour.ContourGeometricType}; only closed ones "
            f"(CLOSED_PLANAR) have an inside\n  leave the structure out of the card"
        )
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    corners: NDArray[np.float64] = points @ to_index[:3, :3].T + to_index[:3, 3]
    return corners


def _filled(who: str, contours: Sequence[NDArray[np.float64]], grid: Grid) -> Mask:
    from skimage.draw import polygon

    mask = np.zeros(grid.shape, bool)
    slices = set()
    for corners in contours:
        plane = round(float(corners[:, 0].mean()))
        off = float(np.abs(corners[:, 0] - plane).max())
        if off > _OFF_A_SLICE:
            raise MedsegError(
                f"{who} has a contour that lies between two slices of the image or leans: up to "
                f"{off * grid.spacing[0]:.2f} mm from slice {plane}, of slices that are "
                f"{grid.spacing[0]:.2f} mm apart\n  take the series that it was drawn on"
            )
        if not 0 <= plane < grid.shape[0]:
            raise MedsegError(
                f"{who} has a contour at slice {plane}, but the image has slices 0 to "
                f"{grid.shape[0] - 1}\n  take the whole series that it was drawn on"
            )
        rows, columns = polygon(  # type: ignore[no-untyped-call]
            corners[:, 1], corners[:, 2], grid.shape[1:]
        )
        mask[plane, rows, columns] ^= True
        slices.add(plane)
    _check_no_slice_skipped(who, sorted(slices), grid)
    return mask


def _check_no_slice_skipped(who: str, slices: Sequence[int], grid: Grid) -> None:
    steps = set(np.diff(slices).tolist())
    if len(slices) > 2 and len(steps) == 1 and steps != {1}:
        (step,) = steps
        raise MedsegError(
            f"{who} is drawn on one slice of {step} only: slices {slices[0]} to {slices[-1]}, "
            f"{step * grid.spacing[0]:.2f} mm apart\n"
            f"  interpolate the contours in the program that drew them"
        )


def _segmented(
    path: Path, dataset: Any, grid: Grid, chosen: Mapping[int, int]
) -> Iterator[tuple[int, Mask]]:
    """Give the voxels of each segment of a DICOM SEG."""
    hd = dicom_library("highdicom")
    with _readable(path):
        segmentation = hd.seg.segread(path)
        drawn = segmentation.get_volume(
            segment_numbers=sorted(chosen), combine_segments=False, rescale_fractional=False
        )
    _check_binary(path, dataset, drawn.array)
    onto = hd.VolumeGeometry(_lps_affine(grid), grid.shape, "PATIENT", drawn.frame_of_reference_uid)
    try:
        placed = drawn.match_geometry(onto, tol=_OF_A_VOXEL * min(grid.spacing))
    except RuntimeError:
        shape = " x ".join(str(n) for n in drawn.spatial_shape[::-1])
        spacing = " x ".join(f"{s:.4g}" for s in drawn.spacing[::-1])
        raise MedsegError(
            f"{path}: the segments lie on another grid than the image\n"
            f"  image     {grid.describe()}\n  segments  {shape} voxels of {spacing} mm\n"
            f"  take the series that was segmented"
        ) from None
    outside = np.count_nonzero(drawn.array) - np.count_nonzero(placed.array)
    if outside:
        raise MedsegError(
            f"{path}: {outside:,} voxels of the segments lie outside of the image\n"
            f"  take the whole series that was segmented"
        )
    for index, number in enumerate(sorted(chosen)):
        yield number, placed.array[..., index] > 0


def _check_binary(path: Path, dataset: Any, array: NDArray[Any]) -> None:
    if dataset.SegmentationType != "FRACTIONAL":
        return
    most = int(dataset.MaximumFractionalValue)
    between = (array > 0) & (array < most)
    if between.any():
        kind = dataset.SegmentationFractionalType.lower()
        raise MedsegError(
            f"{path}: holds fractions ({kind}), {int(between.sum()):,} voxels of them between 0 "
            f"and {most}; a label is there or not\n"
            f"  threshold it in the program that made it, and save it as BINARY"
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what highdicom says of a file that it cannot place into our words."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, AttributeError, EOFError) as error:
        raise MedsegError(f"{path}: not readable as a DICOM SEG of a volume ({error})") from None


def _lps_affine(grid: Grid) -> NDArray[np.float64]:
    """Return the map of array indices to DICOM's positions in mm."""
    affine = grid.in_unit(Unit.MM).affine.copy()
    affine[:3] *= LPS[:, np.newaxis]
    return affine
