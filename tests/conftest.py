"""What every test may use."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# CI tries the same examples each time; a developer's machine looks for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Two OpenMP threads on a busy machine spin against each other; one is faster for small arrays.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real annotated images: MEDSEG_DATA, or a data folder beside the checkout."""
    named = os.environ.get("MEDSEG_DATA")
    if named:
        if not Path(named).is_dir():
            pytest.skip(f"no real images: MEDSEG_DATA names no folder ({named})")
        return Path(named)
    beside = sorted(Path(__file__).parents[2].glob("*/data/isbi2012_em"))
    if not beside:
        pytest.skip(
            "no real images: set MEDSEG_DATA to the folder that holds isbi2012_em and others"
        )
    return beside[0].parent


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.output)


def run_command(*words: object) -> Ran:
    """Run ``medseg`` with these words in this process."""
    from medseg.cli import main

    output, errors = io.StringIO(), io.StringIO()
    words_before, sys.argv = sys.argv, ["medseg", *map(str, words)]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = words_before
    return Ran(code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="session")
def medseg() -> Callable[..., Ran]:
    """The command, run in this process: exit code and what it printed."""
    return run_command
