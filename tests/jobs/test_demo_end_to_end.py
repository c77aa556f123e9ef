"""The demo goes the whole way, in 2D and in 3D."""

import pytest

from medseg.evaluation import read_table


@pytest.mark.slow
@pytest.mark.parametrize("which", [[], ["--organs"]])
def test_the_demo_makes_checks_trains_judges_registers_and_predicts(which, medseg, tmp_path):
    folder = tmp_path / "demo"
    done = medseg("demo", str(folder), "--minutes", "0.05", *which)

    assert done.code == 0, done.errors
    images = sorted(path.name for path in (folder / "images").iterdir())
    assert sorted(path.name for path in (folder / "predicted").iterdir()) == images
    (records,) = folder.glob("runs/*/evaluation/records.parquet")
    assert len({record.group for record in read_table(records)}) == 3
    (report,) = folder.glob("runs/*/evaluation/report.html")
    assert report.stat().st_size > 100_000
    again = medseg("demo", str(folder))
    assert again.code == 1
    assert "is not empty" in again.errors
