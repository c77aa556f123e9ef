"""Contours and segments become voxels where they were drawn, or are refused with the reason."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from skimage.draw import polygon2mask
from test_dicom_series import save, upright

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, kind_of_labels, names_in, read_image, read_labels

FRAME = "1.2.840.99.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"


def image(shape=(5, 12, 14), spacing=(3.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Image:
    """An upright volume whose index (z, y, x) lies at DICOM's (x, y, z) = origin + index."""
    direction = ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0))
    grid = Grid(shape, spacing, Unit.MM, origin, direction)
    return Image(np.zeros(shape, np.int16), grid, "ZYX", metadata={"frame_of_reference": FRAME})


def file(path: Path, kind: str, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = kind
    return dataset


def contour(z: float, corners, kind: str = "CLOSED_PLANAR") -> Dataset:
    one = Dataset()
    one.ContourGeometricType = kind
    one.NumberOfContourPoints = len(corners)
    one.ContourData = [float(v) for x, y in corners for v in (x, y, z)]
    return one


def save_contours(path: Path, structures: dict[str, list[Dataset]], frame: str = FRAME) -> Path:
    dataset = file(path, "RTSTRUCT", STRUCTURES)
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    for number, (name, contours) in enumerate(structures.items(), start=3):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, contours
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    dataset.save_as(path, enforce_file_format=True)
    return path


SQUARE = [(1.5, 2.5), (6.5, 2.5), (6.5, 8.5), (1.5, 8.5)]
HOLE = [(2.5, 3.5), (4.5, 3.5), (4.5, 5.5), (2.5, 5.5)]


def test_a_contour_holds_the_voxels_whose_centres_lie_inside(tmp_path):
    path = save_contours(tmp_path / "rs.dcm", {"liver": [contour(3.0, SQUARE)]})

    labels = read_labels(path, image=image(), numbers={"liver": 7})

    expected = np.zeros((5, 12, 14), np.uint8)
    expected[1, 3:9, 2:7] = 7
    np.testing.assert_array_equal(labels.array, expected)
    assert labels.grid == image().grid


def test_a_contour_within_a_contour_cuts_a_hole(tmp_path):
    path = save_contours(tmp_path / "rs.dcm", {"liver": [contour(0.0, SQUARE), contour(0.0, HOLE)]})

    labels = read_labels(path, image=image(), numbers={"liver": 1})

    assert int(labels.array.sum()) == 6 * 5 - 2 * 2
    assert not labels.array[0, 4:6, 3:5].any()


def test_structures_that_nobody_asks_for_are_left_out(tmp_path):
    path = save_contours(
        tmp_path / "rs.dcm", {"body": [contour(0.0, SQUARE)], "liver": [contour(6.0, HOLE)]}
    )

    labels = read_labels(path, image=image(), numbers={"liver": 1})

    assert names_in(path) == {"body": 3, "liver": 4}
    assert set(np.nonzero(labels.array)[0]) == {2}


def test_without_numbers_each_structure_keeps_its_own(tmp_path):
    path = save_contours(
        tmp_path / "rs.dcm", {"a": [contour(0.0, SQUARE)], "b": [contour(6.0, HOLE)]}
    )
    assert set(np.unique(read_labels(path, image=image()).array)) == {0, 3, 4}


@pytest.mark.parametrize(
    ("structures", "words"),
    [
        ({"Liver": [contour(0.0, SQUARE)]}, "no structure 'liver' in it; did you mean"),
        ({"liver": [contour(0.0, SQUARE, "POINT")]}, "a contour of type POINT"),
        ({"liver": [contour(1.5, SQUARE)]}, "between two slices of the image or leans: up to 1.50"),
        ({"liver": [contour(15.0, SQUARE)]}, "at slice 5, but the image has slices 0 to 4"),
        (
            {"liver": [contour(z, SQUARE) for z in (0.0, 6.0, 12.0)]},
            "drawn on one slice of 2 only: slices 0 to 4, 6.00 mm apart",
        ),
    ],
)
def test_what_would_be_guessed_is_refused(tmp_path, structures, words):
    path = save_contours(tmp_path / "rs.dcm", structures)
    with pytest.raises(MedsegError, match=words):
        read_labels(path, image=image(), numbers={"liver": 1})


def test_two_structures_in_one_voxel_are_refused_with_their_number(tmp_path):
    path = save_contours(
        tmp_path / "rs.dcm", {"a": [contour(0.0, SQUARE)], "b": [contour(0.0, HOLE)]}
    )
    with pytest.raises(MedsegError, match="'b' and 'a' share 4 voxels"):
        read_labels(path, image=image(), numbers={"a": 1, "b": 2})


def test_another_frame_of_reference_is_refused(tmp_path):
    path = save_contours(tmp_path / "rs.dcm", {"a": [contour(0.0, SQUARE)]}, frame="1.2.3")
    with pytest.raises(MedsegError, match="another frame of reference"):
        read_labels(path, image=image(), numbers={"a": 1})


def test_contours_beside_the_slices_are_no_slice(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6))
    save_contours(tmp_path / "ct" / "rs.dcm", {"a": [contour(0.0, SQUARE)]})

    assert read_image(tmp_path / "ct").grid.shape == (3, 4, 5)


def test_labels_without_their_image_are_refused(tmp_path):
    path = save_contours(tmp_path / "rs.dcm", {"a": [contour(0.0, SQUARE)]})
    with pytest.raises(MedsegError, match="read together with the image"):
        read_labels(path)


