"""A small picture of a case with its borders, so that a person sees what was read."""

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageColor
from scipy import ndimage

from medseg.data import LabelMap
from medseg.doctor.pieces import Labels
from medseg.evaluation.overlay import HALO, YELLOW
from medseg.evaluation.views import View, report_case, views
from medseg.images import Image

SIDE = 240
RED = "#FF4D3D"
_FINE = 2  # borders are drawn this many times larger, and shrunk


def thumbnail(
    case: str,
    image: Image,
    drawn: Image | None,
    labels: LabelMap,
    kind: Literal["semantic", "instance"],
) -> bytes:
    """Return a picture of at most ``SIDE`` pixels: borders yellow, undeclared values red.

    Of a volume it is the slice that holds most of what is drawn.

    Args:
        case: Name of the case.
        image: The image.
        drawn: Its labels; None, or on other voxels than the image, for a picture without borders.
        labels: The structures.
        kind: Whether labels are classes or numbers of objects.

    Returns:
        A JPEG file.
    """
    shape = image.grid.shape
    undeclared = len(labels.names)
    reference: Labels = np.zeros(shape, np.int64)
    if drawn is not None and drawn.grid.shape == shape:
        reference = drawn.array.astype(np.int64) if kind == "instance" else _classes(drawn, labels)
    shown = report_case(
        case, image.channels_first, reference, None, image.grid, channels=image.channels
    )
    view = views(shown, 1)[0][0]
    red = np.zeros(view.grey.shape, bool) if kind == "instance" else view.reference == undeclared
    return _draw(view, np.where(red, 0, view.reference), red.astype(np.int64))


def _classes(drawn: Image, labels: LabelMap) -> Labels:
    """Return class indices; ignored voxels as background, undeclared values as one class more."""
    classes = np.full(drawn.array.shape, len(labels.names), np.int64)
    for index, values in enumerate(labels.values.values()):
        classes[np.isin(drawn.array, values)] = index
    if labels.ignore is not None:
        classes[drawn.array == labels.ignore] = 0
    return classes


def _draw(view: View, reference: Labels, undeclared: Labels) -> bytes:
    rows, columns = view.grey.shape
    scale = SIDE * _FINE / max(rows * view.aspect, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * view.aspect * scale)))
    picture = Picture.fromarray(view.grey).resize(size, Picture.Resampling.BILINEAR)
    pixels = np.asarray(picture.convert("RGB")).copy()
    height, width = size[::-1]
    nearest = np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)
    for labels, colour in ((reference, YELLOW), (undeclared, RED)):
        seam = _seams(labels[nearest])
        for thick, ink in ((5, HALO), (3, colour)):
            pixels[ndimage.maximum_filter(seam, thick)] = ImageColor.getrgb(ink)
    shrunk = max(1, width // _FINE), max(1, height // _FINE)
    drawn = Picture.fromarray(pixels).resize(shrunk, Picture.Resampling.BOX)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=85, subsampling=0)
    return file.getvalue()


def _seams(labels: Labels) -> NDArray[np.bool_]:
    """Return the pixels above or left of which another label begins."""
    seam = np.zeros(labels.shape, bool)
    seam[1:] |= labels[1:] != labels[:-1]
    seam[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return seam
