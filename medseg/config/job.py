"""Training jobs: one file is one experiment, whole.

A job holds what decides the result. The computer, the device and the tracking server belong to the
command line. Sizes are written in the order x, y, z.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from medseg.config.card import Card, SplitPart, read_card
from medseg.config.reading import Section, checked, override, read_value, read_yaml
from medseg.config.values import PartSettings, SizeText, known_to
from medseg.errors import MedsegError
from medseg.geometry import Length, Unit


def _networks() -> Any:
    from medseg.networks import NETWORKS

    return NETWORKS


def _losses() -> Any:
    from medseg.losses import LOSSES

    return LOSSES


def _metrics() -> Any:
    from medseg.metrics import METRICS

    return METRICS


def _methods() -> Any:
    from medseg.instances import INSTANCES

    return INSTANCES


def _augmentations() -> Any:
    from medseg.transforms import AUGMENTATIONS

    return AUGMENTATIONS


def _normalisations() -> Any:
    from medseg.transforms import NORMALISATIONS

    return NORMALISATIONS


def _is_none(value: Any) -> bool:
    return value is None


class NetworkSettings(PartSettings):
    """A network with its settings; ``preset: small`` starts from those for little data."""

    preset: Literal["small"] | None = Field(default=None, exclude_if=_is_none)


NetworkPart = Annotated[NetworkSettings, known_to(_networks)]
LossPart = Annotated[PartSettings, known_to(_losses)]


class MetricSettings(PartSettings):
    """A metric with its settings, and with the structure that it judges if not every one."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without the name and the structure."""
        return {key: value for key, value in super().settings.items() if key != "structure"}

    @property
    def structure(self) -> str:
        """The only structure that the metric judges; empty for every one."""
        return str(super().settings.get("structure", ""))


MetricPart = Annotated[MetricSettings, known_to(_metrics, lengths=True)]
ObjectsPart = Annotated[PartSettings, known_to(_methods, lengths=True)]
AugmentationPart = Annotated[PartSettings, known_to(_augmentations)]
NormalisationPart = Annotated[PartSettings, known_to(_normalisations)]


class DataSection(Section):
    """Which data, on which grid, cut into which patches.

    ``stack`` says how the network sees 3D images: whole (``3d``), plane by plane (``2d``), or plane
    by plane with ``neighbours`` planes on each side as channels (``2.5d``). By planes, patches and
    spacing have the axes x and y, and the planes stay as they are.
    """

    dataset: str
    stack: Literal["2d", "2.5d", "3d"] | None = Field(default=None, exclude_if=_is_none)
    neighbours: PositiveInt | None = Field(default=None, exclude_if=_is_none)
    spacing: tuple[SizeText, ...] | Literal["native"] = "native"
    patch_voxels: tuple[PositiveInt, ...]
    normalisation: NormalisationPart = Field(default="zscore", validate_default=True)
    interpolation: Literal["linear", "cubic"] = "linear"
    split: SplitPart | None = None

    @property
    def plane_neighbours(self) -> int | None:
        """Planes on each side of the one that the network labels; None if it sees no planes."""
        if self.stack in ("2d", "2.5d"):
            return 0 if self.stack == "2d" else self.neighbours or 1
        return None

    @model_validator(mode="after")
    def _stacks(self) -> "DataSection":
        if self.neighbours is not None and self.stack != "2.5d":
            raise ValueError("data.neighbours: counts planes beside a plane: needs stack: 2.5d")
        return self

    @model_validator(mode="after")
    def _sizes(self) -> "DataSection":
        if self.spacing != "native":
            if len(self.spacing) != len(self.patch_voxels):
                raise ValueError("data.spacing: has another number of axes than patch_voxels")
            if len({length.unit for length in self.spacing}) > 1:
                raise ValueError("data.spacing: all lengths in one unit, please")
        return self


class TrainSection(Section):
    """How long and how to train.

    ``repeat`` draws images of hard structures more often: ``{posterior: 2}``, twice.
    """

    epochs: int = Field(default=100, ge=1)
    iterations_per_epoch: int = Field(default=50, ge=1)
    batch: int = Field(default=4, ge=1)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=3e-5, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    warmup_iterations: int = Field(default=20, ge=0)
    gradient_clip: float = Field(default=12.0, gt=0)
    ema: float | None = Field(default=0.99, ge=0, lt=1)
    foreground: float = Field(default=0.67, ge=0, le=1)
    repeat: dict[str, PositiveInt] = Field(default_factory=dict)
    validate_every: int = Field(default=5, ge=1)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=7, ge=0)


