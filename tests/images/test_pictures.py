"""PNG, BMP and JPEG: colours, palettes, transparency."""

import numpy as np
import pytest
from PIL import Image as Pillow

from medseg.errors import MedsegError
from medseg.images import read_image, read_labels

COLOURS = np.random.default_rng(1).integers(0, 255, (5, 6, 3), dtype=np.uint8)


def test_a_palette_is_colours_in_an_image_and_indices_in_labels(tmp_path):
    picture = Pillow.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.axes, image.channels) == ("CYX", ("red", "green", "blue"))
    assert image.array[:, 0].T.tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    assert read_labels(tmp_path / "a.png").array.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_transparency_is_dropped_and_varying_refused(tmp_path, channels):
    alpha = np.full((5, 6, 1), 255, np.uint8)
    Pillow.fromarray(np.concatenate([COLOURS[..., :channels], alpha], -1)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").channels_first, np.moveaxis(COLOURS, -1, 0)[:channels]
    )
    alpha[0, 0] = 0
    Pillow.fromarray(np.concatenate([COLOURS[..., :channels], alpha], -1)).save(tmp_path / "a.png")
    with pytest.raises(MedsegError, match=r"transparency varies \(0 to 255\)"):
        read_image(tmp_path / "a.png")


def test_grey_stored_as_colour_is_grey_where_asked_for(tmp_path):
    grey = COLOURS[..., 0]
    Pillow.fromarray(np.repeat(grey[..., None], 3, -1)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").axes == "CYX"
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", axes="YX").array, grey)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png").array, grey)
    Pillow.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(MedsegError, match="not YX"):
        read_image(tmp_path / "a.png", axes="YX")


def test_one_bit_becomes_0_and_1(tmp_path):
    mask = COLOURS[..., 0] > 100
    Pillow.fromarray(mask).save(tmp_path / "a.png")
    back = read_labels(tmp_path / "a.png").array
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, mask)


def test_jpeg_is_an_image_but_no_labels(tmp_path):
    Pillow.fromarray(COLOURS).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").axes == "CYX"
    with pytest.raises(MedsegError, match="JPEG changes pixel values"):
        read_labels(tmp_path / "a.jpg")


def test_a_picture_to_be_turned_is_refused(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(MedsegError, match="EXIF orientation 6"):
        read_image(tmp_path / "a.jpg")


def test_an_animated_png_is_refused(tmp_path):
    frames = [Pillow.fromarray(COLOURS), Pillow.fromarray(255 - COLOURS)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(MedsegError, match="holds 2 pictures"):
        read_image(tmp_path / "a.png")
