"""The objects of one image, however they were numbered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import nearest
from medseg.files import written_whole
from medseg.geometry import Grid
from medseg.registry import Registry

EXPORTS: Registry[None] = Registry("export", given=("objects", "path"))


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects, or the structures, of one image.

    Args:
        case: Whose they are.
        numbers: (z, y, x) or (y, x): 0 for the background, 1, 2, ... for the objects in the order
            of ``ids``.
        grid: Where the voxels lie.
        ids: Value of each object in the label file.
        classes: Structure of each object.
        scores: Mean probability of its structure over each object, 0 to 1; None if not known.
        source: File or folder of the image; None if not known.
        model: Name of the model that found them.
        version: Version of what found them.
    """

    case: str
    numbers: NDArray[np.int32]
    grid: Grid
    ids: tuple[int, ...]
    classes: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    source: Path | None = None
    model: str = ""
    version: str = ""

    @classmethod
    def of(
        cls,
        case: str,
        labels: NDArray[np.integer[Any]],
        grid: Grid,
        *,
        classes: str | Mapping[int, str],
        background: int = 0,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> "Objects":
        """Number what a label image holds.

        Args:
            case: Whose they are.
            labels: As in the label file, (*spatial).
            grid: Their grid.
            classes: The structure of every object, or of each value.
            background: Value of what is no object.
            probability: Of each voxel's own structure, (*spatial), to score the objects.

        Raises:
            ValueError: Shapes disagree.
            KeyError: A value has no structure.
        """
        if labels.shape != grid.shape or (
            probability is not None and probability.shape != labels.shape
        ):
            raise ValueError(f"{case}: labels of {labels.shape} on a grid of {grid.shape}")
        found, inverse = np.unique(labels, return_inverse=True)
        is_object = found != background
        ids = tuple(found[is_object].tolist())
        new = np.zeros(len(found), np.int32)
        new[is_object] = np.arange(1, len(ids) + 1)
        numbers = new[inverse.reshape(labels.shape)]
        names = tuple(classes if isinstance(classes, str) else classes[value] for value in ids)
        scores = None
        if probability is not None:
            voxels = np.bincount(numbers.ravel(), minlength=len(ids) + 1)[1:]
            total = np.bincount(numbers.ravel(), probability.ravel(), len(ids) + 1)[1:]
            scores = tuple((total / voxels).tolist())
        return cls(case, numbers, grid, ids, names, scores)


def export(name: str, objects: Objects, folder: Path) -> Path:
    """Write one export of a case, whole or not at all.

    Returns:
        The file, ``CASE`` with the export's own ending.

    Raises:
        ValueError: No such export.
    """
    if name not in EXPORTS:
        raise ValueError(f'"{name}" is no export{nearest(name, EXPORTS)}')
    path = folder / f"{objects.case}{EXPORTS.facts(name)['ending']}"
    with written_whole(path) as aside:
        EXPORTS[name](objects, aside)
    return path
