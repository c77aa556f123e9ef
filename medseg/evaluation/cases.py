"""Judge one case: every structure by every metric, on the grid of the reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.errors import MedsegError
from medseg.evaluation.records import Outcome, Record
from medseg.geometry import Grid, Length
from medseg.metrics import METRICS, InstancePair, MaskPair, MembranePair
from medseg.metrics.masks import image_diagonal

Labels = NDArray[np.integer[Any]]
Backend = Literal["surface", "voxel"]
Failure = Literal["missing_prediction", "error"]
Kind = Literal["semantic", "instance"]
Pair = MaskPair | InstancePair | MembranePair
_JUDGES = {
    "mask": "one structure as a whole",
    "instance": "single objects",
    "membrane": "the cells that a membrane keeps apart",
}

# What is computed of label images of each kind if nothing is asked for; the first ranks the cases.
DEFAULT_METRICS: Mapping[Kind, tuple[str, ...]] = {
    "semantic": ("dice", "iou", "hd95", "assd"),
    "instance": (
        "average_precision",
        "mean_average_precision",
        "panoptic_quality",
        "segmentation_quality",
        "instance_f1",
        "splits",
        "merges",
        "instance_assd",
    ),
}


@dataclass(frozen=True)
class MetricRequest:
    """A metric and its settings, as a job asks for it.

    Args:
        name: Name of the metric in the registry.
        settings: Its settings. A :class:`~medseg.geometry.Length` is converted to the unit of each
            case's grid; a bare number is in that unit already.
        structure: The structure that it judges; every one if empty. Metrics of membranes must be
            told which structure the membrane is.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    structure: str = ""

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
    asked = _Asked(case, group, grid, metrics, tuple(structures), "semantic", backend, failure)
    asked.check(reference, prediction)
    judged, left_out = judged_voxels(reference, ignore)
    records = []
    for structure, labels in structures.items():
        pairs = None
        if prediction is not None:
            pairs = _ClassPairs(reference, prediction, labels, judged, grid, backend)
        records += asked.records(structure, pairs, left_out)
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
    asked = _Asked(case, group, grid, metrics, (structure,), "instance", "surface", failure)
    asked.check(reference, prediction)
    judged, left_out = judged_voxels(reference, ignore)
    pairs = None
    if prediction is not None:
        pairs = _ObjectPairs(instance_pair(reference, prediction, judged, grid))
    return asked.records(structure, pairs, left_out)


def evaluate_labels(
    case: str,
    group: str,
    reference: Labels,
    prediction: Labels | None,
    grid: Grid,
    structures: Mapping[str, tuple[int, ...]],
    metrics: Sequence[MetricRequest],
    *,
    kind: Kind,
    ignore: int | None = None,
    failure: Failure = "missing_prediction",
) -> list[Record]:
    """Return the records of a case whose labels are classes, or numbers of objects.

    Args:
        case: Name of the case.
        group: Its group.
        reference: Label image as drawn.
        prediction: Label image to be judged; None if there is none.
        grid: The grid on which both lie.
        structures: The labels of each structure. Where labels are objects, the only structure is
            what they are, and its labels do not matter.
        metrics: What to compute.
        kind: ``semantic``: labels are classes, see :func:`evaluate_case`; ``instance``: every
            number is one object, see :func:`evaluate_instances`.
        ignore: Label of voxels that the reference does not judge.
        failure: What a prediction of None means.

    Raises:
        ValueError: As the two functions.
        MedsegError: As the two functions.
    """
    how: dict[str, Any] = {"ignore": ignore, "failure": failure}
    if kind == "semantic":
        return evaluate_case(case, group, reference, prediction, grid, structures, metrics, **how)
    (structure,) = structures
    return evaluate_instances(case, group, structure, reference, prediction, grid, metrics, **how)


def instance_pair(
    reference: Labels, prediction: Labels, judged: NDArray[np.bool_] | None, grid: Grid
) -> InstancePair:
    """Return the objects of two label images, without what is not judged."""
    if judged is not None:
        reference, prediction = reference * judged, prediction * judged
    return InstancePair(reference, prediction, grid.spacing, grid.unit)


