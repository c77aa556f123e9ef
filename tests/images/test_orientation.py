"""The same voxel lies at the same place for nibabel, for SimpleITK and for us."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, read_image, write_image

SHAPE_XYZ = (6, 5, 4)
SPACING = np.array([0.7, 0.8, 2.5])
ORIGIN = np.array([-11.5, 20.25, 3.0])


def turned(*degrees):
    """A rotation about x, then y, then z."""
    total = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        total = step @ total
    return total


DIRECTIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "RAI": np.diag([1.0, 1.0, -1.0]),
    "PSR": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "oblique": turned(10, -20, 35),
    "oblique and mirrored": turned(10, -20, 35) @ np.diag([1.0, -1.0, 1.0]),
}


def ours(path, index_xyz):
    """World position (RAS) of a voxel by our grid."""
    return (read_image(path).grid.affine @ [*index_xyz[::-1], 1])[:3]


def by_nibabel(path, index_xyz):
    return (nibabel.load(path).affine @ [*index_xyz, 1])[:3]


def by_itk(path, index_xyz):
    image = SimpleITK.ReadImage(str(path))
    return np.array(image.TransformIndexToPhysicalPoint(index_xyz)) * [-1, -1, 1]


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("corner", [(0, 0, 0), (5, 0, 0), (0, 4, 3), (5, 4, 3)])
def test_a_nifti_voxel_has_one_place_for_all_three(tmp_path, name, corner):
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[name] * SPACING
    affine[:3, 3] = ORIGIN
    image = nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.int16), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")

    here = ours(tmp_path / "a.nii.gz", corner)
    np.testing.assert_allclose(here, by_nibabel(tmp_path / "a.nii.gz", corner), atol=1e-4)
    np.testing.assert_allclose(here, by_itk(tmp_path / "a.nii.gz", corner), atol=1e-4)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_an_itk_voxel_lies_where_itk_puts_it(tmp_path, suffix, name):
    image = SimpleITK.GetImageFromArray(np.zeros(SHAPE_XYZ[::-1], np.int16))
    image.SetSpacing(SPACING.tolist())
    image.SetOrigin(ORIGIN.tolist())
    image.SetDirection(DIRECTIONS[name].ravel().tolist())
    path = tmp_path / f"a.{suffix}"
    SimpleITK.WriteImage(image, str(path))

    for corner in [(0, 0, 0), (5, 0, 3), (5, 4, 3)]:
        np.testing.assert_allclose(ours(path, corner), by_itk(path, corner), atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_what_we_write_lies_where_we_say_for_others_too(tmp_path, name, suffix):
    columns = tuple(map(tuple, DIRECTIONS[name][:, ::-1].tolist()))
    grid = Grid(SHAPE_XYZ[::-1], tuple(SPACING[::-1]), Unit.MM, tuple(ORIGIN), columns)
    values = np.arange(120, dtype=np.int16).reshape(SHAPE_XYZ[::-1])
    path = tmp_path / f"a.{suffix}"
    write_image(path, Image(values, grid, "ZYX"))

    for corner in [(0, 0, 0), (5, 0, 3), (5, 4, 3)]:
        place = (grid.affine @ [*corner[::-1], 1])[:3]
        np.testing.assert_allclose(by_itk(path, corner), place, atol=1e-4)
        assert SimpleITK.ReadImage(str(path))[corner] == values[corner[::-1]]
        if suffix == "nii.gz":
            np.testing.assert_allclose(by_nibabel(path, corner), place, atol=1e-4)
            assert nibabel.load(path).dataobj[corner] == values[corner[::-1]]


def test_axes_z_y_x_are_those_of_the_file_turned_round(tmp_path):
    """In an RAS file the last array axis points to the right, the first to the head."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.eye(4)), tmp_path / "a.nii")
    grid = read_image(tmp_path / "a.nii").grid
    assert grid.shape == (4, 5, 6)
    assert grid.direction == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_the_sform_counts_before_the_qform_as_in_nibabel(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), np.eye(4))
    image.set_qform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
    image.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), 4)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        ours(tmp_path / "a.nii", (5, 4, 3)), by_nibabel(tmp_path / "a.nii", (5, 4, 3))
    )


@pytest.mark.parametrize(("unit", "expected"), [("mm", Unit.MM), ("micron", Unit.UM)])
def test_the_unit_of_a_nifti_is_read(tmp_path, unit, expected):
    image = nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    grid = read_image(tmp_path / "a.nii").grid
    assert (grid.unit, grid.spacing) == (expected, (2.0, 2.0, 2.0))


def test_a_nifti_without_a_unit_is_taken_as_mm_and_says_so(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), np.eye(4))
    image.header.set_xyzt_units(0)
    nibabel.save(image, tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii")
    assert read.grid.unit is Unit.MM
    assert read.metadata["unit_assumed"] is True


def test_an_affine_rounded_in_the_fifth_digit_is_accepted(tmp_path):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 1e-5
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), affine), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), np.eye(4)), tmp_path / "b.nii")
    assert read_image(tmp_path / "a.nii").grid.matches(read_image(tmp_path / "b.nii").grid)


def test_slanted_axes_are_refused_in_the_same_words_by_both_readers(tmp_path):
    slant = np.eye(4)
    slant[0, 1] = 0.1
    image = nibabel.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), None)
    image.set_sform(slant, 1)
    image.header["pixdim"][1:4] = np.linalg.norm(slant[:3, :3], axis=0)
    nibabel.save(image, tmp_path / "a.nii")
    itk = SimpleITK.GetImageFromArray(np.zeros(SHAPE_XYZ[::-1], np.uint8))
    itk.SetDirection((slant[:3, :3] / np.linalg.norm(slant[:3, :3], axis=0)).ravel().tolist())
    SimpleITK.WriteImage(itk, str(tmp_path / "a.mha"))
    SimpleITK.WriteImage(itk, str(tmp_path / "a.nrrd"))

    texts = set()
    for name in ("a.nii", "a.mha", "a.nrrd"):
        with pytest.raises(MedsegError, match=f"{name}: the axes of the image are not perpen") as e:
            read_image(tmp_path / name)
        texts.add(str(e.value).split("\n")[0].split(": ", 1)[1])
        assert "resample it onto a straight grid" in str(e.value)
    assert len(texts) == 1


def test_a_slice_of_a_volume_keeps_an_axial_orientation_only(tmp_path):
    for name, directions in (("axial", np.eye(3)), ("sagittal", DIRECTIONS["PSR"])):
        affine = np.eye(4)
        affine[:3, :3] = directions * SPACING
        image = nibabel.Nifti1Image(np.zeros((6, 5, 1), np.uint8), affine)
        nibabel.save(image, tmp_path / f"{name}.nii")
    axial = read_image(tmp_path / "axial.nii", axes="YX")
    sagittal = read_image(tmp_path / "sagittal.nii", axes="YX")
    assert axial.grid.direction == ((0, 1), (1, 0))
    assert sagittal.grid.direction is None
    np.testing.assert_allclose(
        [axial.grid.spacing, sagittal.grid.spacing], [(0.8, 0.7)] * 2, rtol=1e-6
    )
