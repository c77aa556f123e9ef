"""Real files of each kind, with what is known about them."""

import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.images import read_image, read_labels, write_labels

pytestmark = pytest.mark.realdata


def orientation(grid):
    """Letters of the file's x, y, z axes, by our direction."""
    columns = np.array(grid.direction)[:, ::-1].T
    ends = ["RL", "AP", "SI"]
    return "".join(ends[np.argmax(abs(c))][int(c[np.argmax(abs(c))] < 0)] for c in columns)


def test_lung_mr_lies_lsp_and_its_decimal_labels_are_whole(data_root):
    folder = data_root / "lung_mri_lobes"
    image = read_image(folder / "images" / "0006.nii.gz")
    labels = read_labels(folder / "labels_lobes" / "0006.nii.gz")
    reference = nibabel.load(folder / "labels_lobes" / "0006.nii.gz")

    assert orientation(image.grid) == "LSP"
    assert labels.array.dtype == np.uint8
    assert np.unique(labels.array).tolist() == [0, 1, 2, 3, 4, 5]
    assert labels.grid.matches(image.grid)
    np.testing.assert_array_equal(labels.array, reference.get_fdata().transpose(2, 1, 0))


def test_labels_written_like_a_real_image_have_its_affine(data_root, tmp_path):
    for path in sorted((data_root / "sct_spinalcord_fixtures").rglob("*.nii.gz")):
        image = read_image(path)
        write_labels(tmp_path / "a.nii.gz", np.zeros(image.grid.shape, np.uint8), image)
        np.testing.assert_allclose(
            nibabel.load(tmp_path / "a.nii.gz").affine, nibabel.load(path).affine, atol=1e-4
        )


def test_nrrd_orientation_agrees_with_itk(data_root):
    for path in sorted((data_root / "pyradiomics_nrrd").glob("*.nrrd")):
        grid, itk = read_image(path).grid, SimpleITK.ReadImage(str(path))
        last = [n - 1 for n in itk.GetSize()]
        place = np.array(itk.TransformIndexToPhysicalPoint(last)) * [-1, -1, 1]
        np.testing.assert_allclose((grid.affine @ [*last[::-1], 1])[:3], place, atol=1e-4)


def test_the_volume_with_holes_is_refused_with_their_number(data_root):
    folder = data_root / "itksnap_fixtures"
    with pytest.raises(MedsegError, match="1,519 NaN and 73 infinite voxels"):
        read_image(folder / "nan.mha")
    assert read_labels(folder / "nan_seg.mha").array.max() == 4
    assert read_labels(folder / "MRIcrop-seg.gipl.gz").array.max() == 8
    assert read_image(folder / "multi_chunk.nii.gz").axes == "CZYX"


def test_a_clinical_ct_is_put_in_order_and_scaled(data_root):
    folder = data_root / "ct_gtv_rtstruct" / "pat_2" / "ct"
    image = read_image(folder)
    assert image.grid.shape == (41, 138, 141)
    assert image.grid.spacing == pytest.approx((3.0, 0.977, 0.977), abs=1e-4)
    assert image.array.min() == -1000
    itk = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(image.array, SimpleITK.GetArrayFromImage(itk))


def test_a_slice_taken_out_of_a_clinical_ct_is_missed(data_root, tmp_path):
    shutil.copytree(data_root / "ct_gtv_rtstruct" / "pat_2" / "ct", tmp_path / "ct")
    files = sorted((tmp_path / "ct").iterdir())
    files[len(files) // 2].unlink()
    with pytest.raises(MedsegError, match=r"1 slice\(s\) missing: a gap of 6.00 mm, where 3.00 mm"):
        read_image(tmp_path / "ct")


def test_nuclei_pngs_lose_their_empty_transparency(data_root):
    folder = data_root / "dsb2018_nuclei"
    path = sorted((folder / "images").glob("*.png"))[0]
    image = read_image(path)
    labels = read_labels(folder / "labels" / f"{path.stem}.tif")
    assert image.axes == "CYX"
    assert len(image.array) == 3
    assert image.grid.shape == labels.grid.shape


def test_a_nuclei_stack_needs_its_axes_explained(data_root):
    folder = data_root / "stardist_nuclei_fixtures"
    with pytest.raises(MedsegError, match="31 of unknown meaning"):
        read_image(folder / "images" / "3d.tif")
    labels = read_labels(folder / "labels" / "3d.tif", axes="ZYX")
    assert labels.grid.shape == (31, 61, 57)
    assert len(np.unique(labels.array)) - 1 == 51
