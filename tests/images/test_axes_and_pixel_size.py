"""What a file leaves open is asked for; what it says is not overruled."""

import nibabel
import numpy as np
import pytest
import tifffile

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, image_suffix, is_image_file, read_image, read_labels, write_image

STACK = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


def test_three_axes_of_a_plain_tiff_must_be_explained(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(MedsegError, match=r"does not say what its axes mean[\s\S]*axes: ZYX"):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", axes="ZYX").axes == "ZYX"
    assert read_image(tmp_path / "a.tif", axes="CYX").axes == "CYX"
    turned = read_image(tmp_path / "a.tif", axes="YXC")
    np.testing.assert_array_equal(turned.array, np.moveaxis(STACK, -1, 0))


@pytest.mark.parametrize("wrong", ["XYT", "ZZX", "hello"])
def test_other_letters_are_refused(tmp_path, wrong):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(MedsegError, match="not made of the letters C, Z, Y, X"):
        read_image(tmp_path / "a.tif", axes=wrong)


def test_channels_of_an_ome_file_cannot_be_called_slices(tmp_path):
    write_image(tmp_path / "a.ome.tif", Image(STACK, Grid((6, 7), (1.0, 1.0), Unit.UM), "CYX"))
    with pytest.raises(MedsegError, match="the axes 5 channels x 6 Y x 7 X, not ZYX"):
        read_image(tmp_path / "a.ome.tif", axes="ZYX")


def test_time_is_refused_unless_it_is_said_to_be_slices(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(MedsegError, match=r"5 time points[\s\S]*state axes: ZYX"):
        read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", axes="ZYX").array, STACK)


def test_a_fourth_nifti_axis_is_channels_only_if_said(tmp_path):
    values = np.arange(120, dtype=np.int16).reshape(5, 4, 3, 2)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(MedsegError, match=r"2 time points[\s\S]*axes: CZYX"):
        read_image(tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz", axes="CZYX")
    assert image.array.shape == (2, 3, 4, 5)
    assert image.array[1, 2, 3, 4] == values[4, 3, 2, 1]


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((5, 4, 3, 1), np.uint8), np.eye(4)), tmp_path / "a.nii"
    )
    assert read_image(tmp_path / "a.nii").axes == "ZYX"


def test_nifti_scaling_is_applied_and_whole_numbers_stay_whole(tmp_path):
    image = nibabel.Nifti1Image(np.array([[[0, 100]]], np.int16), np.eye(4))
    image.header.set_slope_inter(1, 0)
    nibabel.save(image, tmp_path / "plain.nii")
    image = nibabel.Nifti1Image(np.array([[[-1.0, 1.5]]]), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scaled.nii")

    assert read_image(tmp_path / "plain.nii").array.dtype == np.int16
    scaled = read_image(tmp_path / "scaled.nii").array
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.ravel(), [-1.0, 1.5], atol=1e-4)


def test_imagej_pixel_size_and_slice_distance_are_read(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 1.5, "unit": "um"},
    )
    grid = read_image(tmp_path / "a.tif").grid
    assert (grid.spacing, grid.unit) == ((1.5, 0.5, 0.25), Unit.UM)


@pytest.mark.parametrize(("unit", "size"), [("nm", 4.0), ("µm", 0.004), ("mm", 4e-6)])
def test_ome_units_become_micrometres(tmp_path, unit, size):
    sizes = {f"PhysicalSize{a}": size for a in "XY"} | {f"PhysicalSize{a}Unit": unit for a in "XY"}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], metadata={"axes": "YX", **sizes})
    grid = read_image(tmp_path / "a.ome.tif").grid
    assert grid.unit is Unit.UM
    assert grid.spacing == pytest.approx((0.004, 0.004))


def test_the_print_resolution_of_a_plain_tiff_is_not_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=(72, 72), resolutionunit="INCH")
    assert read_image(tmp_path / "a.tif").grid.unit is Unit.PX


