"""A DICOM series is put in order by place, or refused with the distance in mm."""

import locale

import numpy as np
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images import read_image

VOXELS = np.arange(6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5) - 30


def save(
    folder, places, *, series="1.2.3", row=(1, 0, 0), column=(0, 1, 0), prefix="", spacing=0.8
):
    """Write VOXELS[i] at places[i] (LPS, mm), named so that name order is not place order."""
    folder.mkdir(exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)  # GDCM's writer leaves "C", and texts become ASCII
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, place in enumerate(places):
        image = SimpleITK.GetImageFromArray(VOXELS[i])
        image.SetSpacing((spacing, spacing))
        tags = {
            "0008|0060": "CT",
            "0020|000e": series,
            "0008|0018": f"{series}.{i + 1}",
            "0020|0032": "\\".join(str(v) for v in place),
            "0020|0037": "\\".join(str(v) for v in (*row, *column)),
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{prefix}{(i * 5) % 7}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)


def upright(*heights):
    return [(10.0, 20.0, float(z)) for z in heights]


def test_slices_are_ordered_by_place_not_by_name(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6, 9, 12, 15))
    image = read_image(tmp_path / "ct")

    np.testing.assert_array_equal(image.array, VOXELS)
    assert image.grid.unit is Unit.MM
    assert image.grid.spacing == pytest.approx((3.0, 0.8, 0.8))
    assert image.grid.origin == (-10.0, -20.0, 0.0)
    first = image.grid.affine @ [2, 1, 4, 1]
    np.testing.assert_allclose(first[:3], [-10 - 4 * 0.8, -20 - 0.8, 6.0])


def test_the_locale_of_the_process_stays_as_it_was(tmp_path):
    before = locale.setlocale(locale.LC_ALL)
    save(tmp_path / "ct", upright(0, 3, 6))
    read_image(tmp_path / "ct")
    assert locale.setlocale(locale.LC_ALL) == before


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6))
    (tmp_path / "ct" / "notes.txt").write_text("scanned on a Monday")
    assert read_image(tmp_path / "ct").grid.shape == (3, 4, 5)


def test_a_missing_slice_is_told_with_its_gap(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 9, 12))
    with pytest.raises(MedsegError, match=r"1 slice\(s\) missing: a gap of 6.00 mm, where 3.00 mm"):
        read_image(tmp_path / "ct")


def test_uneven_slices_are_refused(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6, 9.5, 12.5))
    with pytest.raises(MedsegError, match=r"unevenly spaced: a gap of 3.50 mm, where 3.00 mm"):
        read_image(tmp_path / "ct")


def test_two_slices_at_one_place_are_named(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 3, 6))
    with pytest.raises(MedsegError, match=r"two slices lie at the same place, 3.00 mm\n.*3|5\.dcm"):
        read_image(tmp_path / "ct")


def test_two_series_in_one_folder_are_listed(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6))
    save(tmp_path / "ct", upright(0, 3), series="9.8.7", prefix="other")
    with pytest.raises(
        MedsegError, match=r"mixes 2 DICOM series[\s\S]*1.2.3  3 f[\s\S]*9.8.7  2 f"
    ):
        read_image(tmp_path / "ct")


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path):
    places = [(10.0, 20.0 + 3 * k * np.tan(np.radians(15)), 3.0 * k) for k in range(5)]
    save(tmp_path / "ct", places)
    with pytest.raises(MedsegError, match=r"slant of 15.0 degrees \(a tilted gantry\)"):
        read_image(tmp_path / "ct")


def test_a_scout_of_another_orientation_is_named(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6))
    save(tmp_path / "ct", upright(0), column=(0, 0, -1), prefix="scout")
    with pytest.raises(MedsegError, match=r"scout0\.dcm: the slice does not lie on the grid of"):
        read_image(tmp_path / "ct")


def test_an_oblique_series_lies_where_itk_puts_it(tmp_path):
    c, s = np.cos(0.3), np.sin(0.3)
    row, column = np.array([c, 0, s]), np.array([0.0, 1.0, 0.0])
    normal = np.cross(row, column)
    save(tmp_path / "ct", [tuple(5 + 2.0 * k * normal) for k in range(4)], row=row, column=column)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    itk = SimpleITK.ReadImage(names)
    grid = read_image(tmp_path / "ct").grid
    for x, y, z in [(0, 0, 0), (4, 3, 3), (1, 2, 3)]:
        place = np.array(itk.TransformIndexToPhysicalPoint((x, y, z))) * [-1, -1, 1]
        np.testing.assert_allclose((grid.affine @ [z, y, x, 1])[:3], place, atol=1e-4)


def test_a_broken_slice_is_named(tmp_path):
    save(tmp_path / "ct", upright(0, 3, 6))
    broken = tmp_path / "ct" / "5.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(MedsegError, match=r"5\.dcm: cannot be read as a DICOM image"):
        read_image(tmp_path / "ct")


def test_an_empty_folder_is_no_series(tmp_path):
    with pytest.raises(MedsegError, match="holds no DICOM images"):
        read_image(tmp_path)
