"""Build the parts that a job names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import (
    Card,
    CrfSection,
    TrainJob,
    array_order,
    metric_settings,
    objects_settings,
    split_settings,
)
from medseg.data import SPLITS, Case, LabelMap, Reading, Split, folds
from medseg.errors import MedsegError
from medseg.evaluation import MetricRequest
from medseg.geometry import Unit
from medseg.inference import ModelSpec, ObjectFinder
from medseg.networks import NETWORKS
from medseg.transforms import (
    NORMALISATIONS,
    PatchSampler,
    PlaneSampler,
    Preparation,
    find_sided_pairs,
    foreground_statistics,
    named_axes,
)


def split_of(job: TrainJob, card: Card, cases: Sequence[Case], source: Path) -> Split:
    """Return the split that the job asks for, else the card, else one by group.

    Raises:
        MedsegError: It cannot be made, or a case in it has no labels.
    """
    name, settings = split_settings(card, job)
    try:
        split = SPLITS.build(name, cases, **settings)
    except ValueError as error:
        raise MedsegError(f"{source}: {error}") from None
    for case in split.cases:
        if case.labels is None:
            raise MedsegError(f"{case.name}: there is no label file for it, but the split uses it")
    return split


def folds_of(job: TrainJob, card: Card, split: Split, count: int) -> list[Split]:
    """Return the folds of a job's split: drawn at random, or in blocks where its split is so.

    Raises:
        MedsegError: There are too few groups, or fewer than two folds are asked for.
    """
    name, settings = split_settings(card, job)
    try:
        seed = None if SPLITS.facts(name)["in_order"] else settings.get("seed", 0)
        return folds(split, count, seed=seed)
    except ValueError as error:
        raise MedsegError(f"--folds {count}: {error}") from None


def preparation_of(
    job: TrainJob, card: Card, train: Sequence[Case], reading: Reading, labels: LabelMap
) -> Preparation:
    """Return the preparation, with the training cases' statistics where it needs them."""
    part = job.data.normalisation
    normalisation = NORMALISATIONS.build(part.name, **part.settings)
    if normalisation.needs_statistics:
        pairs = ((case.name, *reading.pair(case)) for case in train)
        normalisation = normalisation.with_statistics(
            foreground_statistics(
                (image.channels_first, labels.classes(reference.array, name) > 0)
                for name, image, reference in pairs
            )
        )
    spacing = None if job.data.spacing == "native" else array_order(job.data.spacing)
    # A stack that is seen plane by plane keeps its planes.
    kept = (None,) * (card.spatial_dims - len(job.data.patch_voxels))
    return Preparation(
        spatial_dims=card.spatial_dims,
        spacing=None if spacing is None else (*kept, *(length.value for length in spacing)),
        unit=Unit.PX if spacing is None else spacing[0].unit,
        normalisation=normalisation,
        interpolation=job.data.interpolation,
    )


def model_spec(
    job: TrainJob, card: Card, preparation: Preparation, provenance: dict[str, Any]
) -> ModelSpec:
    """Return what the model folder will say."""
    labels, finder = card.label_map(), finder_of(job, card)
    window = job.predict.window_voxels or job.data.patch_voxels
    return ModelSpec(
        name=card.name,
        spatial_dims=card.spatial_dims,
        channels=card.channels,
        structures=labels.written,
        network=job.network.name,
        network_settings=network_settings(job, preparation),
        preparation=preparation.to_dict(),
        window_voxels=array_order(window),
        overlap=job.predict.overlap,
        mirror_axes=mirror_axes(job, card),
        mirror=bool(job.predict.mirror),
        scales=job.predict.scales,
        objects=None if finder is None else finder.to_dict(),
        crf=job.predict.crf.settings if isinstance(job.predict.crf, CrfSection) else None,
        neighbours=job.data.plane_neighbours,
        axes=card.axes,
        provenance=provenance,
    )


def finder_of(job: TrainJob, card: Card) -> ObjectFinder | None:
    """Return what finds objects in a network's scores; None where labels are classes.

    Raises:
        MedsegError: The settings do not go together, a library is missing, or views of an image are
            to be averaged whose scores cannot be.
    """
    part, how = job.objects, job.predict
    if part is None:
        return None
    try:
        settings, unit = objects_settings(part)
        finder = ObjectFinder(card.spatial_dims, part.name, settings, unit)
    except (TypeError, ValueError) as error:
        raise MedsegError(f"objects.{part.name}: {error}") from None
    if not finder.method.averages and (how.mirror or how.scales != (1.0,)):
        raise MedsegError(
            f"objects.{part.name}: its outputs point in a direction and count voxels, so mirrored "
            f"and resized views cannot be averaged\n  leave out predict.mirror and predict.scales"
        )
    return finder


def network_settings(job: TrainJob, preparation: Preparation) -> dict[str, Any]:
    """Return the network's settings: the preset's, the patch and its spacing, the job's own."""
    known = NETWORKS.settings(job.network.name)
    preset: dict[str, Any] = {}
    if job.network.preset == "small":
        part: Any = NETWORKS[job.network.name]
        preset = part.small_settings(len(job.data.patch_voxels))
    planned: dict[str, Any] = {"patch_voxels": array_order(job.data.patch_voxels)}
    if preparation.spacing is not None:
        planned["spacing"] = preparation.spacing[-len(job.data.patch_voxels) :]
    fitting = {key: value for key, value in planned.items() if key in known}
    return preset | fitting | job.network.settings


def sagittal_axis_of(job: TrainJob, card: Card) -> int | None:
    """Return the array axis from left to right of a patch: the last of volumes, turned alike.

    In slices nobody says which it is.
    """
    return len(job.data.patch_voxels) - 1 if card.spatial_dims == 3 else None


def sampler_of(job: TrainJob) -> PatchSampler:
    """Return what cuts the patches: flat ones from stacks that are seen plane by plane."""
    patch, neighbours = array_order(job.data.patch_voxels), job.data.plane_neighbours
    if neighbours is None:
        return PatchSampler(patch, foreground=job.train.foreground)
    return PlaneSampler(patch, foreground=job.train.foreground, neighbours=neighbours)


def mirror_axes(job: TrainJob, card: Card) -> tuple[int, ...]:
    """Return the array axes along which a prepared image may be mirrored in prediction.

    Those that the job names, else all; with sided labels never the one from left to right.
    """
    named = job.predict.mirror
    axes = range(len(job.data.patch_voxels))
    chosen = axes if isinstance(named, bool) else named_axes(named, len(axes))
    if not find_sided_pairs(card.label_map().names):
        return tuple(chosen)
    sagittal = sagittal_axis_of(job, card)
    return () if sagittal is None else tuple(axis for axis in chosen if axis != sagittal)


def metric_requests(metrics: Sequence[Any]) -> list[MetricRequest]:
    """Return the metrics of a job."""
    return [MetricRequest(part.name, metric_settings(part), part.structure) for part in metrics]
