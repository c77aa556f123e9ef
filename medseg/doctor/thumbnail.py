"""A small picture of a case with its borders, so that a person sees what was read."""

import io
from typing import Literal

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from medseg.data import LabelMap
from medseg.doctor.pieces import Labels
from medseg.evaluation.overlay import HALO, YELLOW, contours
from medseg.evaluation.views import View, report_case, views
from medseg.images import Image

SIDE = 240
RED = "#FF4D3D"
_FINE = 2  # lines are drawn this many times larger, and shrunk


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
    picture = Picture.fromarray(view.grey).resize(size, Picture.Resampling.BILINEAR).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    step = max(1, max(rows, columns) // (SIDE * _FINE))
    for labels, colour in ((reference, YELLOW), (undeclared, RED)):
        stretch = step * scale * np.array([1.0, view.aspect])
        lines = [
            ((line[:, ::-1] + 0.5) * stretch).ravel().tolist()
            for line in contours(labels[::step, ::step])
        ]
        for width, ink in ((5, HALO), (3, colour)):
            for line in lines:
                canvas.line(line, fill=ink, width=width)
    picture = picture.resize((max(1, size[0] // _FINE), max(1, size[1] // _FINE)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, subsampling=0)
    return file.getvalue()
