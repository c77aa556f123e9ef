"""Borders drawn over the image: the ground truth in yellow, the prediction in blue.

Yellow and blue stay apart for people who do not see red or green, and the prediction is dashed,
so that the two stay apart in a black-and-white print, and both show where they run together.
"""

import io
import math
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from medseg.evaluation.cases import Labels
from medseg.evaluation.views import ReportCase, View, padded_box, views

YELLOW = "#FFD700"
BLUE = "#2CB1FF"
HALO = "#000000"
DASHES: Any = (0, (4, 3))

Line = NDArray[np.float64]


def contours(labels: Labels) -> list[Line]:
    """Return the borders of every label as lines of (row, column) points.

    The lines run between the pixels, half-way between an inner and an outer pixel's centre;
    (0, 0) is the centre of the first pixel. Every label has its own closed lines, so two touching
    cells are seen apart.

    Args:
        labels: Label image, (rows, columns); 0 is background.
    """
    # find_objects lists every number up to the largest label, so labels are renumbered first.
    found, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    if found[0] != 0:
        index = index + 1
    lines: list[Line] = []
    for number, box in enumerate(ndimage.find_objects(index), start=1):
        mask = np.pad(index[box] == number, 1).astype(np.float32)
        corner = np.array([box[0].start, box[1].start]) - 1
        lines.extend(line + corner for line in _level(mask))
    return lines


def _level(mask: NDArray[np.float32]) -> list[Line]:
    lines: list[Line] = find_contours(mask, 0.5)  # type: ignore[no-untyped-call]
    return lines


def bar_length(width: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten) of about a quarter of a width."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width / 4)


def overlay_png(case: ReportCase, *, slices: int = 6, inches: float = 3.6) -> bytes:
    """Return a picture of a case with both borders, as PNG.

    Args:
        case: The images.
        slices: Slices of a volume, spread over the structures; the one with most disagreement is
            among them and is marked.
        inches: Width of each slice at 150 dots an inch.
    """
    shown, first = views(case, slices)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    frame = _common_frame(shown)
    height = (frame[0].stop - frame[0].start) * shown[0].aspect / (frame[1].stop - frame[1].start)
    size = (columns * inches, rows * (inches * height + 0.25) + 0.35)
    figure = Figure(figsize=size, dpi=150, facecolor="black")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (axis, view) in enumerate(zip(axes.flat, shown, strict=False)):
        _draw(axis, view, frame if len(shown) > 2 else None)
        worst = "  (most disagreement)" if number == first and len(shown) > 1 else ""
        axis.set_title(f"{case.case}  {view.caption}{worst}", color="white", fontsize=8, pad=3)
    handles = [
        Line2D([], [], color=YELLOW, label="ground truth"),
        Line2D([], [], color=BLUE, linestyle=DASHES, label="prediction"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=2, fontsize=8, labelcolor="white",
                  facecolor="black", edgecolor="none")  # fmt: skip
    top, bottom = 1 - 0.25 / size[1], 0.35 / size[1]
    figure.subplots_adjust(0.01, bottom, 0.99, top, 0.02, 0.25 / (inches * height))
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def _common_frame(shown: list[View]) -> tuple[slice, ...]:
    """Return the part of the slices that holds the borders of all of them."""
    shape = shown[0].grey.shape
    drawn = np.zeros(shape, bool)
    for view in shown:
        if view.grey.shape == shape:
            drawn |= view.drawn
    return padded_box(drawn) or (slice(0, shape[0]), slice(0, shape[1]))


def _draw(axis: Any, view: View, frame: tuple[slice, ...] | None) -> None:
    axis.imshow(view.grey, cmap="gray", vmin=0, vmax=255, aspect=view.aspect)
    drawn = [line[:, ::-1] for line in contours(view.reference)]
    predicted = []
    if view.prediction is not None:
        predicted = [line[:, ::-1] for line in contours(view.prediction)]
    for lines, colour, width, dashes in (
        (drawn + predicted, HALO, 2.4, "solid"),
        (drawn, YELLOW, 1.4, "solid"),
        (predicted, BLUE, 0.9, DASHES),
    ):
        axis.add_collection(
            LineCollection(
                lines,
                colors=colour,
                linewidths=width,
                linestyles=dashes,
                alpha=0.5 if colour == HALO else None,
            )
        )
    rows, columns = frame or tuple(slice(0, length) for length in view.grey.shape)
    axis.set_xlim(columns.start - 0.5, columns.stop - 0.5)
    axis.set_ylim(rows.stop - 0.5, rows.start - 0.5)
    places = [(0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03)]
    for side, (x, y) in zip(view.sides, places, strict=False):
        axis.text(x, y, side, color="white", fontsize=8, ha="center", va="center",
                  transform=axis.transAxes)  # fmt: skip
