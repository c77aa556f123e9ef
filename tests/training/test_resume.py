"""A run that was stopped anywhere ends with the weights of the run that was never stopped."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from test_fit import disc

from medseg.data.module import DataModule
from medseg.errors import MedsegError
from medseg.files import held_alone
from medseg.losses import DeepSupervision, DiceCE
from medseg.networks import UNetClassic
from medseg.signals import AGAIN, INTERRUPTED, stoppable
from medseg.training import FitResult, SegmentationModule, fit
from medseg.training.resume import DurableIO, newest_checkpoint, read_checkpoint
from medseg.transforms import AUGMENTATIONS, PatchSampler

EPOCHS, STEPS_AN_EPOCH = 4, 3


def batches(workers: int) -> DataModule:
    return DataModule(
        [disc(i) for i in range(4)],
        [disc(10)],
        sampler=PatchSampler((32, 32), foreground=0.67),
        augmentation=AUGMENTATIONS.build("light", 2, (32, 32)),
        batch=2,
        iterations_per_epoch=STEPS_AN_EPOCH,
        seed=7,
        workers=workers,
    )


def train(
    folder: Path, *, workers: int = 0, seed: int = 7, rate: float = 1e-2, **changed
) -> tuple[FitResult, dict]:
    """Train a network with dropout and batch norm; return the weights that were kept, too."""
    pl.seed_everything(seed, verbose=False)
    module = SegmentationModule(
        UNetClassic(2, 1, 2, channels=[4, 8], dropout=0.3),
        DeepSupervision(DiceCE()),
        structures={"disc": 1},
        window_voxels=(32, 32),
        learning_rate=rate,
    )
    how = {"epochs": EPOCHS, "validate_every": 2, "warmup": 3, "ema": 0.9, "patience": 50}
    result = fit(
        module,
        batches(workers),
        folder=folder,
        iterations_per_epoch=STEPS_AN_EPOCH,
        device="cpu",
        precision="fp32",
        seed=7,
        **how | changed,
    )
    return result, module.state_dict()


def equal(one: object, other: object) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def all_weights(folder: Path) -> dict:
    """What decides a run from its last checkpoint on: weights, their average, optimiser, steps."""
    last = read_checkpoint(folder / "last.ckpt")
    names = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
    return {name: last[name] for name in (*names, "global_step", "epoch")}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_from_every_checkpoint_a_run_goes_on_to_the_same_weights_bit_for_bit(
    tmp_path, monkeypatch, workers
):
    save = DurableIO.save_checkpoint
    folders: list[Path] = []

    def save_and_copy(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        if Path(path).name == "last.ckpt":
            folders.append(tmp_path / f"killed_{len(folders)}")
            shutil.copytree(tmp_path / "whole", folders[-1])

    with monkeypatch.context() as patched:
        patched.setattr(DurableIO, "save_checkpoint", save_and_copy)
        whole, weights = train(tmp_path / "whole", workers=workers, checkpoint_every=0)
    assert len(folders) == EPOCHS * STEPS_AN_EPOCH

    for folder in folders[:: 1 if workers == 0 else 3]:
        # Another process has another state of everything random.
        again, resumed = train(folder, workers=workers, seed=123)

        assert again.resumed
        assert (again.best, again.steps) == (whole.best, whole.steps)
        assert equal(resumed, weights), folder
        assert equal(all_weights(folder), all_weights(tmp_path / "whole")), folder


@pytest.fixture
def said() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_goes_on(tmp_path, said):
    _, weights = train(tmp_path / "whole")
    train(tmp_path / "damaged", checkpoint_every=0)
    last = tmp_path / "damaged/last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) * 6 // 10])

    result, resumed = train(tmp_path / "damaged", console=said)

    assert result.resumed
    assert "last.ckpt: damaged" in said.file.getvalue()
    assert "goes on from previous.ckpt, step 11" in said.file.getvalue()
    assert (tmp_path / "damaged/last.ckpt.damaged").exists()
    assert equal(resumed, weights)


def test_one_wrong_bit_in_the_weights_is_noticed(tmp_path):
    file = tmp_path / "one.ckpt"
    torch.save({"weights": torch.ones(1000)}, file)
    content = bytearray(file.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 2000] ^= 1
    file.write_bytes(content)

    torch.load(file, weights_only=True)  # torch itself does not
    with pytest.raises(MedsegError, match=r"one\.ckpt: damaged.*checksum"):
        read_checkpoint(file)


def test_a_kill_between_the_two_renames_leaves_the_checkpoint_of_before(tmp_path, said):
    train(tmp_path)
    (tmp_path / "last.ckpt").rename(tmp_path / "previous.ckpt")

    assert newest_checkpoint(tmp_path, said)[0].name == "previous.ckpt"


def test_a_full_disk_is_named_and_the_checkpoint_of_before_is_whole(tmp_path, monkeypatch):
    train(tmp_path, epochs=1)
    before = read_checkpoint(tmp_path / "last.ckpt")["global_step"]

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg.training.resume.flush", full)
    with pytest.raises(MedsegError, match=r"No space left on device.*\n.*of before is whole"):
        train(tmp_path, epochs=2)

    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", AGAIN), ("SIGUSR1", AGAIN), ("SIGINT", INTERRUPTED)]
)
def test_a_signal_saves_the_run_which_goes_on_to_the_same_weights(tmp_path, said, name, code):
    _, weights = train(tmp_path / "whole")

    def ask(step: int, values: dict[str, float]) -> None:
        os.kill(os.getpid(), getattr(signal, name))

    with stoppable() as stop, pytest.raises(SystemExit) as left:
        train(tmp_path / "stopped", send=ask, stop=stop, console=said)
    assert left.value.code == code
    assert f"{name}: saved at step 6; the same command goes on" in said.file.getvalue()
    assert read_checkpoint(tmp_path / "stopped/last.ckpt")["global_step"] == 6
    again, resumed = train(tmp_path / "stopped")

    assert again.steps == EPOCHS * STEPS_AN_EPOCH
    assert equal(resumed, weights)


def test_a_signal_to_all_processes_of_a_job_does_not_kill_the_loader_before_the_run_is_saved(
    tmp_path,
):
    """SLURM and Ctrl-C signal the workers, too."""
    code = (
        "import os, signal, sys; from pathlib import Path; import test_resume as t; "
        "from medseg.signals import stoppable\n"
        "def ask(step, values): os.killpg(0, signal.SIGTERM)\n"
        "with stoppable() as stop: t.train(Path(sys.argv[1]), workers=2, send=ask, stop=stop)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ran.returncode == AGAIN, ran.stderr
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 6


def test_outside_of_training_a_signal_ends_the_command_at_once():
    with stoppable(), pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGTERM)

    assert left.value.code == AGAIN


def test_the_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        train(tmp_path, epochs=1, stop=stop)

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_has_ended_is_extended_by_asking_for_more_epochs(tmp_path):
    short, _ = train(tmp_path, epochs=2)
    same, _ = train(tmp_path, epochs=2)
    longer, _ = train(tmp_path, epochs=5)

    assert (short.steps, same.steps, longer.steps) == (6, 6, 15)
    assert longer.resumed
    assert longer.best >= short.best


def test_a_run_that_stopped_early_stays_stopped_and_counts_anew_when_extended(tmp_path):
    how = {"ema": None, "validate_every": 1, "patience": 2, "epochs": 30, "rate": 1e-12}
    first, weights = train(tmp_path, **how)
    again, same = train(tmp_path, **how)
    more, _ = train(tmp_path, **how | {"epochs": 31})

    assert (first.steps, again.steps, more.steps) == (9, 9, 15)
    assert first.stopped_early
    assert again.stopped_early
    assert equal(weights, same)


def test_a_run_whose_folder_was_moved_remembers_its_best_score(tmp_path):
    how = {"ema": None, "validate_every": 1, "rate": 1e-12}
    train(tmp_path / "here", epochs=2, **how)
    shutil.move(tmp_path / "here", tmp_path / "there")
    train(tmp_path / "there", epochs=4, **how)

    assert read_checkpoint(tmp_path / "there/best.ckpt")["global_step"] == STEPS_AN_EPOCH


@pytest.mark.slow
def test_the_time_that_was_spent_is_remembered(tmp_path):
    def stop(step: int, values: dict[str, float]) -> None:
        if step:
            raise KeyError

    with pytest.raises(KeyError):
        train(tmp_path, time_budget=1000.0, checkpoint_every=0, send=stop)
    saved = read_checkpoint(tmp_path / "last.ckpt")["callbacks"]["Schedule"]["seconds"]
    result, _ = train(tmp_path, time_budget=saved + 2)

    assert saved > 0
    assert result.seconds >= saved + 2


def test_a_second_process_in_the_same_run_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from medseg.files import held_alone\n"
        "with held_alone(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with held_alone(tmp_path):
        refused = subprocess.run(command, capture_output=True, text=True)
    taken = subprocess.run(command, capture_output=True, text=True)

    assert "another process is at work on this run" in refused.stderr
    assert taken.returncode == 0
