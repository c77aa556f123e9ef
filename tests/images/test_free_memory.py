"""What a container or a batch job may use counts, not what the machine has."""

from pathlib import Path

import pytest

from medseg.images.trust import _left_by_group, free_memory


def group(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - inactive}\ninactive_file {inactive}\n")


@pytest.fixture
def mine(tmp_path) -> Path:
    (tmp_path / "cgroup").write_text("0::/slurm/job_7\n")
    return tmp_path / "cgroup"


def test_the_tightest_of_a_group_and_those_above_it_counts(tmp_path, mine):
    group(tmp_path / "slurm" / "job_7", "max", 500)
    group(tmp_path / "slurm", "1000", 600, inactive=200)

    assert _left_by_group(mine, tmp_path) == 1000 - (600 - 200)

    group(tmp_path / "slurm" / "job_7", "550", 500)
    assert _left_by_group(mine, tmp_path) == 50


def test_a_container_sees_its_limit_at_the_root(tmp_path):
    (tmp_path / "cgroup").write_text("0::/\n")
    group(tmp_path, "1000", 1200)

    assert _left_by_group(tmp_path / "cgroup", tmp_path) == 0


def test_where_there_are_no_groups_they_leave_more_than_any_machine_has(tmp_path, mine):
    assert _left_by_group(tmp_path / "nothing", tmp_path) > 2**60
    assert _left_by_group(mine, tmp_path) > 2**60
    assert free_memory() > 0
