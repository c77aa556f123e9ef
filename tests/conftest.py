"""What every test may use."""

import os
from pathlib import Path

import pytest

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
