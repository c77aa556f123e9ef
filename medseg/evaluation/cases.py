"""Judge one case: every structure by every metric, on the grid of the reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.errors import MedsegError
from medseg.evaluation.records import Outcome, Record
from medseg.geometry import Grid, Length
from medseg.metrics import METRICS, MaskPair
from medseg.metrics.masks import image_diagonal

if TYPE_CHECKING:  # the readers of medseg.images are not needed to judge arrays
    from medseg.images.image import Image

Labels = NDArray[np.integer[Any]]
Backend = Literal["surface", "voxel"]


@dataclass(frozen=True)
class MetricRequest:
    """A metric and its settings, as a job asks for it.

    Args:
        name: Name of the metric in the registry.
        settings: Its settings. A :class:`~medseg.geometry.Length` is converted to the unit of each
            case's grid; a bare number is in that unit already.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings_text(self) -> str:
        """The settings as records carry them, e.g. ``tolerance=2 mm``."""
        return ", ".join(f"{key}={self.settings[key]}" for key in sorted(self.settings))


def evaluate_case(
    case: str,
    group: str,
    reference: Labels,
    prediction: Labels | None,
    grid: Grid,
    structures: Mapping[str, tuple[int, ...]],
    metrics: Sequence[MetricRequest],
    *,
    ignore: int | None = None,
    backend: Backend = "surface",
    failure: Literal["missing_prediction", "error"] = "missing_prediction",
) -> list[Record]:
    """Return one record for each structure and metric of a case.

    Args:
        case: Name of the case.
        group: Its group, e.g. the patient.
        reference: Label image as drawn, (z, y, x) or (y, x).
        prediction: Label image to be judged, of the same shape; None if there is none, which
            counts as the worst value of every metric.
        grid: The grid on which both lie.
        structures: The labels of each structure, e.g. ``{"liver": (1,), "whole tumour": (2, 3)}``.
        metrics: What to compute.
        ignore: Label of voxels that the reference does not judge; they are taken from both masks.
        backend: How borders are measured, see :class:`~medseg.metrics.MaskPair`.
        failure: What a prediction of None means: there is none, or it cannot be used.

    Raises:
        ValueError: An array does not lie on the grid, or nothing is asked for.
        MedsegError: A setting of a metric cannot be used on this case; the message names both.
    """
    for which, array in (("reference", reference), ("prediction", prediction)):
        if array is not None and array.shape != grid.shape:
            raise ValueError(f"{case}: {which} of {array.shape} voxels on a grid of {grid.shape}")
    if not structures or not metrics:
        raise ValueError(f"{case}: nothing to evaluate: no structure or no metric is named")
    resolved = [(request, _resolve(case, request, grid)) for request in metrics]
    judged = None if ignore is None else reference != ignore
    left_out = 0 if judged is None else int(judged.size - np.count_nonzero(judged))
    records = []
    for structure, labels in structures.items():
        pair = None
        if prediction is not None:
            drawn, predicted = (_mask(array, labels, judged) for array in (reference, prediction))
            pair = MaskPair(drawn, predicted, grid.spacing, grid.unit, backend)
        for request, settings in resolved:
            value, status = _measure(case, request.name, settings, pair, grid, failure)
            records.append(
                Record(
                    case=case,
                    group=group,
                    structure=structure,
                    metric=request.name,
                    value=value,
                    unit=_unit(request.name, grid),
                    status=status,
                    definition=_definition(request.name, backend),
                    spacing=grid.spacing,
                    spacing_unit=grid.unit,
                    version=__version__,
                    settings=request.settings_text,
                    ignored_voxels=left_out,
                )
            )
    return records


def check_same_grid(case: str, reference: "Image", prediction: "Image") -> None:
    """Refuse a prediction that does not lie on the reference's grid.

    Raises:
        MedsegError: The grids differ; the message shows both and says what to do.
    """
    drawn, predicted = reference.grid, prediction.grid
    if drawn.matches(predicted):
        return
    lines = [
        f"{case}: the prediction lies on another grid than the reference",
        f"  reference   {drawn.describe()}",
        f"  prediction  {predicted.describe()}",
    ]
    if drawn.describe() == predicted.describe():
        for which, grid in (("reference", drawn), ("prediction", predicted)):
            lines.append(f"  the {which + chr(39) + 's':<12} {_place(grid)}")
    lines.append(
        "  resample the prediction onto the reference's grid first (nearest neighbour), or predict "
        "again with medseg predict, which writes on each image's own grid"
    )
    raise MedsegError("\n".join(lines))


def _place(grid: Grid) -> str:
    first = "unknown"
    if grid.origin is not None:
        first = f"({', '.join(f'{x:.6g}' for x in grid.origin)}) {grid.unit}"
    axes = "unknown"
    if grid.direction is not None:
        columns = np.array(grid.direction).T[::-1]
        axes = ", ".join(f"({' '.join(f'{v:.3g}' for v in column)})" for column in columns)
    return f"first voxel lies at {first} (x, y, z); its axes point along {axes}"


def _resolve(case: str, request: MetricRequest, grid: Grid) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    try:
        if METRICS.facts(request.name)["kind"] != "mask":
            raise ValueError(f"{request.name} does not judge one structure at a time")
        for key, value in request.settings.items():
            settings[key] = grid.length(value) if isinstance(value, Length) else value
        METRICS.check(request.name, settings, path=f"metrics.{request.name}")
    except ValueError as error:
        raise MedsegError(f"{case}: metric {request.name}: {error}") from error
    return settings


def _unit(metric: str, grid: Grid) -> str:
    unit: str = METRICS.facts(metric)["unit"]
    return str(grid.unit) if unit == "length" else unit


def _definition(metric: str, backend: Backend) -> str:
    facts = METRICS.facts(metric)
    surface: str = facts["definition"]
    return facts.get("voxel_definition", surface) if backend == "voxel" else surface


def _mask(
    array: Labels, labels: tuple[int, ...], judged: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = array == labels[0]
    for label in labels[1:]:
        mask |= array == label
    if judged is not None:
        mask &= judged
    return mask


def _measure(
    case: str,
    metric: str,
    settings: Mapping[str, Any],
    pair: MaskPair | None,
    grid: Grid,
    failure: Outcome,
) -> tuple[float | None, Outcome]:
    """Return the value that counts, and its status."""
    status: Outcome = failure
    if pair is not None:
        status = pair.status
        if status == "both_empty":
            return None, status
        try:
            value = float(METRICS[metric](pair, **settings))
        except ValueError as error:
            raise MedsegError(f"{case}: metric {metric}: {error}") from error
        if math.isfinite(value):
            return value, status
        if status == "ok":
            status = "error"
    worst = METRICS.facts(metric)["worst"]
    return (image_diagonal(grid.shape, grid.spacing) if worst == "diagonal" else worst), status
