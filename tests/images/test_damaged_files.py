"""Broken files are really broken here, and refused by name before their pixels are trusted."""

import gzip
import re
import struct
import time
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, read_image, write_image
from medseg.images.trust import free_memory

NOISE = np.random.default_rng(0).integers(0, 255, (16, 24, 32), dtype=np.uint8)
GRID = Grid(
    NOISE.shape, (2.0, 1.0, 1.0), Unit.MM, (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0))
)
ALL = ("nii", "nii.gz", "mha", "nrrd", "tif", "png", "bmp")


def good(folder, suffix):
    path = folder / f"good.{suffix}"
    if suffix in ("png", "bmp"):
        write_image(path, Image(NOISE[0], Grid(NOISE[0].shape, (1.0, 1.0)), "YX"))
    else:
        write_image(path, Image(NOISE, GRID, "ZYX"))
    return path


def header(shape=(32, 24, 16), dtype=np.uint8, **fields):
    made = nibabel.Nifti1Header()
    made.set_data_shape(shape)
    made.set_data_dtype(dtype)
    made["vox_offset"] = 352
    made["magic"] = b"n+1"
    for key, value in fields.items():
        made[key] = value
    return made.binaryblock + b"\0\0\0\0"


def refusal(path, read=read_image, **kwargs):
    with pytest.raises(MedsegError) as caught:
        read(path, **kwargs)
    assert str(path) in str(caught.value)
    assert "\n  " in str(caught.value), "no remedy"
    return str(caught.value)


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix, share):
    whole = good(tmp_path, suffix).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


def test_a_cut_gipl_is_refused_plain_and_compressed(tmp_path):
    itk = SimpleITK.GetImageFromArray(NOISE)
    for suffix in ("gipl", "gipl.gz"):
        SimpleITK.WriteImage(itk, str(tmp_path / f"a.{suffix}"))
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}").array, NOISE)
        assert read_image(tmp_path / f"a.{suffix}").grid.direction is None
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(0.6 * len(whole))])
        assert "cut off" in refusal(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_cut_raw_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path), useCompression=False)
    path.write_bytes(path.read_bytes()[:-7])
    assert "cut off: " in refusal(path)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_header_with_its_voxels_beside_it_is_read_and_checked(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for compressed in (False, True):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path), compressed)
        np.testing.assert_array_equal(read_image(path).array, NOISE)
        data = next(p for p in tmp_path.iterdir() if p != path)
        data.write_bytes(data.read_bytes()[:-100])
        with pytest.raises(MedsegError, match=f"{data.name}: .*cut off"):
            read_image(path)
        data.unlink()
        with pytest.raises(MedsegError, match=f"{data.name}: there is no such file"):
            read_image(path)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "LIST", "a%03d.raw"])
def test_a_header_cannot_reach_out_of_its_folder(tmp_path, name):
    path = tmp_path / "a.mhd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path))
    path.write_text(path.read_text().replace("a.raw", name))
    assert "only one file in the same folder is opened" in refusal(path)


@pytest.mark.parametrize("place", np.linspace(0.05, 0.95, 10))
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd", "png"])
def test_one_flipped_bit_is_noticed(tmp_path, suffix, place):
    whole = bytearray(good(tmp_path, suffix).read_bytes())
    start = {"nii.gz": 0, "png": 8}.get(suffix, len(whole) - 8000)  # behind the text of the header
    whole[start + int(place * (len(whole) - start))] ^= 0b1000
    path = tmp_path / f"flipped.{suffix}"
    path.write_bytes(bytes(whole))
    refusal(path)


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_an_absurd_header_is_refused_before_memory_is_taken(tmp_path, compress):
    suffix = "nii.gz" if compress is gzip.compress else "nii"
    path = tmp_path / f"huge.{suffix}"
    path.write_bytes(compress(header((30000, 30000, 30000), np.float64)))
    tracemalloc.start()
    text = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "30000 x 30000 x 30000 voxels" in text
    assert peak < 100e6


@pytest.mark.parametrize("suffix", ["mha", "nrrd", "tif"])
def test_absurd_sides_are_refused_in_every_format(tmp_path, suffix):
    path = good(tmp_path, suffix)
    if suffix == "tif":
        tifffile.imwrite(path, NOISE[0])
        whole = bytearray(path.read_bytes())
        whole[18:22], whole[30:34] = [struct.pack("<I", 4_000_000)] * 2
        path.write_bytes(bytes(whole))
    else:
        path.write_bytes(path.read_bytes().replace(b"32 24 16", b"30000 30000 30000"))
    tracemalloc.start()
    refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_what_a_small_file_cannot_hold_is_refused_below_the_limit_of_memory(tmp_path):
    side = int((free_memory() * 0.5) ** (1 / 3))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header((side, side, side))))
    assert "cannot hold" in refusal(path)


def test_a_file_that_inflates_without_end_stops_at_its_budget(tmp_path):
    zeros = gzip.compress(bytes(2**20))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header() + NOISE.tobytes()) + 4096 * zeros)  # 4 GiB

    began = time.monotonic()
    tracemalloc.start()
    text = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "holds more than the 12,288 bytes of voxels" in text
    assert time.monotonic() - began < 5
    assert peak < 50e6


