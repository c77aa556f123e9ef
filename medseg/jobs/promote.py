"""Say which version of a registered model people are to use."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.jobs.extend import RESULT


@dataclass(frozen=True)
class Promoted:
    """What an alias means now.

    Args:
        name: The registered model.
        version: The version that has the alias.
        alias: The alias.
        previous: The version that had it before, if any; it is ``rollback`` now.
    """

    name: str
    version: str
    alias: str
    previous: str | None

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self)


def promote(run: str, *, name: str | None, alias: str, tracking_uri: str | None) -> Promoted:
    """Give an alias to a version; the version that had it becomes ``rollback``.

    Args:
        run: ``models:/NAME/VERSION``, a run's folder, or its MLflow id.
        name: The registered model, where an MLflow run is in several.
        alias: The alias.
        tracking_uri: The MLflow store.

    Raises:
        MedsegError: There is no such version, or the run registered none.
    """
    from medseg.tracking import promote as move_alias
    from medseg.tracking import versions_of_run

    address = _registered_by_folder(Path(run)) if Path(run).is_dir() else run
    version = re.fullmatch(r"models:/([^/@]+)/(\d+)", address)
    if version:
        chosen = {version[1]: version[2]}
    else:
        chosen = versions_of_run(address, tracking_uri=tracking_uri)
    if name is not None:
        chosen = {known: v for known, v in chosen.items() if known == name}
    if len(chosen) != 1:
        known = ", ".join(chosen) or "none"
        raise MedsegError(
            f"{run}: registered under {known}{' named ' + name if name else ''}; give a version, "
            f"models:/NAME/VERSION, or --name"
        )
    ((model, number),) = chosen.items()
    moved = move_alias(model, number, alias=alias, tracking_uri=tracking_uri)
    return Promoted(moved.name, moved.version, alias, moved.previous)


def _registered_by_folder(folder: Path) -> str:
    result = folder / RESULT
    if not result.is_file():
        raise MedsegError(f"{folder}: no finished run, there is no {RESULT}")
    registered = json.loads(result.read_text())["registered"]
    if registered is None:
        raise MedsegError(f"{folder}: this run registered no model")
    return str(registered)
