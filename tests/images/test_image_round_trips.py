"""What goes in comes out: values, type, pixel size, orientation, in every format."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import WRITERS, Image, read_image, read_labels, write_image, write_labels

CLINICAL = (".nii", ".nii.gz", ".mha", ".nrrd")
TIFFS = (".tif", ".ome.tif")
TYPES = (np.uint8, np.uint16, np.uint32, np.int16, np.float32)


def picture(shape, dtype, seed=3):
    values = np.random.default_rng(seed).integers(0, 200, shape)
    return values.astype(dtype)


def oblique(degrees=20.0):
    """Columns z, y, x: the image turned about the head-foot axis, x running to the left."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return ((0.0, s, -c), (0.0, c, s), (1.0, 0.0, 0.0))


def volume_grid(shape=(4, 5, 6), unit=Unit.MM):
    return Grid(shape, (2.5, 0.8, 0.7), unit, (-11.5, 20.25, 3.0), oblique())


def test_every_writer_is_in_this_table():
    assert set(WRITERS) == {*CLINICAL, *TIFFS, ".tiff", ".ome.tiff", ".png", ".bmp"}


@pytest.mark.parametrize("suffix", CLINICAL)
@pytest.mark.parametrize("dtype", TYPES)
def test_an_oblique_volume_returns_on_its_grid(tmp_path, suffix, dtype):
    image = Image(picture((4, 5, 6), dtype), volume_grid(), "ZYX")
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")

    assert back.axes == "ZYX"
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_allclose(back.grid.affine, image.grid.affine, atol=1e-5)
    assert back.grid.unit is Unit.MM
    assert back.grid.matches(image.grid)


@pytest.mark.parametrize("suffix", TIFFS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("axes", "shape"),
    [("YX", (5, 6)), ("ZYX", (4, 5, 6)), ("CYX", (2, 5, 6)), ("CZYX", (2, 4, 5, 6))],
)
def test_tiff_keeps_pixel_size_axes_and_type(tmp_path, suffix, dtype, axes, shape):
    spatial = shape[1:] if axes[0] == "C" else shape
    grid = Grid(spatial, (1.0, 0.325, 0.325)[-len(spatial) :], Unit.UM)
    names = ("DAPI", "actin") if axes[0] == "C" else ()
    image = Image(picture(shape, dtype), grid, axes, names)
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")

    assert (back.axes, back.array.dtype, back.channels) == (axes, dtype, names)
    np.testing.assert_array_equal(back.array, image.array)
    assert back.grid == grid


@pytest.mark.parametrize("suffix", CLINICAL)
def test_channels_of_a_volume_return_without_being_asked_for(tmp_path, suffix):
    image = Image(picture((3, 4, 5, 6), np.float32), volume_grid(), "CZYX")
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")

    assert back.axes == "CZYX"
    np.testing.assert_array_equal(back.array, image.array)
    assert back.grid.matches(image.grid)


@pytest.mark.parametrize("suffix", CLINICAL)
def test_a_slice_returns_as_a_slice(tmp_path, suffix):
    grid = Grid((5, 6), (0.8, 0.7), Unit.MM, (3.0, 4.0), ((0.0, -1.0), (1.0, 0.0)))
    image = Image(picture((5, 6), np.uint16), grid, "YX")
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")

    assert back.axes == "YX"
    np.testing.assert_array_equal(back.array, image.array)
    assert back.grid.matches(grid)
    np.testing.assert_allclose(back.grid.affine, grid.affine, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "dtype", "shape"),
    [
        (".png", np.uint8, (5, 6)),
        (".png", np.uint16, (5, 6)),
        (".png", np.uint8, (3, 5, 6)),
        (".png", np.uint16, (3, 5, 6)),
        (".bmp", np.uint8, (5, 6)),
        (".bmp", np.uint8, (3, 5, 6)),
    ],
)
def test_pictures_keep_every_bit(tmp_path, suffix, dtype, shape):
    axes = "CYX" if len(shape) == 3 else "YX"
    image = Image(
        picture(shape, dtype) * dtype(1 if dtype == np.uint8 else 300),
        Grid((5, 6), (1.0, 1.0)),
        axes,
    )
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")

    assert (back.axes, back.array.dtype, back.grid.unit) == (axes, dtype, Unit.PX)
    assert back.channels == (("red", "green", "blue") if axes == "CYX" else ())
    np.testing.assert_array_equal(back.array, image.array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".ome.tif"])
