"""What is shown of a case: which slices, which way up, at which contrast.

Nothing here draws; :mod:`medseg.evaluation.overlay` turns views into pictures, and
:mod:`medseg.evaluation.figures` into the slices of a report.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.evaluation.cases import Kind, Labels, instance_pair, judged_voxels
from medseg.geometry import Grid, Unit

LARGEST_SIDE = 1024
DETAIL_SIDE = 384
MARGIN = 0.35
_SAMPLED = 2_000_000
_AROUND = 4
_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
# Seen from the feet (axial) or from the front (coronal), the patient's left is on the right of
# the picture; a sagittal slice looks to its left. Key: world axis that the slices stack along.
_DOWN_AND_RIGHT = {0: ("I", "P"), 1: ("I", "L"), 2: ("P", "L")}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True, eq=False)
class ReportCase:
    """The images of one case, for pictures.

    Args:
        case: Name of the case, as in its records.
        image: One channel, (z, y, x) or (y, x).
        reference: Label image as drawn, of the same shape.
        prediction: Label image to be judged; None if there is none.
        grid: The grid on which all lie. If it states a direction, slices are shown the way
            radiologists hold them; else as they are stored.
        ignore: Label of voxels that the reference does not judge; nothing is drawn there.
        window: Grey values shown as black and white; taken around the structures if not given.
        other: A second prediction to show beside the first, in a comparison.

    Raises:
        ValueError: An array does not lie on the grid.
    """

    case: str
    image: NDArray[Any]
    reference: Labels
    prediction: Labels | None
    grid: Grid
    ignore: int | None = None
    window: tuple[float, float] | None = None
    other: Labels | None = None

    def __post_init__(self) -> None:
        arrays = {
            "image": self.image,
            "reference": self.reference,
            "prediction": self.prediction,
            "second prediction": self.other,
        }
        for which, array in arrays.items():
            if array is not None and array.shape != self.grid.shape:
                raise ValueError(
                    f"{self.case}: {which} of {array.shape} voxels on a grid of "
                    f"{self.grid.shape}; give one channel, without a channel axis"
                )


def report_case(
    case: str,
    image: NDArray[Any],
    reference: Labels,
    prediction: Labels | None,
    grid: Grid,
    *,
    channels: Sequence[str] = (),
    kind: Kind = "semantic",
    ignore: int | None = None,
    other: Labels | None = None,
) -> ReportCase:
    """Return the images of a case as a report shows them.

    Args:
        case: Name of the case.
        image: All its channels, (channels, *spatial). The first is shown, of a colour picture
            its brightness.
        reference: Label image as drawn.
        prediction: Label image to be judged; None if there is none.
        grid: The grid on which all lie.
        channels: Names of the channels.
        kind: Where labels are objects (``instance``), found ones get the number of their reference,
            so that pictures can compare them.
        ignore: Label of voxels that the reference does not judge.
        other: A second prediction, likewise.
    """

    def as_drawn(labels: Labels | None) -> Labels | None:
        if labels is None or kind == "semantic":
            return labels
        judged, _ = judged_voxels(reference, ignore)
        return instance_pair(reference, labels, judged, grid).prediction_in_reference_ids()

    grey = image[0]
    if tuple(name.lower() for name in channels) == ("red", "green", "blue"):
        grey = np.tensordot(np.array(_BRIGHTNESS, np.float32), image, axes=1)
    return ReportCase(
        case, grey, reference, as_drawn(prediction), grid, ignore=ignore, other=as_drawn(other)
    )


@dataclass(frozen=True, eq=False)
class View:
    """One slice as it is shown: row 0 on top, column 0 on the left.

    Args:
        grey: The image, (rows, columns), 0 to 255.
        reference: Labels as drawn.
        prediction: Predicted labels; None if there are none.
        spacing: Height and width of a pixel.
        unit: Unit of the spacing.
        caption: Which slice or part this is.
        sides: What lies at the left, right, top and bottom (R, L, A, P, S, I); empty if unknown.
        detail: Part of the view that is worth a closer look, if not that around all borders.
        other: Labels of a second prediction; None if there are none.
        far: Classes of distance of the ground-truth and of the predicted border, in the pixels
            that touch them (see :mod:`medseg.evaluation.borders`); empty if unknown.
    """

    grey: NDArray[np.uint8]
    reference: Labels
    prediction: Labels | None
    spacing: tuple[float, float]
    unit: Unit
    caption: str
    sides: tuple[str, ...] = ()
    detail: tuple[slice, slice] | None = None
    other: Labels | None = None
    far: tuple[NDArray[np.uint8], ...] = ()

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.spacing[0] / self.spacing[1]

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Pixels of any structure, drawn or predicted."""
        return _either(self)


