"""The slices of a case as they stand in a report: a small grey picture and two vector borders.

The borders are paths, not pixels: they stay thin and sharp at any size, and can be switched off.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from medseg.evaluation.borders import ALONE, COLOURS, BorderMap
from medseg.evaluation.cases import Labels
from medseg.evaluation.overlay import Line, bar_length, contours
from medseg.evaluation.views import ReportCase, View, padded_box, turn_of, views
from medseg.evaluation.wording import unit_name
from medseg.geometry import Unit

SLICES = 24
CLOSE = 0.7
_SMALL = 256 * 256
_PROJECTED = 192

Frame = tuple[float, float, float, float]


@dataclass(frozen=True)
class Bar:
    """A scale bar: its share of the picture's width in per cent, and its length."""

    width: float
    text: str


@dataclass(frozen=True)
class Slice:
    """One slice in a report. Frames are (left, top, width, height) in columns of the picture.

    Args:
        picture: The grey picture as a ``data:`` address.
        columns: Its width in pixels.
        rows: Its height in pixels.
        aspect: Height of a pixel over its width.
        reference: Path of the ground-truth border, in half pixels.
        prediction: Path of the predicted border, in half pixels.
        other: Path of the border of a second prediction.
        far: Paths of both borders by class of distance, each with its class; see
            :mod:`medseg.evaluation.borders`.
        caption: Which slice this is.
        sides: What lies at the left, right, top and bottom.
        whole: Frame of the whole picture.
        close: Frame around the borders; None where it would show hardly less.
        whole_bar: Scale bar of the whole picture; None without a known pixel size.
        close_bar: Scale bar of the close-up.
        starts_close: Whether the close-up is shown first: it holds all borders.
    """

    picture: str
    columns: int
    rows: int
    aspect: float
    reference: str
    prediction: str
    other: str
    far: tuple[tuple[int, str], ...]
    caption: str
    sides: tuple[str, ...]
    whole: Frame
    close: Frame | None
    whole_bar: Bar | None
    close_bar: Bar | None
    starts_close: bool

    @property
    def size(self) -> int:
        """Characters that the slice adds to a report."""
        paths = (self.reference, self.prediction, self.other, *(path for _, path in self.far))
        return len(self.picture) + sum(len(path) for path in paths)


