"""On real images, a run that was killed ends as one that was not."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"))


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_killed_twice_ends_with_the_same_weights_and_one_history(
    data_root, tmp_path, monkeypatch, workers
):
    monkeypatch.setenv("MEDSEG_DATA", str(data_root))

    killed = BENCHMARK["compare"](tmp_path, kills=2, workers=workers, epochs=8, seed=workers)

    assert killed, "it ended before the first kill"
    assert all(0 < one.step < 80 for one in killed)