def patient(data_root: Path, case: str) -> Path:
    folder = data_root / "ct_gtv_rtstruct" / case
    if not folder.is_dir():
        pytest.skip(f"{case} is not in this copy of the data set")
    return folder


@pytest.mark.realdata
@pytest.mark.parametrize(("case", "ml"), [("pat_1", 358.68), ("pat_2", 6.46), ("pat_3", 11.59)])
def test_contours_of_tumours_have_the_published_volumes(data_root, case, ml):
    """The set's README gives them; the consensus of IBSI for pat_1 is 359 +- 5 ml."""
    folder = patient(data_root, case)
    (path,) = (folder / "rtstruct").iterdir()
    ct = read_image(folder / "ct")

    labels = read_labels(path, image=ct, numbers={"GTV-1": 1})

    found = labels.array.sum() * np.prod(ct.grid.spacing) / 1000
    assert found == pytest.approx(ml, abs=0.005)


@pytest.mark.realdata
def test_contours_are_filled_as_polygon2mask_fills_them(data_root):
    folder = patient(data_root, "pat_2")
    (path,) = (folder / "rtstruct").iterdir()
    ct = read_image(folder / "ct")
    slices = {
        float(s.ImagePositionPatient[2]): s
        for s in (pydicom.dcmread(f) for f in (folder / "ct").iterdir())
    }
    heights = sorted(slices)
    expected = np.zeros(ct.grid.shape, bool)
    for one in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        x, y, z = np.array(one.ContourData, float).reshape(-1, 3).T
        place, step = slices[z[0]].ImagePositionPatient, slices[z[0]].PixelSpacing
        corners = np.stack([(y - place[1]) / step[0], (x - place[0]) / step[1]], axis=1)
        expected[heights.index(z[0])] ^= polygon2mask(ct.grid.shape[1:], corners)

    labels = read_labels(path, image=ct, numbers={"GTV-1": 1})

    np.testing.assert_array_equal(labels.array > 0, expected)


SEGMENTS = {
    "ct3slice/liver.dcm": ("ct3slice/ct", "ct3slice/liver_seg.nrrd", "Liver"),
    "23x38x3/seg/label.seg": ("23x38x3/image", "23x38x3/nrrd/label.nrrd", "Liver"),
}


@pytest.mark.realdata
@pytest.mark.parametrize("seg", SEGMENTS)
def test_segments_equal_the_masks_beside_them(data_root, seg):
    folder = data_root / "dicom_seg_fixtures"
    series, mask, name = SEGMENTS[seg]
    ct, drawn = read_image(folder / series), read_labels(folder / mask)
    assert kind_of_labels(folder / seg) == "SEG"

    labels = read_labels(folder / seg, image=ct, numbers={name: 1})

    assert labels.array.any()
    assert same_voxels(labels, drawn)


@pytest.mark.realdata
@pytest.mark.parametrize("way", ["ppv5", "noppv"])
def test_a_sparse_label_map_has_empty_slices_where_it_has_no_frames(data_root, way):
    folder = data_root / "dicom_seg_fixtures" / "sparse_labelmap"
    drawn = read_labels(folder / f"sparse_labelmap_{way}_seg.nrrd")
    if way == "ppv5":  # in this mask, 5 marks the slice whose pixels were padding
        drawn = Image(drawn.array * (drawn.array == 1), drawn.grid, "ZYX")

    labels = read_labels(folder / f"sparse-labelmap-{way}.dcm", image=drawn, numbers={"Liver": 1})

    np.testing.assert_array_equal(labels.array, drawn.array)
    assert not labels.array[1].any()


@pytest.mark.realdata
def test_fractions_are_refused_but_not_those_that_are_all_or_nothing(data_root):
    folder = data_root / "dicom_seg_fixtures" / "highdicom_ct"
    grid = Grid(
        (3, 16, 16),
        (1.25, 0.488281, 0.488281),
        Unit.MM,
        (125.0, 128.100006, 105.519997),
        ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    )
    like = Image(np.zeros(grid.shape, np.int16), grid, "ZYX")

    binary = read_labels(folder / "seg_image_ct_binary.dcm", image=like)
    whole = read_labels(folder / "seg_image_ct_binary_fractional.dcm", image=like)

    np.testing.assert_array_equal(binary.array, whole.array)
    with pytest.raises(MedsegError, match=r"holds fractions .* between 0 and"):
        read_labels(folder / "seg_image_ct_true_fractional.dcm", image=like)


@pytest.mark.realdata
def test_segments_of_another_image_are_refused(data_root):
    folder = data_root / "dicom_seg_fixtures"
    ct = read_image(folder / "ct3slice" / "ct")
    with pytest.raises(MedsegError, match=r"another grid than the image|another frame"):
        read_labels(folder / "23x38x3" / "seg" / "label.seg", image=ct, numbers={"Liver": 1})


def same_voxels(one: Image, other: Image) -> bool:
    """Compare two label images place by place, in whichever order their slices are stored."""
    return placed(one) == placed(other)


def placed(labels: Image) -> set[tuple[float, ...]]:
    inside = np.argwhere(labels.array > 0)
    places = inside @ labels.grid.affine[:3, :3].T + labels.grid.affine[:3, 3]
    return set(map(tuple, np.round(places, 1).tolist()))
