"""Several models as one, whose probabilities are the mean of theirs.

Its folder holds a folder a member, each a model of its own, and a ``model.json`` that names them.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.geometry import Grid
from medseg.inference.model import SPEC_FILE, Model, ModelSpec, whole
from medseg.inference.sliding import Precision
from medseg.transforms import Prepared

FORMAT = "medseg-ensemble/1"


class Ensemble(Model):
    """Models of one job that were trained on different cases.

    Each prepares the image by itself, with its own statistics, and refines with its own CRF.
    Objects are found in the mean of what the networks say, with the mean of their thresholds.

    Args:
        members: The models.
        provenance: Of the ensemble; each member has its own, too.

    Raises:
        ValueError: There is none, or they differ in what they take or give.
    """

    def __init__(self, members: Sequence[Model], provenance: Mapping[str, Any]) -> None:
        if len({json.dumps(_shared(member.spec)) for member in members}) != 1:
            raise ValueError(
                "an ensemble has one or more members, with the same channels, labels, spacing and "
                "windows"
            )
        first = members[0]
        spec = replace(first.spec, provenance=provenance, objects=_mean_thresholds(members))
        super().__init__(spec, first.network, str(first.device))
        self.members = tuple(members)

    def _rows(
        self, array: NDArray[Any], grid: Grid, mirror: bool | None, crf: bool, precision: Precision
    ) -> tuple[Prepared, Iterator[Tensor]]:
        several = [m._rows(array, grid, mirror, crf, precision) for m in self.members]
        rows = [part for _, part in several]
        if crf and any(member.spec.crf for member in self.members):
            # A CRF gives the image whole, a network without one row by row.
            rows = [iter([whole(part)]) for part in rows]
        return several[0][0], (sum(r[1:], r[0]) / len(r) for r in zip(*rows, strict=True))

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> "Ensemble":
        """Open an ensemble's folder.

        Raises:
            MedsegError: It is none, a member is missing or damaged, or they do not fit.
        """
        folder = Path(folder)
        try:
            stored = dict(json.loads((folder / SPEC_FILE).read_text(encoding="utf-8")))
            if stored["format"] != FORMAT:
                raise ValueError(f"written as {stored['format']}, this medseg reads {FORMAT}")
            members = [Model.load(folder / name, device) for name in stored["members"]]
            return cls(members, stored["provenance"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MedsegError(f"{folder}: makes no ensemble ({error})") from None


def save_ensemble(
    members: Mapping[str, Path], folder: Path, *, provenance: Mapping[str, Any]
) -> Ensemble:
    """Copy model folders into an existing folder, and return the ensemble that they make.

    Args:
        members: Model folders, by the name that each will have there.
        folder: Where the ensemble is written.
        provenance: What made it; the members keep their own.

    Raises:
        MedsegError: A member is no model, or they do not fit.
    """
    ensemble = Ensemble([Model.load(member) for member in members.values()], provenance)
    for name, member in members.items():
        shutil.copytree(member, folder / name)
    content = {"format": FORMAT, **asdict(ensemble.spec), "members": list(members)}
    (folder / SPEC_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return ensemble


def open_model(folder: Path | str, device: str = "cpu") -> Model:
    """Open a model folder, of one model or of an ensemble.

    Raises:
        MedsegError: The folder is no model, is damaged, or a newer medseg made it.
    """
    try:
        stored = json.loads((Path(folder) / SPEC_FILE).read_text(encoding="utf-8"))
        several = "members" in stored
    except (OSError, ValueError, TypeError):
        several = False  # what is wrong with it, Model.load says
    return (Ensemble if several else Model).load(folder, device)


def _mean_thresholds(members: Sequence[Model]) -> dict[str, Any] | None:
    """Return how objects are found, with the mean of the members' thresholds."""
    finders = [member.finder for member in members if member.finder is not None]
    if not finders:
        return None
    first, *_ = finders
    thresholds = {
        name: sum(finder.thresholds[name] for finder in finders) / len(finders)
        for name in first.thresholds
    }
    return {**first.to_dict(), "thresholds": thresholds}


def _shared(spec: ModelSpec) -> list[Any]:
    """Return what all members of an ensemble have in common, as plain values."""
    grid = [spec.preparation[key] for key in ("spatial_dims", "spacing", "unit")]
    windows = [spec.window_voxels, spec.overlap, spec.neighbours]
    objects = {k: v for k, v in (spec.objects or {}).items() if k != "thresholds"}
    return [objects, spec.channels, list(spec.structures.items()), spec.axes, *grid, *windows]
