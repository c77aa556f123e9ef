"""What a case shows beside its metrics: sizes, single objects, and bands around the border."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.errors import MedsegError
from medseg.evaluation.cases import Kind, Labels, instance_pair, judged_voxels, mask_of
from medseg.evaluation.records import Outcome, Record
from medseg.geometry import Grid, Length, Unit
from medseg.metrics import InstancePair, Trimap, instance_borders, trimap_curve
from medseg.metrics.masks import METRICS, image_diagonal

BAND_VOXELS = (1, 2, 4, 8, 16)
_OF_OBJECTS = ("iou", "assd", "hd95")


@dataclass(frozen=True)
class JudgedObject:
    """One object: a drawn one that was found or missed, or a predicted one that was invented.

    Args:
        reference_id: Its number in the reference; None if it was invented.
        predicted_id: Its number in the prediction; None if it was missed.
        size: Area or volume, in the unit of the grid: as drawn, or, of an invented one, predicted.
        iou: Overlap of the two; 0 for missed and invented ones.
        assd: Mean distance of their borders; None for missed and invented ones.
        hd95: 95 % of each border is nearer than this; None likewise.
    """

    reference_id: int | None
    predicted_id: int | None
    size: float
    iou: float
    assd: float | None
    hd95: float | None

    @property
    def status(self) -> Outcome:
        """Whether it was found, missed or invented, as records say it."""
        if self.reference_id is None:
            return "empty_reference"
        return "empty_prediction" if self.predicted_id is None else "ok"


@dataclass(frozen=True)
class CaseDetail:
    """What one case shows beside its metrics.

    Args:
        case: Name of the case.
        group: Its group.
        grid: Its grid.
        sizes: Area or volume of each structure as drawn, in the unit of the grid.
        bands: The trimap, narrowest band first; the last is the whole image (infinite width).
            Without a prediction nothing is right in any band.
        structure: What the objects are; empty where labels are classes.
        objects: The objects one by one; empty where labels are classes.
    """

    case: str
    group: str
    grid: Grid
    sizes: Mapping[str, float]
    bands: tuple[Trimap, ...]
    structure: str = ""
    objects: tuple[JudgedObject, ...] = ()


def band_widths(grid: Grid) -> tuple[Length, ...]:
    """Return the widths of bands around a border if none are asked for: 1 to 16 voxels.

    They are multiples of the finest spacing; the same lengths should serve all cases.
    """
    return tuple(Length(count * min(grid.spacing), grid.unit) for count in BAND_VOXELS)


def case_detail(
    case: str,
    group: str,
    reference: Labels,
    prediction: Labels | None,
    grid: Grid,
    structures: Mapping[str, tuple[int, ...]],
    *,
    kind: Kind = "semantic",
    ignore: int | None = None,
    widths: Sequence[Length] = (),
) -> CaseDetail:
    """Return what a case shows beside its metrics.

    Args:
        case: Name of the case.
        group: Its group.
        reference: Label image as drawn, (z, y, x) or (y, x).
        prediction: Label image to be judged, of the same shape; None if there is none.
        grid: The grid on which both lie.
        structures: The labels of each structure; where labels are objects, what they are.
        kind: Whether labels are classes or objects.
        ignore: Label of voxels that the reference does not judge.
        widths: Widths of the bands around the ground-truth border.

    Raises:
        MedsegError: A width has no meaning on the grid; names the case.
    """
    try:
        steps = sorted(grid.length(width) for width in widths)
    except ValueError as error:
        raise MedsegError(f"{case}: band around the border: {error}") from error
    judged, _ = judged_voxels(reference, ignore)
    voxel = math.prod(grid.spacing)
    if kind == "semantic":
        sizes = {
            name: float(np.count_nonzero(mask_of(reference, labels, judged))) * voxel
            for name, labels in structures.items()
        }
        bands = _bands(reference, prediction, judged, grid, steps)
        return CaseDetail(case, group, grid, sizes, bands)
    (structure,) = structures
    nothing = np.zeros_like(reference)
    pair = instance_pair(reference, nothing if prediction is None else prediction, judged, grid)
    objects = judged_objects(pair)
    size = sum(one.size for one in objects if one.reference_id is not None)
    matched = None if prediction is None else pair.prediction_in_reference_ids()
    bands = _bands(pair.reference_labels, matched, judged, grid, steps)
    return CaseDetail(case, group, grid, {structure: size}, bands, structure, objects)


def _bands(
    reference: Labels,
    prediction: Labels | None,
    judged: NDArray[np.bool_] | None,
    grid: Grid,
    widths: Sequence[float],
) -> tuple[Trimap, ...]:
    if not widths:
        return ()
    every = (*widths, math.inf)
    if prediction is None:
        return tuple(Trimap(width, 0, 0.0, 0.0, 0, 0.0, 0.0) for width in every)
    if judged is not None:
        reference, prediction = reference * judged, prediction * judged
    # A prediction that does not judge a voxel is wrong there.
    prediction = np.where(prediction < 0, int(reference.max()) + 1, prediction)
    return trimap_curve(reference, prediction, grid.spacing, every, judged=judged)


def judged_objects(pair: InstancePair, *, threshold: float = 0.5) -> tuple[JudgedObject, ...]:
    """Return the objects one by one: drawn ones by number, then invented ones.

    Args:
        pair: The two label images.
        threshold: An object is found if its IoU with a predicted one exceeds this.
    """
    table, voxel = pair.contingency, math.prod(pair.spacing)
    drawn, predicted = (
        {int(i): float(n) * voxel for i, n in zip(ids, sizes, strict=True) if i}
        for ids, sizes in (
            (table.reference_ids, table.reference_sizes),
            (table.predicted_ids, table.predicted_sizes),
        )
    )
    found = {border.reference_id: border for border in instance_borders(pair, threshold=threshold)}
    taken = {border.predicted_id for border in found.values()}
    objects = []
    for number, size in drawn.items():
        border = found.get(number)
        if border is None:
            objects.append(JudgedObject(number, None, size, 0.0, None, None))
        else:
            objects.append(
                JudgedObject(
                    number, border.predicted_id, size, border.iou, border.assd, border.hd95
                )
            )
    invented = [number for number in predicted if number not in taken]
    objects += [JudgedObject(None, n, predicted[n], 0.0, None, None) for n in invented]
    return tuple(objects)


def object_records(details: Iterable[CaseDetail]) -> list[Record]:
    """Return three records (IoU, ASSD, HD95) for each object of each case.

    The structure of such a record is the object: ``nucleus 17``, or ``nucleus 17 (predicted)`` for
    one that was invented. Missed and invented objects have the worst values.
    """
    records = []
    for detail in details:
        diagonal = image_diagonal(detail.grid.shape, detail.grid.spacing)
        for one in detail.objects:
            number, mark = one.reference_id, ""
            if number is None:
                number, mark = one.predicted_id, " (predicted)"
            for metric in _OF_OBJECTS:
                value = getattr(one, metric)
                facts = METRICS.facts(metric)
                length = facts["unit"] == "length"
                records.append(
                    Record(
                        case=detail.case,
                        group=detail.group,
                        structure=f"{detail.structure} {number}{mark}",
                        metric=metric,
                        value=diagonal if value is None else value,
                        unit=str(detail.grid.unit) if length else facts["unit"],
                        status=one.status,
                        definition=facts["definition"],
                        spacing=detail.grid.spacing,
                        spacing_unit=Unit(detail.grid.unit),
                        version=__version__,
                    )
                )
    return records