def test_a_bomb_of_nothing_but_zeros_is_no_nifti(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(bytes(2**20)) * 4096)
    assert "not a NIfTI file" in refusal(path)


def test_compressed_itk_voxels_stop_at_their_budget(tmp_path):
    path = tmp_path / "bomb.mha"
    text = SimpleITK.GetImageFromArray(NOISE)
    SimpleITK.WriteImage(text, str(path), useCompression=True)
    head, local, data = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    bomb = zlib.compress(bytes(2**26))
    head = head.replace(str(len(data)).encode(), str(len(bomb)).encode())
    path.write_bytes(head + local + bomb)
    assert "more than the 12,288" in refusal(path)


@pytest.mark.parametrize("size", [b"", b"CompressedDataSize = 99\n"])
def test_compressed_itk_voxels_of_another_length_are_refused(tmp_path, size):
    path = good(tmp_path, "mha")
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", size, path.read_bytes()))
    refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_pixel_size_that_is_no_length_is_refused(tmp_path, value, axis):
    pixdim = np.ones(8)
    pixdim[axis] = value
    path = tmp_path / "a.nii"
    path.write_bytes(header(pixdim=pixdim) + NOISE.tobytes())
    assert "every value must be a positive length" in refusal(path)


@pytest.mark.parametrize("value", ["nan", "0", "-1"])
def test_so_it_is_in_mha_and_nrrd(tmp_path, value):
    path = good(tmp_path, "mha")
    whole = path.read_bytes()
    path.write_bytes(
        whole.replace(b"ElementSpacing = 1 1 2", f"ElementSpacing = 1 {value} 2".encode())
    )
    assert path.read_bytes() != whole
    assert "every value must be a positive length" in refusal(path)
    path = good(tmp_path, "nrrd")
    whole = path.read_bytes()
    changed = whole.replace(b"(0,0,2)", b"(0,0,nan)" if value == "nan" else b"(0,0,0)")
    assert changed != whole
    path.write_bytes(changed)
    refusal(path)


def test_two_pixel_sizes_in_one_nifti_are_refused(tmp_path):
    image = nibabel.Nifti1Image(NOISE.T, np.eye(4))
    image.header["pixdim"][3] = 5.0
    image.header["sform_code"] = 1
    path = tmp_path / "a.nii"
    path.write_bytes(
        header(
            pixdim=[1, 1, 1, 5, 0, 0, 0, 0],
            sform_code=1,
            srow_x=[1, 0, 0, 0],
            srow_y=[0, 1, 0, 0],
            srow_z=[0, 0, 1, 0],
        )
        + NOISE.tobytes()
    )
    assert "two pixel sizes" in refusal(path)


def test_voxels_at_an_impossible_place_are_refused(tmp_path):
    for offset in (1e9, np.nan, 0.0):
        path = tmp_path / "a.nii"
        path.write_bytes(header(vox_offset=offset) + NOISE.tobytes())
        assert "which is impossible" in refusal(path)


def test_a_side_of_no_voxels_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(header(dim=[3, 32, 0, 16, 1, 1, 1, 1]) + NOISE.tobytes())
    assert "so there is no image" in refusal(path)


@pytest.mark.parametrize("suffix", [*ALL, "gipl", "gipl.gz", "jpg"])
def test_text_under_an_image_name_is_shown(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("patient,age\n1,44\n" * 40)
    text = refusal(path)
    assert "patient,age" in text
    assert "not a" in text


def test_a_compressed_text_is_no_nifti(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"patient,age\n" * 99))
    assert "not a NIfTI file; its content starts with b'patient,age" in refusal(path)


@pytest.mark.parametrize("suffix", ALL)
def test_an_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    assert "the file is empty (0 bytes)" in refusal(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_page_that_points_to_itself_is_refused_at_once(tmp_path, big):
    path = tmp_path / "loop.tif"
    tifffile.imwrite(path, NOISE[0], bigtiff=big)
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].offset
    size, entry, link = ("<Q", 20, "<Q") if big else ("<H", 12, "<I")
    entries = struct.unpack_from(size, whole, place)[0]
    struct.pack_into(link, whole, place + struct.calcsize(size) + entries * entry, place)
    path.write_bytes(bytes(whole))

    began = time.monotonic()
    assert "the list of pages returns to itself" in refusal(path)
    assert time.monotonic() - began < 1


def test_infinite_and_undefined_voxels_are_counted_and_placed(tmp_path):
    array = NOISE.astype(np.float32)
    array[3, 5, 7] = np.nan
    array[4, 0, 0] = -np.inf
    path = tmp_path / "a.nii.gz"
    write_image(path, Image(array, GRID, "ZYX"))
    assert "1 NaN and 1 infinite voxels, the first at x 7, y 5, z 3" in refusal(path)
    assert np.isnan(read_image(path, nonfinite="keep").array[3, 5, 7])