@pytest.mark.parametrize("unit", [Unit.MM, Unit.UM, Unit.NM])
def test_a_length_stays_the_same_length_in_any_format(tmp_path, suffix, unit):
    grid = Grid((4, 5, 6), (3.0, 0.5, 0.25), unit)
    write_image(tmp_path / f"a{suffix}", Image(picture((4, 5, 6), np.uint8), grid, "ZYX"))
    back = read_image(tmp_path / f"a{suffix}").grid

    np.testing.assert_allclose(back.in_unit(unit).spacing, grid.spacing, rtol=1e-6)


def test_a_nifti_without_orientation_stays_without(tmp_path):
    grid = Grid((4, 5, 6), (3.0, 0.5, 0.25), Unit.MM)
    write_image(tmp_path / "a.nii.gz", Image(picture((4, 5, 6), np.uint8), grid, "ZYX"))
    assert read_image(tmp_path / "a.nii.gz").grid == grid


@pytest.mark.parametrize("suffix", [*CLINICAL, *TIFFS, ".png"])
@pytest.mark.parametrize(
    ("highest", "dtype"),
    [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)],
)
def test_labels_take_the_narrowest_type_that_holds_them(tmp_path, suffix, highest, dtype):
    labels = np.zeros((5, 6), np.int64)
    labels[2, 3] = highest
    grid = Grid((5, 6), (1.0, 1.0), Unit.MM)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png" and highest > 65535:
        with pytest.raises(MedsegError, match=r"a\.png: PNG holds grey or RGB of 8 or 16 bits"):
            write_labels(path, labels, grid)
        assert list(tmp_path.iterdir()) == []
        return
    write_labels(path, labels, grid)
    back = read_labels(path)
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, labels)


def test_labels_are_written_on_the_grid_of_their_image(tmp_path):
    image = Image(picture((4, 5, 6), np.int16), volume_grid(), "ZYX")
    write_image(tmp_path / "image.nii.gz", image)
    image = read_image(tmp_path / "image.nii.gz")
    write_labels(tmp_path / "labels.nii.gz", np.ones((4, 5, 6), bool), image)

    assert read_labels(tmp_path / "labels.nii.gz").grid == image.grid
    with pytest.raises(ValueError, match=r"labels of \(4, 5, 5\) on a grid of \(4, 5, 6\)"):
        write_labels(tmp_path / "labels.nii.gz", np.ones((4, 5, 5), np.uint8), image)


@pytest.mark.parametrize("suffix", CLINICAL)
def test_an_unknown_pixel_size_is_not_written_as_millimetres(tmp_path, suffix):
    image = Image(picture((4, 5, 6), np.uint8), Grid((4, 5, 6), (1.0, 1.0, 1.0)), "ZYX")
    with pytest.raises(MedsegError, match="pixel size of this image is not known"):
        write_image(tmp_path / f"a{suffix}", image)
    assert list(tmp_path.iterdir()) == []


def test_the_same_image_gives_the_same_file(tmp_path):
    image = Image(picture((4, 5, 6), np.uint8), volume_grid(), "ZYX")
    for suffix in (".nii.gz", ".ome.tif", ".nrrd"):
        write_image(tmp_path / f"a{suffix}", image)
        write_image(tmp_path / f"b{suffix}", image)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".png", ".tif"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    grid = Grid((5, 6), (1.0, 1.0), Unit.MM)
    write_labels(path, np.ones((5, 6), np.uint8), grid)
    before = path.read_bytes()

    def half(target, image):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(WRITERS, suffix, half)
    with pytest.raises(MedsegError, match="cannot be written: No space left on device"):
        write_labels(path, np.full((5, 6), 2, np.uint8), grid)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_names_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"text")
    image = Image(picture((5, 6), np.uint8), Grid((5, 6), (1.0, 1.0)), "YX")
    with pytest.raises(
        MedsegError, match=r"a\.xyz: images of this kind are not read here\n.*\.mha"
    ):
        read_image(tmp_path / "a.xyz")
    with pytest.raises(MedsegError, match="are not written here"):
        write_image(tmp_path / "a.jpg", image)
    with pytest.raises(MedsegError, match="there is no folder"):
        write_image(tmp_path / "none" / "a.png", image)
    with pytest.raises(MedsegError, match="there is no such file"):
        read_image(tmp_path / "b.png")
