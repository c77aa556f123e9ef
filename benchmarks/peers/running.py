"""What the scripts of all tools share: arguments, cores, clocks and ``run.json``.

Needs the standard library alone, as each tool runs in an environment of its own. Import it, and
call ``begin``, before PyTorch or TensorFlow, which count the cores when they are imported.
"""

import argparse
import json
import os
import platform
import re
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Run:
    """One tool on one data set: how long what took, how much memory, and what was changed.

    Args:
        tool: Its name, for people.
        packages: Names of the packages whose versions are told, the tool's own first.
        given: The arguments.
    """

    def __init__(self, tool: str, packages: list[str], given: argparse.Namespace) -> None:
        self.budget: float = given.budget
        self.cores: int = given.cores
        self.clock: str = given.clock
        self.data: Path = given.data
        self.out: Path = given.out
        self.cases: dict[str, Any] = json.loads((given.data / "cases.json").read_text())
        self.facts: dict[str, Any] = {"seconds": {}, "changed": []}
        self._tool, self._packages = tool, packages
        self._now = {"wall": time.monotonic, "cpu": _processor_time}[given.clock]
        self._part = ""
        self._began = self._now()

    def names(self, part: str) -> list[str]:
        """Return the cases of ``train``, ``validation`` or ``test``."""
        names: list[str] = self.cases["split"][part]
        return names

    @property
    def used(self) -> float:
        """Share of the training budget that the part now running has used."""
        return (self._now() - self._began) / self.budget

    def now(self, part: str) -> None:
        """End the part that was running, and count the time of this one from here on.

        Args:
            part: ``preprocessing``, ``training`` (which alone has the budget), ``tuning`` on the
                validation cases, or ``prediction``.
        """
        self._end()
        self._part = part

    def _end(self) -> None:
        if self._part:
            seconds = round(self._now() - self._began, 1)
            self.facts["seconds"][self._part] = seconds
        self._began = self._now()

    def changed(self, *what: str) -> None:
        """Note where the tool's own recipe was left."""
        self.facts["changed"] += what

    def write(self) -> None:
        """End the last part and write ``run.json``."""
        self._end()
        kilobytes = [
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        facts = {
            "tool": self._tool,
            "versions": {name: version(name) for name in self._packages},
            "python": platform.python_version(),
            "data_set": self.cases["data_set"],
            "split_hash": self.cases["split_hash"],
            "budget_s": self.budget,
            "clock": self.clock,
            "cores": self.cores,
            "peak_mb": round(max(kilobytes) / 1024),
            **self.facts,
        }
        (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all scripts take."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("data", type=Path, help="what export.py made")
    made.add_argument("out", type=Path, help="folder that is made: predictions and run.json")
    made.add_argument("--budget", type=_seconds, required=True, help="of training: 60s, 20m, 1h")
    made.add_argument("--cores", type=int, default=2)
    made.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="count wall time, or processor time where the machine does other work, too",
    )
    return made


def begin(given: argparse.Namespace) -> None:
    """Make the folder, and keep this process and its children to the cores."""
    given.data, given.out = given.data.resolve(), given.out.resolve()
    (given.out / "predictions").mkdir(parents=True)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(given.cores)
    # Threads that wait for each other by spinning count as work, and double it on a busy machine.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _processor_time() -> float:
    """Return the processor time of this process's threads, and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is no duration; write 60s, 20m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
