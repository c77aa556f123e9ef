"""From patients' DICOM folders to a DICOM SEG: new, check, train, predict."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.images import read_image, read_labels

PATIENTS = {"scan_a": "P1", "scan_b": "P1", "scan_c": "P2", "scan_d": "P3", "scan_e": "P4"}
SHORT = (
    *("train.epochs=1", "train.iterations_per_epoch=2", "train.batch=1", "train.validate_every=1"),
    *("data.patch_voxels=[32,32,8]", "data.spacing=native", "network={name: unet, preset: small}"),
    *("predict={}", "augmentation=light"),
)


@pytest.fixture
def patients(data_root: Path, tmp_path: Path) -> Path:
    """The slices of a real CT that hold its tumour, as five scans of four patients."""
    source = data_root / "ct_gtv_rtstruct" / "pat_2"
    (contours,) = (source / "rtstruct").iterdir()
    labels = read_labels(contours, image=read_image(source / "ct"))
    drawn = np.flatnonzero(labels.array.any(axis=(1, 2)))
    slices = sorted(
        (pydicom.dcmread(f) for f in (source / "ct").iterdir()),
        key=lambda s: float(s.ImagePositionPatient[2]),
    )[drawn[0] - 2 : drawn[-1] + 3]
    for number, (scan, patient) in enumerate(PATIENTS.items()):
        (tmp_path / "scans" / scan / "ct").mkdir(parents=True)
        for i, one in enumerate(slices):
            one.PatientID, one.PatientName = patient, "Secret^Name"
            one.PixelData = (one.pixel_array + number).tobytes()  # no image twice
            one.save_as(tmp_path / "scans" / scan / "ct" / f"{(7 * i) % 100:02}.dcm")
        structures = pydicom.dcmread(contours)
        structures.PatientID = patient
        structures.save_as(tmp_path / "scans" / scan / "rs.dcm")
    return tmp_path / "scans"


@pytest.mark.realdata
@pytest.mark.slow
def test_contours_train_a_model_that_writes_dicom_segs(medseg, patients, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert medseg("new", patients, "--yes", "--name", "tumours").code == 0
    card = (tmp_path / "tumours.yaml").read_text()
    assert "name: dicom" in card
    assert "GTV-1: 1" in card
    assert "channels: [ct]" in card

    checked = medseg("check", "tumours.yaml", "--job", "tumours_job.yaml", "--json")
    assert checked.code == 0, checked.errors

    trained = medseg(
        *("train", "tumours_job.yaml", *SHORT, "--register", "", "--device", "cpu", "--json")
    )
    assert trained.code == 0, trained.errors
    run = trained.json["folder"]

    scan = patients / "scan_a" / "ct"
    predicted = medseg("predict", run, scan, "-o", "out", "--write", "dicomseg", "--json")
    assert predicted.code == 0, predicted.errors
    segmentation = pydicom.dcmread(tmp_path / "out" / "ct.seg.dcm")
    assert segmentation.PatientID == "P1"
    labels = read_labels(tmp_path / "out" / "ct.nii.gz")
    found = np.zeros(labels.array.shape, bool)
    if labels.array.any():
        numbers = {"GTV-1": 1}
        again = read_labels(
            tmp_path / "out" / "ct.seg.dcm", image=read_image(scan), numbers=numbers
        )
        found = again.array > 0
    np.testing.assert_array_equal(found, labels.array > 0)

    texts = [p for p in Path(run).rglob("*") if p.suffix in (".json", ".yaml", ".csv", ".html")]
    assert texts
    assert not any("Secret" in text.read_text() for text in texts)


@pytest.mark.realdata
def test_scans_of_one_patient_are_one_group(medseg, patients, tmp_path, monkeypatch):
    from medseg.data import find_cases

    cases = find_cases(patients, "dicom", {})

    groups = {case.name: case.group for case in cases}
    assert groups["scan_a"] == groups["scan_b"] == "scan_a"
    assert len(set(groups.values())) == 4


@pytest.mark.realdata
def test_two_series_for_one_case_are_listed_and_the_card_can_choose(medseg, patients):
    from medseg.data import find_cases
    from medseg.errors import MedsegError

    again = patients / "scan_c" / "repeated"
    again.mkdir()
    for file in (patients / "scan_c" / "ct").iterdir():
        (again / file.name).write_bytes(file.read_bytes())

    with pytest.raises(MedsegError, match=r"scan_c: holds 2 DICOM image series, not one\n +ct\n"):
        find_cases(patients, "dicom", {})
    chosen = find_cases(patients, "dicom", {"images": "ct"})
    assert {case.images[0].name for case in chosen} == {"ct"}


@pytest.mark.realdata
def test_a_folder_of_loose_dicom_files_gets_a_hint(medseg, patients):
    ran = medseg("new", patients / "scan_a" / "ct", "--yes")
    assert ran.code == 1
    words = " ".join(ran.errors.split())
    assert "1 folders of images, 0 RTSTRUCT or SEG; the dicom layout takes a folder" in words


@pytest.mark.realdata
def test_one_case_alone_is_refused_with_the_reason(medseg, data_root):
    ran = medseg("new", data_root / "ct_gtv_rtstruct", "--yes", "--name", "gtv")
    assert ran.code == 1
    assert "cannot be split into training and validation" in ran.errors
