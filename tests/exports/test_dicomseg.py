"""A DICOM SEG says, of the series that it refers to, exactly what was found."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.exports import Objects, export
from medseg.images import names_in, read_image, read_labels

pytestmark = [
    pytest.mark.realdata,
    # Of the series: its patient's name has one part only.
    pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent"),
]


@pytest.fixture(scope="module")
def series(data_root: Path) -> Path:
    return data_root / "dicom_seg_fixtures" / "ct3slice" / "ct"


def found(series: Path, labels: np.ndarray, classes: str | dict[int, str]) -> Objects:
    objects = Objects.of("a", labels, read_image(series).grid, classes=classes)
    return Objects(
        objects.case, objects.numbers, objects.grid, objects.ids, objects.classes,
        source=series, model="organs", version="1.2",
    )  # fmt: skip


@pytest.mark.parametrize("mask", ["liver_seg", "spine_seg", "heart_seg", "liver_spine_seg"])
def test_it_equals_the_nrrd_that_it_was_made_from_voxel_for_voxel(series, mask, tmp_path):
    drawn = SimpleITK.ReadImage(str(series.parent / f"{mask}.nrrd"))
    labels = on_the_series(series, drawn)
    values = [int(v) for v in np.unique(labels) if v]
    assert values

    path = export("dicomseg", found(series, labels, {v: f"part{v}" for v in values}), tmp_path)

    # Read by hand: the frames, each placed by the position that it states.
    written = pydicom.dcmread(path)
    heights = [
        round(float(pydicom.dcmread(f).ImagePositionPatient[2]), 2) for f in series.iterdir()
    ]
    again = np.zeros(labels.shape, int)
    shared = written.SharedFunctionalGroupsSequence[0]  # where there is one segment only
    frames = written.pixel_array.reshape(-1, written.Rows, written.Columns)
    for frame, said in zip(frames, written.PerFrameFunctionalGroupsSequence, strict=True):
        z = round(float(said.PlanePositionSequence[0].ImagePositionPatient[2]), 2)
        of_segment = said if "SegmentIdentificationSequence" in said else shared
        number = of_segment.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        again[sorted(heights).index(z)][frame > 0] = values[number - 1]
    np.testing.assert_array_equal(again, labels)
    numbers = {f"part{v}": v for v in values}
    own = read_labels(path, image=read_image(series), numbers=numbers)
    np.testing.assert_array_equal(own.array, labels)


def on_the_series(series: Path, drawn: SimpleITK.Image) -> np.ndarray:
    """Return a mask's array in the order of the series' slices."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    ct = SimpleITK.ReadImage(names)
    same = SimpleITK.Resample(drawn, ct, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    return SimpleITK.GetArrayFromImage(same)


def test_it_belongs_to_the_patient_and_study_and_says_what_made_it(series, tmp_path):
    labels = np.zeros((3, 512, 512), np.uint8)
    labels[1, 100:120, 80:90], labels[2, 5, 5] = 1, 2

    path = export("dicomseg", found(series, labels, {1: "liver", 2: "odd thing"}), tmp_path)

    written, source = pydicom.dcmread(path), pydicom.dcmread(next(series.iterdir()))
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[tag].value == source[tag].value
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    liver, odd = written.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"  # SNOMED CT: liver
    assert odd.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "odd thing"
    made_by = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (made_by.AlgorithmName, made_by.AlgorithmVersion) == ("organs", "1.2")
    assert names_in(path) == {"liver": 1, "odd thing": 2}


def test_each_object_is_a_segment_of_its_own(series, tmp_path):
    labels = np.zeros((3, 512, 512), np.uint16)
    labels[0, :5, :5], labels[0, 9, 9] = 4, 70

    path = export("dicomseg", found(series, labels, "nodule"), tmp_path)

    assert names_in(path) == {"nodule 4": 1, "nodule 70": 2}


def test_where_nothing_was_found_it_says_so(series, tmp_path):
    path = export("dicomseg", found(series, np.zeros((3, 512, 512), np.uint8), "nodule"), tmp_path)

    assert names_in(path) == {"nothing found": 1}
    assert not pydicom.dcmread(path).pixel_array.any()


def test_one_that_does_not_read_back_as_written_is_not_kept(series, tmp_path, monkeypatch):
    labels = np.zeros((3, 512, 512), np.uint8)
    labels[1, 4:9, 4:9] = 1
    objects = found(series, labels, {1: "liver"})
    shifted = np.roll(objects.numbers, 1, axis=2)  # what a broken writer would write
    whole = pydicom.Dataset.save_as

    def broken(self, path, **how):
        del self.PixelData
        self.PixelData = np.packbits(shifted[1] > 0, bitorder="little").tobytes()
        whole(self, path, **how)

    monkeypatch.setattr(pydicom.Dataset, "save_as", broken)
    with pytest.raises(MedsegError, match="reads back with 10 other voxels"):
        export("dicomseg", objects, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_no_series_is_refused(series, tmp_path):
    labels = np.zeros((3, 512, 512), np.uint8)
    labels[0, 0, 0] = 1
    objects = Objects.of("a", labels, read_image(series).grid, classes={1: "liver"})
    with pytest.raises(MedsegError, match="refers to the slices of a DICOM series"):
        export("dicomseg", objects, tmp_path)
