"""Make a run longer that has ended: the same run, with more epochs or more time."""

import json
import shutil
from pathlib import Path
from typing import Any

from medseg.config import to_yaml
from medseg.errors import MedsegError
from medseg.evaluation import write_json
from medseg.jobs.setup import Setup

RUN = "run.json"
RESULT = "result.json"
MAY_DIFFER = ("medseg", "job_hash", "job.train.epochs", "job.train.patience", "time_budget")


def note_run(setup: Setup, folder: Path) -> None:
    """Write down in a run's folder what is trained in it, for the day on which it is extended."""
    write_json(_facts(setup), folder / RUN)


def prepare_extension(setup: Setup, folder: Path) -> None:
    """Check that a run can go on as this job, and take away what says that it has ended.

    Its checkpoints stay; its model and its evaluation are made anew.

    Raises:
        MedsegError: There is no run, it differs from the job in more than its length, or it is
            that long already.
    """
    if not (folder / RUN).is_file():
        raise MedsegError(f"--extend {folder}: no run of medseg train (there is no {RUN})")
    was, now = json.loads((folder / RUN).read_text(encoding="utf-8")), _facts(setup)
    before, after = _flat(was), _flat(now)
    differing = [
        f"  {key}: {_shown(after.get(key))}, was {_shown(before.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if key not in MAY_DIFFER and before.get(key) != after.get(key)
    ]
    if differing:
        raise MedsegError(
            f"--extend {folder}: that run was another training\n"
            + "\n".join(differing)
            + "\n  a run can be given more epochs or time, and nothing else; train it as a new one"
        )
    length, unit = ("time_budget", "s") if now["time_budget"] else ("job.train.epochs", "epochs")
    if bool(was["time_budget"]) != bool(now["time_budget"]):
        raise MedsegError(
            f"--extend {folder}: a run of epochs is extended by epochs (train.epochs=200), and one "
            f"with a budget of time by time (--time-budget 40m)"
        )
    ended = (folder / RESULT).exists()
    if after[length] < before[length] or (ended and after[length] == before[length]):
        raise MedsegError(
            f"--extend {folder}: it has {before[length]:g} {unit}, and was to have "
            f"{after[length]:g}; name more"
        )
    # In this order: a kill in between leaves a run that the same command extends.
    (folder / RESULT).unlink(missing_ok=True)
    if after[length] > before[length]:
        shutil.rmtree(folder / "model", ignore_errors=True)
        note_run(setup, folder)


def _facts(setup: Setup) -> dict[str, Any]:
    return {
        "job": setup.job.model_dump(mode="json"),
        "card": to_yaml(setup.card),
        **setup.provenance(setup.split),
        "time_budget": setup.how.time_budget,
        "clock": setup.how.clock,
    }


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
