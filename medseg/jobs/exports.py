"""Exports of a prediction: which ones are asked for, and of what."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.data import Case
from medseg.errors import MedsegError, nearest
from medseg.exports import EXPORTS, Objects
from medseg.geometry import Grid
from medseg.images import write_ome_zarr_labels, zarr_root
from medseg.inference import ModelSpec


def check_exports(names: Sequence[str]) -> None:
    """Refuse what cannot be written, before anything is predicted.

    Raises:
        MedsegError: There is no such export.
    """
    for name in names:
        if name not in EXPORTS:
            raise MedsegError(f'--write: "{name}" is no export{nearest(name, EXPORTS)}')


def need_scores(names: Sequence[str]) -> bool:
    """Tell whether one of these exports says how sure the model was."""
    return any(EXPORTS.facts(name)["scored"] for name in names)


def objects_of(
    case: Case,
    spec: ModelSpec,
    labels: NDArray[np.integer[Any]],
    grid: Grid,
    scores: NDArray[np.float32] | None,
) -> Objects:
    """Return what a label map holds, with the structures' names.

    Args:
        case: Whose it is.
        spec: Of the model that made it.
        labels: As written, (*spatial).
        grid: Their grid.
        scores: Of the network, (outputs, *spatial); None if nobody needs them.
    """
    (_, background), *structures = spec.structures.items()
    classes: str | dict[int, str]
    if spec.objects is not None:
        ((classes, _),) = structures
        sure = None if scores is None else 1 - scores[0]  # the first output is the background
    else:
        classes = {value: name for name, value in structures}
        sure = None if scores is None else scores.max(0)
    found = Objects.of(
        case.name, labels, grid, classes=classes, background=background, probability=sure
    )
    return replace(found, source=case.images[0], model=spec.name, version=__version__)


def check_zarr(cases: Sequence[Case], name: str) -> None:
    """Refuse to write labels into what is no OME-Zarr, before anything is predicted.

    Raises:
        MedsegError: An image is none; names it.
    """
    for case in cases if name else ():
        if zarr_root(case.images[0]) is None:
            raise MedsegError(
                f"--zarr-labels {name}: {case.images[0]} is no OME-Zarr; leave the option out"
            )


def write_into_zarr(
    case: Case, name: str, labels: NDArray[np.integer[Any]], spec: ModelSpec
) -> Path:
    """Write a label map into the OME-Zarr of its image, with what made it."""
    made_by = {"version": __version__, "model": spec.name, "provenance": dict(spec.provenance)}
    return write_ome_zarr_labels(case.images[0], name, labels, made_by=made_by)
