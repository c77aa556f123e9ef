"""Judge one case: every structure by every metric, on the grid of the reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.errors import MedsegError
from medseg.evaluation.records import Outcome, Record
from medseg.geometry import Grid, Length
from medseg.metrics import METRICS, InstancePair, MaskPair
from medseg.metrics.masks import image_diagonal

if TYPE_CHECKING:  # the readers of medseg.images are not needed to judge arrays
    from medseg.images.image import Image

Labels = NDArray[np.integer[Any]]
Backend = Literal["surface", "voxel"]
Failure = Literal["missing_prediction", "error"]
_JUDGES = {"mask": "one structure as a whole", "instance": "the objects of a structure"}


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
    failure: Failure = "missing_prediction",
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
    if not structures:
        raise ValueError(f"{case}: nothing to evaluate: no structure is named")
    asked = _Asked(case, group, grid, metrics, "mask", backend, failure)
    asked.check(reference, prediction)
    judged, left_out = _judged(reference, ignore)
    records = []
    for structure, labels in structures.items():
        pair = None
        if prediction is not None:
            drawn, predicted = (_mask(array, labels, judged) for array in (reference, prediction))
            pair = MaskPair(drawn, predicted, grid.spacing, grid.unit, backend)
        records += asked.records(structure, pair, left_out)
    return records


def evaluate_instances(
    case: str,
    group: str,
    structure: str,
    reference: Labels,
    prediction: Labels | None,
    grid: Grid,
    metrics: Sequence[MetricRequest],
    *,
    ignore: int | None = None,
    failure: Failure = "missing_prediction",
) -> list[Record]:
    """Return one record for each instance metric (AP, PQ, splits, ...) of a case.

    Args:
        case: Name of the case.
        group: Its group, e.g. the animal.
        structure: What the objects are, e.g. ``cell``.
        reference: Label image as drawn, (z, y, x) or (y, x): 0 is background, every other number
            one object.
        prediction: Label image to be judged, of the same shape; its numbers are its own. None if
            there is none.
        grid: The grid on which both lie.
        metrics: What to compute.
        ignore: Label of voxels that the reference does not judge; objects lose them.
        failure: What a prediction of None means: there is none, or it cannot be used.

    Raises:
        ValueError: An array does not lie on the grid, or nothing is asked for.
        MedsegError: A setting of a metric cannot be used on this case; the message names both.
    """
    asked = _Asked(case, group, grid, metrics, "instance", "surface", failure)
    asked.check(reference, prediction)
    judged, left_out = _judged(reference, ignore)
    if judged is not None:
        reference = reference * judged
        prediction = None if prediction is None else prediction * judged
    pair = None
    if prediction is not None:
        pair = InstancePair(reference, prediction, grid.spacing, grid.unit)
    return asked.records(structure, pair, left_out)


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


@dataclass(frozen=True)
class _Asked:
    """What is asked about one case, and how its records are written."""

    case: str
    group: str
    grid: Grid
    metrics: Sequence[MetricRequest]
    kind: Literal["mask", "instance"]
    backend: Backend
    failure: Failure

    def check(self, reference: Labels, prediction: Labels | None) -> None:
        """Refuse arrays off the grid, and metrics or settings that cannot be used."""
        if not self.metrics:
            raise ValueError(f"{self.case}: nothing to evaluate: no metric is named")
        shape = self.grid.shape
        for which, array in (("reference", reference), ("prediction", prediction)):
            if array is not None and array.shape != shape:
                raise ValueError(
                    f"{self.case}: {which} of {array.shape} voxels on a grid of {shape}"
                )
        _ = self._resolved

    def records(
        self, structure: str, pair: MaskPair | InstancePair | None, left_out: int
    ) -> list[Record]:
        """Return the records of one structure; without a pair, its prediction failed."""
        found = []
        for request, settings in self._resolved:
            value, status = self._measure(request.name, settings, pair)
            found.append(
                Record(
                    case=self.case,
                    group=self.group,
                    structure=structure,
                    metric=request.name,
                    value=value,
                    unit=self._unit(request.name),
                    status=status,
                    definition=self._definition(request.name),
                    spacing=self.grid.spacing,
                    spacing_unit=self.grid.unit,
                    version=__version__,
                    settings=request.settings_text,
                    ignored_voxels=left_out,
                )
            )
        return found

    @cached_property
    def _resolved(self) -> list[tuple[MetricRequest, dict[str, Any]]]:
        """The metrics, each with its settings in the unit of the grid."""
        return [(request, self._settings(request)) for request in self.metrics]

    def _settings(self, request: MetricRequest) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        try:
            kind = METRICS.facts(request.name)["kind"]
            if kind != self.kind:
                raise ValueError(f"it judges {_JUDGES[kind]}, not {_JUDGES[self.kind]}")
            for key, value in request.settings.items():
                settings[key] = self.grid.length(value) if isinstance(value, Length) else value
            METRICS.check(request.name, settings, path=f"metrics.{request.name}")
        except ValueError as error:
            raise MedsegError(f"{self.case}: metric {request.name}: {error}") from error
        return settings

    def _measure(
        self, metric: str, settings: Mapping[str, Any], pair: MaskPair | InstancePair | None
    ) -> tuple[float | None, Outcome]:
        """Return the value that counts, and its status."""
        status: Outcome = self.failure if pair is None else pair.status
        if status == "both_empty":
            return None, status
        if status == "ok":
            try:
                value = float(METRICS[metric](pair, **settings))
            except ValueError as error:
                raise MedsegError(f"{self.case}: metric {metric}: {error}") from error
            if math.isfinite(value):
                return value, status
            status = "error"
        worst = METRICS.facts(metric)["worst"]
        value = image_diagonal(self.grid.shape, self.grid.spacing) if worst == "diagonal" else worst
        return (value if math.isfinite(value) else None), status

    def _unit(self, metric: str) -> str:
        unit: str = METRICS.facts(metric)["unit"]
        return str(self.grid.unit) if unit == "length" else unit

    def _definition(self, metric: str) -> str:
        facts = METRICS.facts(metric)
        surface: str = facts["definition"]
        return facts.get("voxel_definition", surface) if self.backend == "voxel" else surface


def _judged(reference: Labels, ignore: int | None) -> tuple[NDArray[np.bool_] | None, int]:
    """Return the voxels to judge (None for all), and how many are left out."""
    if ignore is None:
        return None, 0
    judged: NDArray[np.bool_] = reference != ignore
    return judged, int(judged.size - np.count_nonzero(judged))


def _mask(
    array: Labels, labels: tuple[int, ...], judged: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = array == labels[0]
    for label in labels[1:]:
        mask |= array == label
    if judged is not None:
        mask &= judged
    return mask
