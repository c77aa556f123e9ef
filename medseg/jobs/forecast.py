"""Say what a training will need before it starts, from a few real steps on its own cases."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from rich.console import Console

from medseg.config import Card, TrainJob
from medseg.data import Case, Split
from medseg.doctor import DataFacts, Finding, finding_of
from medseg.doctor.forecast import Forecast
from medseg.errors import MedsegError
from medseg.images.trust import free_memory
from medseg.inference import ModelSpec
from medseg.inference.sliding import voxels_in_windows
from medseg.jobs.crf import check_crf
from medseg.jobs.evaluate import check_references
from medseg.jobs.fitting import How, Work, parts_to_fit
from medseg.jobs.parts import metric_requests
from medseg.jobs.train import judged_of
from medseg.transforms import Preparation


def forecast(
    job: TrainJob,
    job_file: Path,
    card: Card,
    data: DataFacts,
    *,
    leave_out: Set[str],
    device: str,
    console: Console,
) -> tuple[Forecast | None, list[Finding]]:
    """Prepare the largest training and validation case, train for a few steps, and reckon.

    Args:
        job: The job.
        job_file: Where it is written.
        card: Its data set.
        data: The facts of all cases, with the job's split.
        leave_out: Cases that have faults of their own, and are not tried.
        device: ``cpu`` or ``cuda``.
        console: For what the parts have to say.

    Returns:
        The forecast, None where the job cannot run; and why it cannot, or whether memory will do.
    """
    from medseg.training import rehearse

    if data.split is None:
        return None, []
    sizes = {
        case.name: math.prod(case.image.grid.shape)
        for case in data.cases
        if case.image and case.labels and case.name not in leave_out
    }
    parts = [
        [case for case in part if case.name in sizes]
        for part in (data.split.train, data.split.validation)
    ]
    if not all(parts):
        return None, []
    largest = [max(part, key=lambda case: sizes[case.name]) for part in parts]
    sample = Split(train=(largest[0],), validation=(largest[1],), test=())
    how = How(None, "wall", device, "fp32", 0)
    # Nothing is tracked: only the parts are built.
    work = Work(job, job_file, card, sample, {}, how, cast(Any, None), console)
    try:
        check_crf(job, job_file, card, data.split)
        judged = [case for case in judged_of(data.split)[1] if case.name in sizes]
        check_references(judged[:1], card, metric_requests(job.metrics))
        began = perf_counter()
        spec, module, batches = parts_to_fit(work)
        preparing = perf_counter() - began
        seen = rehearse(module, batches, device=device, limit=free_memory())
        shapes = _prepared_shapes(data, Preparation.from_dict(dict(spec.preparation)))
    except (MedsegError, ValueError, RuntimeError) as error:
        return None, [finding_of(error, "job")]
    prepared = _voxels(shapes, (*data.split.train, *data.split.validation))
    window = spec.window_voxels
    seen_voxels, validated, tested = (
        sum(voxels_in_windows(shapes[case.name], window, overlap) for case in cases)
        for cases, overlap in (
            (largest[1:], module.overlap),
            (data.split.validation, module.overlap),
            (data.split.test, spec.overlap),
        )
    )
    per_voxel = seen.validation_seconds / seen_voxels
    made = Forecast(
        base_bytes=seen.base_bytes,
        # What is more than the cache is read from disk.
        data_bytes=min(
            prepared * _bytes_per_voxel(len(card.channels)), round(how.cache * free_memory())
        ),
        rise_bytes=seen.rise_bytes,
        available_bytes=_available(device),
        on_gpu=device == "cuda",
        preparing_seconds=preparing * prepared / _voxels(shapes, largest),
        step_seconds=seen.loading_seconds + seen.step_seconds,
        steps=job.train.epochs * job.train.iterations_per_epoch,
        validation_seconds=per_voxel * validated,
        validations=job.train.epochs // job.train.validate_every,
        prediction_seconds=per_voxel * tested * _views(spec),
    )
    return made, list(made.findings())


def _prepared_shapes(data: DataFacts, preparation: Preparation) -> dict[str, tuple[int, ...]]:
    """Return the size of each case on the network's grid; none of those that cannot be read.

    Raises:
        MedsegError: A case has no pixel size, and the job names one.
    """
    shapes: dict[str, tuple[int, ...]] = defaultdict(lambda: (0,) * data.spatial_dims)
    for case in data.cases:
        if case.image is not None and case.image.grid.spatial_dims == data.spatial_dims:
            try:
                shapes[case.name] = preparation.prepared_grid(case.image.grid).shape
            except ValueError as error:
                raise MedsegError(f"{case.name}: {error}") from None
    return shapes


def _voxels(shapes: Mapping[str, tuple[int, ...]], cases: Sequence[Case]) -> int:
    return sum(math.prod(shapes[case.name]) for case in cases)


def _bytes_per_voxel(channels: int) -> int:
    """Return what a prepared case holds: the image in 32 bits, and its labels."""
    return 4 * channels + 4


def _views(spec: ModelSpec) -> float:
    """Return how many views of an image a prediction averages, weighed by their size."""
    mirrored = 2 ** len(spec.mirror_axes) if spec.mirror else 1
    return float(mirrored * sum(scale ** len(spec.window_voxels) for scale in spec.scales))


def _available(device: str) -> int:
    if device != "cuda":
        return free_memory()
    import torch

    return int(torch.cuda.mem_get_info()[0])
