"""``medseg check --job``: memory and time before the start, and jobs that cannot run."""

import pytest

from medseg.jobs import forecast as forecasting


@pytest.fixture
def check(discs, medseg, monkeypatch, tmp_path):
    """Check the discs with a job whose text was changed."""
    monkeypatch.chdir(tmp_path)

    def run(*changes: tuple[str, str], card: str = "discs.yaml"):
        text = discs.job.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        folder = discs.root
        described = (folder / "discs.yaml").read_text() + f"root: {folder}\n"
        (tmp_path / "discs.yaml").write_text(described)
        (tmp_path / "bare.yaml").write_text(described.replace("pixel_size: [0.5 um, 0.5 um]\n", ""))
        (tmp_path / "job.yaml").write_text(text)
        words = ("--job", tmp_path / "job.yaml", "--device", "cpu", "--json")
        return medseg("check", tmp_path / card, *words)

    return run


def faults(ran) -> list[tuple[str, str]]:
    return [(f["check"], f["found"]) for f in ran.json["findings"] if f["severity"] == "error"]


def test_memory_and_time_are_foretold(check):
    ran = check()

    assert (ran.code, faults(ran)) == (0, []), ran.errors
    told = ran.json["forecast"]
    assert (told["steps"], told["validations"]) == (3 * 12, 3 // 2)
    # Six images of 64 x 64, of which one tests: one channel and labels, 4 bytes each.
    assert told["data_bytes"] in {n * 64 * 64 * 8 for n in (3, 4, 5)}
    assert 0 < told["step_seconds"] < 10
    assert 1e8 < told["peak_bytes"] < 1e10
    assert "36 steps" in ran.json["facts"]["time"]


def test_a_job_with_fewer_steps_than_are_timed_is_foretold(check):
    ran = check(("epochs: 3, iterations_per_epoch: 12", "epochs: 1, iterations_per_epoch: 1"))

    assert (ran.code, ran.json["forecast"]["steps"]) == (0, 1)


def test_a_step_that_needs_more_than_there_is_is_an_error(check, monkeypatch):
    monkeypatch.setattr(forecasting, "free_memory", lambda: 10_000)

    ran = check()

    assert ran.code == 1
    assert [name for name, _ in faults(ran)] == ["job"]
    assert "keeps more than" in faults(ran)[0][1]


def test_memory_that_is_taken_is_an_error_with_what_to_lower(check, monkeypatch):
    monkeypatch.setattr(forecasting, "_available", lambda device: 1_000_000)

    ran = check()

    (memory,) = [f for f in ran.json["findings"] if f["check"] == "memory"]
    assert (ran.code, memory["severity"]) == (1, "error")
    assert "train.batch" in memory["remedy"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("patch_voxels: [32, 32]", "patch_voxels: [32, 32], spacing: [1 um, 1 um]"), "size"),
        (("metrics: [dice", "metrics: [dice, {name: nsd, tolerance: 2 um}"), "size"),
    ],
)
def test_lengths_without_a_pixel_size_are_found_before_the_start(check, change, said):
    ran = check(change, ("dataset: discs.yaml", "dataset: bare.yaml"), card="bare.yaml")

    assert ran.code == 1
    assert [name for name, _ in faults(ran)] == ["job"]
    assert said in faults(ran)[0][1]


def test_a_split_of_the_job_that_cannot_be_made_is_an_error(check):
    ran = check(("patch_voxels: [32, 32]", "patch_voxels: [32, 32], split: {name: stated, "
                 "train: [disc_0], validation: [disc_9]}"))  # fmt: skip

    assert ran.code == 1
    assert faults(ran)[0] == ("split", 'split.validation: "disc_9" fits no case')


def test_a_job_on_another_card_is_refused(check):
    ran = check(card="bare.yaml")

    assert ran.code == 1
    assert "is a job on" in ran.errors