def slices(
    case: ReportCase, budget: int, borders: BorderMap | None = None
) -> tuple[list[Slice], int]:
    """Return the slices of a case, and which to show first.

    Args:
        case: The images.
        budget: Characters that they may take together; the slice with most disagreement is
            there in any case.
        borders: How far the borders are from each other, to be shown on the slices.
    """
    far = () if borders is None else (borders.reference, borders.prediction)
    shown, first = views(case, SLICES, far)
    close = _close_frames(shown)
    key = _slice(shown[first], close[first])
    kept = _spread(len(shown), first, max(1, budget // max(1, key.size)))
    made = [key if i == first else _slice(shown[i], close[i]) for i in kept]
    return made, kept.index(first)


def _spread(number: int, first: int, limit: int) -> list[int]:
    if number <= limit:
        return list(range(number))
    if limit == 1:
        return [first]
    kept = np.linspace(0, number - 1, limit).round().astype(int)
    kept[np.argmin(np.abs(kept - first))] = first
    return [int(index) for index in kept]


def _slice(view: View, close: Frame | None) -> Slice:
    rows, columns = view.grey.shape
    whole = (0.0, 0.0, float(columns), rows * view.aspect)
    return Slice(
        picture=_encode(view),
        columns=columns,
        rows=rows,
        aspect=view.aspect,
        reference=border_path(view.reference),
        prediction="" if view.prediction is None else border_path(view.prediction),
        other="" if view.other is None else border_path(view.other),
        far=_far_paths(view),
        caption=view.caption,
        sides=view.sides,
        whole=whole,
        close=close,
        whole_bar=_bar(whole, view),
        close_bar=_bar(close, view) if close else None,
        starts_close=close is not None and view.detail is None,
    )


def border_path(labels: Labels) -> str:
    """Return the borders of a label image as one SVG path, in half pixels from the outer corner.

    Border points lie half-way between pixels, so half pixels are exact and short to write.
    """
    return "".join(_line_path(line) for line in contours(labels))


def _far_paths(view: View) -> tuple[tuple[int, str], ...]:
    """Return both borders as paths by their class of distance, near ones first."""
    paths: dict[int, list[str]] = {}
    for labels, far in zip((view.reference, view.prediction), view.far, strict=False):
        for line in () if labels is None else contours(labels):
            # A point of the border lies between two pixels, or beyond the image's edge.
            ends = [
                tuple(np.clip(side(line).astype(int), 0, np.array(far.shape) - 1).T)
                for side in (np.floor, np.ceil)
            ]
            classes = np.maximum(far[ends[0]], far[ends[1]])
            steps = np.maximum(classes[1:], classes[:-1])
            borders = np.flatnonzero(np.diff(steps)) + 1
            for first, last in zip([0, *borders], [*borders, len(steps)], strict=True):
                if last > first and steps[first]:
                    part = _line_path(line[first : last + 1], closed=False)
                    paths.setdefault(int(steps[first]), []).append(part)
    return tuple((number, "".join(parts)) for number, parts in sorted(paths.items()))


def _line_path(line: Line, *, closed: bool = True) -> str:
    points = np.rint(line[:, ::-1] * 2).astype(int) + 1
    steps = np.diff(points, axis=0)
    # Steps in the same direction become one.
    starts = np.flatnonzero(np.r_[True, (steps[1:] != steps[:-1]).any(axis=1)])
    merged = np.add.reduceat(steps, starts, axis=0)
    kept = merged[:-1] if closed else merged
    numbers = " ".join(f"{x} {y}" for x, y in kept.tolist())
    return f"M{points[0, 0]} {points[0, 1]}l{numbers.replace(' -', '-')}{'z' if closed else ''}"


def _encode(view: View) -> str:
    picture = Picture.fromarray(view.grey)
    file = io.BytesIO()
    if view.grey.size <= _SMALL:
        picture.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(file, "JPEG", quality=82)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _close_frames(shown: Sequence[View]) -> list[Frame | None]:
    """Return the part of each view that holds the borders; slices of a volume share one."""
    drawn = [view.drawn for view in shown]
    if len({view.grey.shape for view in shown}) == 1:
        together = np.logical_or.reduce(drawn)
        drawn = [together] * len(shown)
    return [
        _close(view, view.detail or padded_box(mask))
        for view, mask in zip(shown, drawn, strict=True)
    ]


def _close(view: View, box: tuple[slice, ...] | None) -> Frame | None:
    """Return a frame of the whole picture's proportions around a box."""
    if box is None:
        return None
    rows, columns = view.grey.shape
    height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
    share = max(height / rows, width / columns)
    if share > CLOSE:
        return None
    tall, wide = share * rows, share * columns
    top = min(max(0.0, (box[0].start + box[0].stop - tall) / 2), rows - tall)
    left = min(max(0.0, (box[1].start + box[1].stop - wide) / 2), columns - wide)
    return left, top * view.aspect, wide, tall * view.aspect


@dataclass(frozen=True)
class Projection:
    """The borders of a volume seen from one side: at each place the farthest of what lies behind.

    Args:
        picture: The picture as a ``data:`` address, clear where there is no border.
        ratio: Its width over its height.
        sides: What lies at the left, right, top and bottom; empty if unknown.
    """

    picture: str
    ratio: float
    sides: tuple[str, ...]


def projections(case: ReportCase, borders: BorderMap) -> tuple[Projection, ...]:
    """Return a volume's borders by their distance, seen along each of its axes; none if flat."""
    if case.grid.spatial_dims != 3:
        return ()
    both = np.maximum(borders.reference, borders.prediction)
    box = padded_box(both > 0)
    if box is None:
        return ()
    both = both[box]
    made = []
    for axis in range(3):
        turn = turn_of(case.grid, axis)
        seen = turn.apply(both.max(axis=axis))
        step = -(-max(seen.shape) // _PROJECTED)
        spare = [(0, -length % step) for length in seen.shape]
        padded = np.pad(seen, spare)
        rows, columns = (length // step for length in padded.shape)
        small = padded.reshape(rows, step, columns, step).max(axis=(1, 3))
        ratio = columns * turn.spacing[1] / (rows * turn.spacing[0])
        made.append(Projection(_palette_png(small), round(ratio, 4), turn.sides))
    return tuple(made)


def _palette_png(classes: NDArray[np.uint8]) -> str:
    picture = Picture.fromarray(classes, "P")
    colours = ("#000000", *COLOURS, ALONE)
    picture.putpalette([value for colour in colours for value in bytes.fromhex(colour[1:])])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _bar(frame: Frame, view: View) -> Bar | None:
    if view.unit is Unit.PX:
        return None
    width = frame[2] * view.spacing[1]
    length = bar_length(width)
    return Bar(100 * length / width, f"{length:g} {unit_name(view.unit)}")