class CrfSection(Section):
    """A fully connected CRF; lengths in ``px`` count voxels of the network's grid."""

    bilateral_weight: float = Field(default=4.0, ge=0)
    sigma_position: SizeText
    sigma_intensity: PositiveFloat | tuple[PositiveFloat, ...]
    smooth_weight: float = Field(default=1.0, ge=0)
    sigma_smooth: SizeText
    iterations: int = Field(default=10, ge=1)
    method: Literal["auto", "exact", "grid"] = "auto"
    cells_per_sigma: float = Field(default=1.0, gt=0, le=16)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain numbers, and the unit of the lengths."""
        unit = self.sigma_position.unit
        return {
            **self.model_dump(mode="json"),
            "unit": str(unit),
            "sigma_position": self.sigma_position.value,
            "sigma_smooth": self.sigma_smooth.to(unit),
        }

    @model_validator(mode="after")
    def _one_kind_of_length(self) -> "CrfSection":
        if len({length.unit is Unit.PX for length in (self.sigma_position, self.sigma_smooth)}) > 1:
            raise ValueError("both lengths in px, or both in a physical unit, please")
        return self


class PredictSection(Section):
    """How the model will be applied.

    ``mirror`` averages mirrored views: along all axes, or those named (``[x]``). ``scales``
    averages views of other sizes (``[0.75, 1, 1.25]``). ``crf`` refines borders: with settings, or
    with those that help most on the validation cases (``choose``), which may be none.
    """

    window_voxels: tuple[PositiveInt, ...] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    mirror: bool | tuple[Literal["x", "y", "z"], ...] = False
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    crf: Literal[False, "choose"] | CrfSection = False

    @field_validator("crf", mode="before")
    @classmethod
    def _one_of_three(cls, value: Any) -> Any:
        if value is False or value == "choose" or isinstance(value, dict | CrfSection):
            return value
        raise ValueError(
            f"write false, choose, or settings (sigma_position, sigma_intensity, sigma_smooth, "
            f"...); got {json.dumps(value, default=str)}"
        )


class TrainJob(Section):
    """One experiment, checked before any image is read.

    ``objects`` is the method for labels that are objects: ``border``, or with its settings.
    """

    data: DataSection
    network: NetworkPart
    loss: LossPart = Field(default="dice_ce", validate_default=True)
    objects: ObjectsPart | None = Field(default=None, exclude_if=lambda value: value is None)
    augmentation: AugmentationPart = Field(default="recipe", validate_default=True)
    train: TrainSection = TrainSection()
    predict: PredictSection = PredictSection()
    metrics: tuple[MetricPart, ...] = Field(
        default=("dice", "iou", "hd95", "assd"), validate_default=True, min_length=1
    )

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved job, 64 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_job(path: Path, settings: Sequence[str] = ()) -> tuple[TrainJob, Card, Path]:
    """Read a job with its card.

    Args:
        path: The job file.
        settings: ``key=value`` overrides.

    Returns:
        The job, its dataset card, and where the card lies.

    Raises:
        MedsegError: A file is missing or a setting is wrong, or job and card do not fit.
    """
    job = checked(TrainJob, override(read_yaml(path), settings), path)
    card_file = path.parent / job.data.dataset
    card = read_card(card_file)
    stack, axes = job.data.stack, len(job.data.patch_voxels)
    if stack is not None and card.spatial_dims != 3:
        raise MedsegError(
            f"{path}: data.stack is {stack}, the data set {card.name} is {card.spatial_dims}D: its "
            f"images are no stacks; leave 'stack' out"
        )
    seen = card.spatial_dims if job.data.plane_neighbours is None else 2
    if axes != seen:
        raise MedsegError(
            f"{path}: data.patch_voxels has {axes} axes, the data set {card.name} is "
            f"{card.spatial_dims}D"
            + ("" if stack is None else f", seen as stack: {stack} ({seen})")
        )
    if job.predict.window_voxels is not None and len(job.predict.window_voxels) != axes:
        raise MedsegError(
            f"{path}: predict.window_voxels has {len(job.predict.window_voxels)} axes, the data "
            f"set {card.name} is {card.spatial_dims}D"
        )
    widths = job.predict.crf.sigma_intensity if isinstance(job.predict.crf, CrfSection) else 1.0
    if isinstance(widths, tuple) and len(widths) != len(card.channels):
        raise MedsegError(
            f"{path}: predict.crf.sigma_intensity has {len(widths)} values, the images of "
            f"{card.name} have {len(card.channels)} channel(s); give one number for all, or one a "
            f"channel"
        )
    if card.kind == "instance":
        return _for_objects(job, path), card, card_file
    if job.objects is not None:
        raise MedsegError(
            f"{path}: objects.name: {job.objects.name} finds objects, but the labels of "
            f"{card.name} are classes\n  leave objects out; or say kind: instance in the dataset "
            f"card, if each number is one object"
        )
    for number, metric in enumerate(job.metrics):
        facts = _metrics().facts(metric.name)
        if facts["kind"] == "instance" and "membrane_definition" not in facts:
            raise MedsegError(
                f'{path}: metrics[{number}].name: "{metric.name}" judges objects; a trained model '
                f"draws structures, which metrics of one mask judge, such as dice or nsd"
            )
    return job, card, card_file


def _for_objects(job: TrainJob, path: Path) -> TrainJob:
    """Return a job for labels that are objects, with the method and metrics that it leaves out."""
    from medseg.evaluation import DEFAULT_METRICS

    if job.data.stack in ("2d", "2.5d"):
        raise MedsegError(
            f"{path}: data.stack: {job.data.stack} sees planes one by one, but objects go "
            f"through several; leave 'stack' out"
        )
    if job.predict.crf is not False:
        raise MedsegError(
            f"{path}: predict.crf: a CRF smooths classes, but the labels are objects; leave it out"
        )
    if job.train.repeat:
        raise MedsegError(
            f"{path}: train.repeat: draws images of hard structures more often, but all objects "
            f"are of one; leave it out"
        )
    if "class_weights" in job.loss.settings:
        raise MedsegError(
            f"{path}: loss.class_weights: the labels are objects, and the network learns other "
            f"classes, such as borders; leave them out"
        )
    for number, metric in enumerate(job.metrics if "metrics" in job.model_fields_set else ()):
        if _metrics().facts(metric.name)["kind"] != "instance":
            raise MedsegError(
                f'{path}: metrics[{number}].name: "{metric.name}" judges structures; the labels '
                f"are objects, which average_precision or panoptic_quality judge"
            )
    chosen: dict[str, Any] = {}
    if job.objects is None:
        chosen["objects"] = PartSettings(name="border")
    if "metrics" not in job.model_fields_set:
        chosen["metrics"] = parse_metrics(DEFAULT_METRICS["instance"])
    return job.model_copy(update=chosen)


def split_settings(card: Card, job: TrainJob | None = None) -> tuple[str, dict[str, Any]]:
    """Return name and settings of the job's split, else the card's, else of one by group."""
    part = (job.data.split if job else None) or card.split
    return (part.name, part.settings) if part else ("group", {})


class _Metrics(Section):
    metrics: tuple[MetricPart, ...]


def parse_metrics(texts: Sequence[str]) -> tuple[Any, ...]:
    """Read metrics of the command line: ``dice``, ``nsd:tolerance=2 mm``.

    Of one structure only: ``v_rand:structure=membrane``.
    Without any, the metrics of a job that names none.

    Raises:
        MedsegError: An unknown metric, or a setting that it does not have.
    """
    if not texts:
        texts = list(TrainJob.model_fields["metrics"].default)
    parts = []
    for text in texts:
        name, _, settings = text.partition(":")
        pairs = [setting.partition("=") for setting in settings.split(",") if setting]
        try:
            values = {key.strip(): read_value(value) for key, _, value in pairs}
        except ValueError as error:
            raise MedsegError(f"--metric {text}: not readable\n  {error}") from None
        parts.append({**values, "name": name.strip()})
    return checked(_Metrics, {"metrics": parts}, Path("--metric")).metrics


def objects_settings(part: PartSettings) -> tuple[dict[str, Any], Unit]:
    """Return a method's settings with its lengths as numbers, and their unit; ``px`` without any.

    Raises:
        ValueError: Some lengths are in ``px`` and some physical.
    """
    settings = metric_settings(part)
    lengths = [value for value in settings.values() if isinstance(value, Length)]
    unit = lengths[0].unit if lengths else Unit.PX
    if len({length.unit is Unit.PX for length in lengths}) > 1:
        raise ValueError("objects: all lengths in px, or all in physical units, please")
    plain = {k: v.to(unit) if isinstance(v, Length) else v for k, v in settings.items()}
    return plain, unit


def metric_settings(part: PartSettings) -> dict[str, Any]:
    """Return a metric's settings with its lengths read, e.g. ``tolerance: 2 mm``."""
    return {key: _read_length(value) for key, value in part.settings.items()}


def _read_length(value: Any) -> Any:
    try:
        return Length.parse(value)
    except ValueError:
        return value