def views(
    case: ReportCase, limit: int = 24, far: tuple[NDArray[np.uint8], ...] = ()
) -> tuple[list[View], int]:
    """Return what to show of a case, and the position of the view to show first.

    A volume is shown slice by slice, first where most voxels disagree. A large flat image is
    shown whole and, first, in full detail where most of the disagreement is.

    Args:
        case: The images.
        limit: Largest number of slices of a volume.
        far: Classes of distance of both borders, each (*spatial), to be shown with the images.
    """
    case = _judged(case)
    low, high = case.window or _window(case)
    grey = np.clip((case.image.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    grey = np.nan_to_num(grey)  # voxels without a number, outside a scan's field, are black
    case = replace(case, image=grey.astype(np.uint8))
    if case.grid.spatial_dims == 3:
        return _slices(case, limit, far)
    flat = _flat(case, far)
    return flat, len(flat) - 1


def _judged(case: ReportCase) -> ReportCase:
    if case.ignore is None:
        return case
    judged = case.reference != case.ignore
    prediction, other = (
        None if labels is None else labels * judged for labels in (case.prediction, case.other)
    )
    return replace(case, reference=case.reference * judged, prediction=prediction, other=other)


def _either(shown: ReportCase | View) -> NDArray[np.bool_]:
    drawn = shown.reference > 0
    return drawn if shown.prediction is None else drawn | (shown.prediction > 0)


def _wrong(case: ReportCase) -> NDArray[np.bool_]:
    if case.prediction is None:
        return case.reference > 0
    wrong: NDArray[np.bool_] = case.reference != case.prediction
    return wrong


def _window(case: ReportCase) -> tuple[float, float]:
    """Return the grey values to show as black and white: those of the structures and around them.

    The whole image would not do: between air and bone, an organ's border is one grey.
    """
    drawn = _either(case)
    box = padded_box(drawn) or (slice(None),) * drawn.ndim
    step = max(1, round((drawn[box].size / _SAMPLED) ** (1 / drawn.ndim)))
    thin = (slice(None, None, step),) * drawn.ndim
    near, values = drawn[box][thin], case.image[box][thin].astype(np.float32)
    near = ndimage.binary_dilation(near, iterations=_AROUND) if near.any() else ~near
    values = values[near & np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    spare = 0.25 * (high - low) or 0.5
    lowest, highest = float(values.min()), float(values.max())
    return max(low - spare, lowest) - 1e-3, min(high + spare, highest) + 1e-3


def padded_box(drawn: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """Return the box around what is drawn, with a margin; None if nothing is."""
    box = []
    for axis, length in enumerate(drawn.shape):
        others = tuple(a for a in range(drawn.ndim) if a != axis)
        found = np.flatnonzero(drawn.any(axis=others))
        if not found.size:
            return None
        first, last = int(found[0]), int(found[-1]) + 1
        margin = max(4, round(MARGIN * (last - first)))
        box.append(slice(max(0, first - margin), min(length, last + margin)))
    return tuple(box)


@dataclass(frozen=True)
class Turn:
    """How slices along one axis are turned to be looked at.

    Args:
        transposed: Rows and columns change places, before any flip.
        flips: Whether rows and columns run backwards.
        spacing: Height and width of a pixel, after turning.
        sides: What lies at the left, right, top and bottom; empty if unknown.
    """

    transposed: bool
    flips: tuple[bool, bool]
    spacing: tuple[float, float]
    sides: tuple[str, ...]

    def apply(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a slice, turned."""
        plane = plane.T if self.transposed else plane
        return plane[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]


def turn_of(grid: Grid, axis: int) -> Turn:
    """Return how slices of a volume along an array axis are turned to be looked at."""
    rows, columns = (a for a in range(3) if a != axis)
    if grid.direction is None:
        return Turn(False, (False, False), (grid.spacing[rows], grid.spacing[columns]), ())
    world = _world_axes(grid)
    down, right = _DOWN_AND_RIGHT[world[axis]]
    transposed = _letter(grid, rows, world) not in (down, _OPPOSITE[down])
    if transposed:
        rows, columns = columns, rows
    return Turn(
        transposed,
        (_letter(grid, rows, world) != down, _letter(grid, columns, world) != right),
        (grid.spacing[rows], grid.spacing[columns]),
        (_OPPOSITE[right], right, _OPPOSITE[down], down),
    )


def _world_axes(grid: Grid) -> tuple[int, ...]:
    """Return the world axis (x, y, z as 0, 1, 2) that each array axis follows most."""
    along = np.abs(np.array(grid.direction))
    return max(permutations(range(3)), key=lambda p: sum(along[p[a], a] for a in range(3)))


def _letter(grid: Grid, axis: int, world: Sequence[int]) -> str:
    """Return where an array axis leads: R, L, A, P, S or I."""
    forwards = np.array(grid.direction)[world[axis], axis] > 0
    return ("RL", "AP", "SI")[world[axis]][0 if forwards else 1]


def slicing_axis(grid: Grid) -> int:
    """Return the array axis along which a volume is looked through.

    It is the axis with clearly the widest spacing, along which the slices were taken; else the
    one from feet to head; else the first.
    """
    widest = int(np.argmax(grid.spacing))
    if grid.spacing[widest] > 1.5 * min(grid.spacing):
        return widest
    return 0 if grid.direction is None else _world_axes(grid).index(2)


def choose_slices(
    held: NDArray[np.bool_], errors: NDArray[np.int64], limit: int
) -> tuple[list[int], int]:
    """Return the slices to show, and the one with most disagreement.

    Args:
        held: Which slices hold a structure, drawn or predicted.
        errors: Voxels that disagree in each slice.
        limit: Largest number of slices.
    """
    found = np.flatnonzero(held)
    if not found.size:
        return [len(held) // 2], len(held) // 2
    first, last = int(found[0]), int(found[-1])
    if last - first + 3 <= limit:  # room for a slice beyond each end
        first, last = max(0, first - 1), min(len(held) - 1, last + 1)
    worst = int(np.argmax(errors)) if errors.any() else int(found[len(found) // 2])
    chosen = np.unique(np.linspace(first, last, min(limit, last - first + 1)).round().astype(int))
    # The nearest of the evenly spread slices gives its place to the worst one.
    chosen[np.argmin(np.abs(chosen - worst))] = worst
    return [int(index) for index in chosen], worst


def _slices(
    case: ReportCase, limit: int, far: tuple[NDArray[np.uint8], ...]
) -> tuple[list[View], int]:
    axis = slicing_axis(case.grid)
    others = tuple(a for a in range(3) if a != axis)
    held = np.asarray(_either(case).any(axis=others))
    errors = np.asarray(_wrong(case).sum(axis=others))
    chosen, worst = choose_slices(held, errors, limit)
    turn = turn_of(case.grid, axis)

    def plane(volume: NDArray[Any], index: int) -> NDArray[Any]:
        return turn.apply(np.take(volume, index, axis=axis))

    def labels(volume: Labels | None, index: int) -> Labels | None:
        return None if volume is None else plane(volume, index)

    shown = [
        View(
            grey=plane(case.image, index),
            reference=plane(case.reference, index),
            prediction=labels(case.prediction, index),
            spacing=turn.spacing,
            unit=case.grid.unit,
            caption=f"slice {index + 1} of {case.grid.shape[axis]}",
            sides=turn.sides,
            other=labels(case.other, index),
            far=tuple(plane(classes, index) for classes in far),
        )
        for index in chosen
    ]
    return shown, chosen.index(worst)


def _flat(case: ReportCase, far: tuple[NDArray[np.uint8], ...]) -> list[View]:
    longest = max(case.grid.shape)
    step = -(-longest // LARGEST_SIDE)
    everything = slice(0, case.grid.shape[0]), slice(0, case.grid.shape[1])
    if step == 1:
        detail = _worst_window(_wrong(case), DETAIL_SIDE // 2) if longest > DETAIL_SIDE else None
        return [replace(_flat_view(case, everything, 1, "whole image", far), detail=detail)]
    part = _worst_window(_wrong(case), DETAIL_SIDE)
    (top, bottom), (left, right) = ((p.start, p.stop) for p in part)
    place = f"detail where most is wrong, x {left} to {right}, y {top} to {bottom} px"
    return [
        _flat_view(case, everything, step, "whole image", far),
        _flat_view(case, part, 1, place, far),
    ]


def _flat_view(
    case: ReportCase,
    part: tuple[slice, slice],
    step: int,
    caption: str,
    far: tuple[NDArray[np.uint8], ...],
) -> View:
    rows, columns = ((p.stop - p.start) // step for p in part)
    thin = tuple(slice(step // 2, length * step, step) for length in (rows, columns))

    def blocks(image: NDArray[Any]) -> NDArray[Any]:
        whole = image[part][: rows * step, : columns * step]
        return whole.reshape(rows, step, columns, step)

    def labels(image: Labels | None) -> Labels | None:
        return None if image is None else image[part][thin]

    return View(
        grey=blocks(case.image).mean(axis=(1, 3)).astype(np.uint8),
        reference=case.reference[part][thin],
        prediction=labels(case.prediction),
        spacing=(case.grid.spacing[0] * step, case.grid.spacing[1] * step),
        unit=case.grid.unit,
        caption=caption,
        other=labels(case.other),
        far=tuple(blocks(classes).max(axis=(1, 3)) for classes in far),
    )


def _worst_window(wrong: NDArray[np.bool_], side: int) -> tuple[slice, slice]:
    """Return the window, inside the image, around the place where most is wrong."""
    block = max(1, side // 4)
    rows, columns = (-(-length // block) for length in wrong.shape)
    spare = [(0, rows * block - wrong.shape[0]), (0, columns * block - wrong.shape[1])]
    blocks = np.pad(wrong, spare).reshape(rows, block, columns, block)
    counts = blocks.sum(axis=(1, 3))
    worst = np.unravel_index(np.argmax(counts), counts.shape)
    window = []
    for index, length in zip(worst, wrong.shape, strict=True):
        middle = int(index) * block + block // 2
        first = max(0, min(middle - side // 2, length - side))
        window.append(slice(first, min(length, first + side)))
    return window[0], window[1]
