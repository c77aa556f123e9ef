"""PNG, BMP and JPEG through Pillow; two-dimensional, without a pixel size."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader, writer
from medseg.images.image import Image
from medseg.images.trust import check_length, check_size, decoding, first_bytes

RGB = ("red", "green", "blue")
_EXIF_ORIENTATION = 0x0112
_GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
_STARTS = (b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff")


@reader(".png", ".bmp")
def read_raster(path: Path, stated: Stated) -> Image:
    """Read a picture as YX, or as CYX with the channels red, green, blue.

    A palette gives colours for an image and its indices for labels.

    Raises:
        MedsegError: The file is damaged, animated, or its transparency carries something.
    """
    array = _pixels(path, stated.labels)
    letters = "YXC" if array.ndim == 3 else "YX"
    array, axes = arrange(path, array, letters, stated.axes)
    shape = array.shape[axes.startswith("C") :]
    return Image(array, Grid(shape, (1.0, 1.0)), axes, RGB if axes == "CYX" else ())


@reader(".jpg", ".jpeg")
def read_jpeg(path: Path, stated: Stated) -> Image:
    """Read a photograph as :func:`read_raster` does; labels are refused.

    Raises:
        MedsegError: As :func:`read_raster`, or the file is meant to hold labels.
    """
    if stated.labels:
        raise MedsegError(
            f"{path}: JPEG changes pixel values, so it cannot hold labels\n"
            f"  save the labels again from where they were drawn, as PNG or TIFF"
        )
    return read_raster(path, stated)


def _pixels(path: Path, labels: bool) -> NDArray[Any]:
    from PIL import Image as Pillow

    with path.open("rb") as file:
        head = file.read(32)
    if not head.startswith(_STARTS):
        raise MedsegError(
            f"{path}: not a PNG, BMP or JPEG file; it starts with {first_bytes(path)}\n"
            f"  rename it to what it is, or copy the true file again from its origin"
        )
    if head.startswith(_STARTS[0]):
        _check_png(path, head)
    with decoding(path, "a picture"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        with Pillow.open(path) as picture:
            _check_plain(path, picture)
            picture.load()
            if head.startswith(_STARTS[0]) and head[24] == 16 and head[25] in (2, 4, 6):
                return _sixteen_bit_colour(path, head[25])
            return _colours(path, picture, labels)


def _check_png(path: Path, head: bytes) -> None:
    """Check the sides, and the checksum of every chunk to the last, which Pillow may skip.

    Raises:
        MedsegError: The picture is too large, damaged, or cut off.
    """
    width, height = struct.unpack(">2I", head[16:24].ljust(8, b"\0"))
    check_size(path, (height, width), 8)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(8)
        kind = b""
        while kind != b"IEND":
            start = file.read(8)
            length = int.from_bytes(start[:4], "big")
            end = file.tell() + length + 4
            check_length(path, min(size, end), end)
            kind, data = start[4:], file.read(length)
            if file.read(4) != zlib.crc32(kind + data).to_bytes(4, "big"):
                raise MedsegError(
                    f"{path}: the data are damaged or cut off (wrong checksum in "
                    f"{kind.decode('latin-1')})\n"
                    f"  copy it again from its origin, or leave it out"
                )


def _check_plain(path: Path, picture: Any) -> None:
    if getattr(picture, "n_frames", 1) > 1:
        raise MedsegError(
            f"{path}: the file holds {picture.n_frames} pictures; one image is expected\n"
            f"  save each as a file of its own"
        )
    turned = picture.getexif().get(_EXIF_ORIENTATION, 1)
    if turned not in (0, 1):
        raise MedsegError(
            f"{path}: the camera noted that the picture must be turned (EXIF orientation "
            f"{turned}), and programs differ in whether they do\n"
            f"  save it turned, without that note, so that labels drawn on it fit"
        )


def _colours(path: Path, picture: Any, labels: bool) -> NDArray[Any]:
    mode = picture.mode
    if mode in _GREY or (mode == "P" and labels):
        return np.asarray(picture)
    if mode in ("P", "PA"):
        clear = "transparency" in picture.info or mode == "PA"
        mode = "RGBA" if clear else "RGB"
        picture = picture.convert(mode)
    if mode not in ("LA", "RGB", "RGBA"):
        raise MedsegError(
            f"{path}: the colours are stored as {mode}, which is not read\n  save it as grey or RGB"
        )
    pixels = np.moveaxis(np.asarray(picture), -1, 0)
    return _channels_last(drop_alpha(path, pixels, mode.endswith("A")))


def _sixteen_bit_colour(path: Path, kind: int) -> NDArray[Any]:
    """Decode what Pillow would reduce to 8 bits."""
    import imagecodecs

    pixels = np.moveaxis(imagecodecs.png_decode(path.read_bytes()), -1, 0)
    return _channels_last(drop_alpha(path, pixels, kind in (4, 6)))


def _channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)


def drop_alpha(path: Path, channels: NDArray[Any], has_alpha: bool) -> NDArray[Any]:
    """Return the channels without the last, if it is a transparency that is everywhere the same.

    Raises:
        MedsegError: The transparency varies, so it means something that would be lost.
    """
    if not has_alpha:
        return channels
    alpha = channels[-1]
    if (alpha != alpha.flat[0]).any():
        raise MedsegError(
            f"{path}: the transparency varies ({alpha.min()} to {alpha.max()}), so it carries "
            f"something that would be lost\n  save the image without transparency (flattened), "
            f"or its transparency as an image of its own"
        )
    return channels[:-1]


@writer(".png", ".bmp")
def write_raster(path: Path, image: Image) -> None:
    """Write 8-bit (PNG also 16-bit) grey or RGB; a pixel size is not kept.

    Raises:
        MedsegError: The format cannot hold this type, or an image of these axes.
    """
    import imagecodecs
    from PIL import Image as Pillow

    array = image.array
    png = path.suffix.lower() == ".png"
    allowed = (np.uint8, np.uint16) if png else (np.uint8,)
    three = image.axes == "CYX" and len(array) == 3
    if array.dtype not in allowed or not (three or image.axes == "YX"):
        raise MedsegError(
            f"{path}: {path.suffix[1:].upper()} holds grey or RGB of 8{' or 16' if png else ''} "
            f"bits, not {array.dtype} with the axes {image.axes} {array.shape}\n"
            f"  write .ome.tif instead"
        )
    pixels = np.ascontiguousarray(np.moveaxis(array, 0, -1)) if three else array
    if png:
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    else:
        Pillow.fromarray(pixels).save(path)