@dataclass(frozen=True, eq=False)
class _ClassPairs:
    """One structure of two class images, as the kinds of metrics want to see it."""

    reference: Labels
    prediction: Labels
    labels: tuple[int, ...]
    judged: NDArray[np.bool_] | None
    grid: Grid
    backend: Backend

    @cached_property
    def mask(self) -> MaskPair:
        """The structure as a whole."""
        drawn, predicted = (
            mask_of(array, self.labels, self.judged) for array in (self.reference, self.prediction)
        )
        return MaskPair(drawn, predicted, self.grid.spacing, self.grid.unit, self.backend)

    @cached_property
    def membrane(self) -> MembranePair:
        """The structure as a membrane."""
        drawn, predicted = (
            ~mask_of(array, self.labels, None) for array in (self.reference, self.prediction)
        )
        return MembranePair(drawn, predicted, self.grid.spacing, self.grid.unit, self.judged)

    @property
    def instance(self) -> InstancePair:
        """The cells that the structure, a membrane, keeps apart."""
        return self.membrane.cells


@dataclass(frozen=True, eq=False)
class _ObjectPairs:
    """Two images of numbered objects, as the metrics of objects want to see them."""

    instance: InstancePair


@dataclass(frozen=True)
class _Asked:
    """What is asked about one case, and how its records are written."""

    case: str
    group: str
    grid: Grid
    metrics: Sequence[MetricRequest]
    structures: tuple[str, ...]
    kind: Kind
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
        self, structure: str, pairs: _ClassPairs | _ObjectPairs | None, left_out: int
    ) -> list[Record]:
        """Return the records of one structure; without pairs, its prediction failed."""
        found = []
        for request, settings in self._resolved:
            if request.structure not in ("", structure):
                continue
            value, status = self._measure(request.name, settings, pairs)
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
            self._check_kind(request)
            for key, value in request.settings.items():
                settings[key] = self.grid.length(value) if isinstance(value, Length) else value
            METRICS.check(request.name, settings, path=f"metrics.{request.name}")
        except ValueError as error:
            raise MedsegError(f"{self.case}: metric {request.name}: {error}") from error
        return settings

    def _check_kind(self, request: MetricRequest) -> None:
        """Refuse a metric that cannot judge such labels, or that is not told what it needs."""
        facts = METRICS.facts(request.name)
        if request.structure and request.structure not in self.structures:
            raise ValueError(
                f'there is no structure "{request.structure}", only {", ".join(self.structures)}'
            )
        if self.kind == "instance":
            if facts["kind"] != "instance":
                raise ValueError(
                    f"it judges {_JUDGES[facts['kind']]}, but every label is an object here"
                )
        elif facts["kind"] == "membrane" or "membrane_definition" in facts:
            if not request.structure:
                raise ValueError(
                    f"it judges {_JUDGES['membrane']}: say which structure is the membrane "
                    f"(structure: {self.structures[-1]})"
                )
            if self.grid.spatial_dims != 2:
                raise ValueError("it judges membranes in 2D slices only, this is a volume")
        elif facts["kind"] != "mask":
            raise ValueError(
                f"it judges {_JUDGES[facts['kind']]}, but labels are classes here: it needs a "
                f"number for each object (kind: instance in the dataset card)"
            )

    def _measure(
        self,
        metric: str,
        settings: Mapping[str, Any],
        pairs: _ClassPairs | _ObjectPairs | None,
    ) -> tuple[float | None, Outcome]:
        """Return the value that counts, and its status."""
        seen_as: str = METRICS.facts(metric)["kind"]
        pair: Pair | None = None if pairs is None else getattr(pairs, seen_as)
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
        if self.kind == "semantic" and "membrane_definition" in facts:
            return str(facts["membrane_definition"])
        return facts.get("voxel_definition", surface) if self.backend == "voxel" else surface


def judged_voxels(reference: Labels, ignore: int | None) -> tuple[NDArray[np.bool_] | None, int]:
    """Return the voxels to judge (None for all), and how many are left out."""
    if ignore is None:
        return None, 0
    judged: NDArray[np.bool_] = reference != ignore
    return judged, int(judged.size - np.count_nonzero(judged))


def mask_of(
    array: Labels, labels: tuple[int, ...], judged: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return where an image carries one of the labels and is judged."""
    mask: NDArray[np.bool_] = array == labels[0]
    for label in labels[1:]:
        mask |= array == label
    if judged is not None:
        mask &= judged
    return mask