def test_a_stack_without_slice_distance_has_no_pixel_size(tmp_path):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX", **sizes})
    assert read_image(tmp_path / "a.ome.tif").grid.unit is Unit.PX


@pytest.mark.parametrize("size", [0, -0.5])
def test_an_ome_pixel_size_that_is_no_length_is_refused(tmp_path, size):
    sizes = {"PhysicalSizeX": size, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], metadata={"axes": "YX", **sizes})
    with pytest.raises(MedsegError, match="every value must be a positive length"):
        read_image(tmp_path / "a.ome.tif")


def test_a_stated_pixel_size_fills_in_and_never_overrules(tmp_path):
    bare = tmp_path / "bare.tif"
    tifffile.imwrite(bare, STACK[0])
    grid = read_image(bare, spacing=(0.5, 0.25), unit=Unit.UM).grid
    assert (grid.spacing, grid.unit) == ((0.5, 0.25), Unit.UM)

    sized = tmp_path / "sized.ome.tif"
    write_image(sized, Image(STACK[0], Grid((6, 7), (0.325, 0.325), Unit.UM), "YX"))
    same = read_image(sized, spacing=(326.0, 326.0), unit=Unit.NM).grid
    assert same.unit is Unit.NM
    assert same.spacing == pytest.approx((325.0, 325.0))
    with pytest.raises(
        MedsegError, match=r"another pixel size[\s\S]*0.325 um[\s\S]*0.65 x 0.65 um"
    ):
        read_image(sized, spacing=(0.65, 0.65), unit=Unit.UM)
    with pytest.raises(MedsegError, match="of 3 numbers is stated, the image has 2 axes"):
        read_image(sized, spacing=(1.0, 0.65, 0.65), unit=Unit.UM)
    with pytest.raises(ValueError, match="has no unit"):
        read_image(sized, spacing=(0.65, 0.65))


def test_several_images_in_one_tiff_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(STACK[0])
        tiff.write(STACK[0, :3])
    with pytest.raises(MedsegError, match="holds 2 images"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.b.OME.TIF", ".OME.TIF"),
        ("a.tif", ".tif"),
        ("a.gz", ""),
        (".nii.gz", ""),
        ("a.txt", ""),
        ("scan.1.mha", ".mha"),
    ],
)
def test_the_suffix_is_the_longest_known(name, suffix):
    assert image_suffix(name) == suffix


def test_hidden_files_are_no_images_and_a_folder_of_slices_is_one(tmp_path):
    (tmp_path / "series").mkdir()
    assert not is_image_file(tmp_path / "._a.nii.gz")
    assert not is_image_file(tmp_path / "series")
    (tmp_path / "series" / "1.dcm").touch()
    assert is_image_file(tmp_path / "series")


def test_labels_refuse_what_is_no_label(tmp_path):
    def saved(array, axes="YX"):
        array = np.asarray(array)
        write_image(tmp_path / "a.ome.tif", Image(array, Grid(array.shape[-2:], (1.0, 1.0)), axes))
        return tmp_path / "a.ome.tif"

    whole = read_labels(saved(np.array([[0, 300]], np.float32)))
    assert whole.array.dtype == np.uint16
    assert whole.array.tolist() == [[0, 300]]
    with pytest.raises(MedsegError, match=r"3 voxels are no whole.*0.5 \(2 voxels\), nan \(1 "):
        read_labels(saved(np.array([[0, 0.5, 0.5, np.nan, 3]], np.float32)))
    with pytest.raises(MedsegError, match=r"from 0 to 4294967295, found -7, -1\n"):
        read_labels(saved(np.array([[0, -1, -7]], np.int16)))
    with pytest.raises(MedsegError, match=r"2 channels with 2 colours: \(0, 1\), \(5, 5\)"):
        read_labels(saved(np.array([[[0, 5]], [[1, 5]]], np.uint8), "CYX"))
    assert read_labels(saved(np.full((3, 2, 2), 4, np.uint8), "CYX")).axes == "YX"
