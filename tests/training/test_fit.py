"""A whole training on made images: it learns, resumes, and stops when it must."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from medseg.data.module import DataModule, Patches, PreparedCase
from medseg.errors import MedsegError
from medseg.losses import DeepSupervision, DiceCE
from medseg.networks import UNetClassic
from medseg.training import FitResult, SegmentationModule, fit
from medseg.training.fit import _precision, _validation_interval
from medseg.training.schedule import CLOCKS
from medseg.transforms import AUGMENTATIONS, PatchSampler, PatchSource


def disc(seed: int, side: int = 48) -> PreparedCase:
    """A bright noisy disc on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(y - rng.uniform(16, 32), x - rng.uniform(16, 32)) < rng.uniform(7, 12)
    image = inside + rng.normal(0, 0.4, inside.shape)
    return PreparedCase(
        f"disc_{seed}",
        PatchSource.of(
            torch.from_numpy(image[None].astype(np.float32)),
            torch.from_numpy(inside[None].astype(np.int32)),
        ),
    )


def data(iterations: int = 15, cases: list[PreparedCase] | None = None) -> DataModule:
    return DataModule(
        cases or [disc(i) for i in range(4)],
        [disc(i) for i in (10, 11)],
        sampler=PatchSampler((32, 32), foreground=0.67),
        augmentation=AUGMENTATIONS.build("none", 2, (32, 32)),
        batch=4,
        iterations_per_epoch=iterations,
        seed=7,
    )


def module(rate: float = 1e-2) -> SegmentationModule:
    pl.seed_everything(7, verbose=False)
    return SegmentationModule(
        UNetClassic(2, 1, 2, channels=[4, 8]),
        DeepSupervision(DiceCE()),
        structures={"disc": 1},
        window_voxels=(32, 32),
        learning_rate=rate,
    )


def train(folder: Path, trained: SegmentationModule | None = None, **changed) -> FitResult:
    batches = changed.pop("data", None) or data()
    how = {"epochs": 4, "iterations_per_epoch": 15, "validate_every": 2, "ema": 0.9}
    return fit(
        trained or module(),
        batches,
        folder=folder,
        device="cpu",
        gradient_clip=12.0,
        **how | changed,
    )


def test_discs_are_learned_and_the_curves_are_told(tmp_path):
    sent: list[tuple[int, dict[str, float]]] = []

    result = train(tmp_path, send=lambda step, values: sent.append((step, values)))

    assert result.best > 0.8
    assert (result.steps, result.resumed) == (60, False)
    assert {step for step, values in sent if "validation/dice" in values} == {30, 60}
    assert {step for step, values in sent if "train/loss" in values} == {10, 20, 30, 40, 50, 60}
    last = [values for _, values in sent if "validation/dice" in values][-1]
    assert set(last) == {f"validation/{m}" for m in ("dice", "dice/disc", "iou", "iou/disc")}


def test_the_module_keeps_the_weights_that_validated_best(tmp_path):
    trained = module()
    result = train(tmp_path, trained)

    counts = []
    trained.eval()
    for case in (disc(10), disc(11)):
        classes = trained.classes(case.source.image)
        counts.append(trained.count(classes, case.source.label[0]))
    hits, false, missed = torch.stack(counts)[:, 0].unbind(-1)

    assert float((2 * hits / (2 * hits + false + missed)).mean()) == pytest.approx(result.best)


@pytest.mark.parametrize(("epochs", "every"), [(1, 5), (3, 2)])
def test_the_end_is_validated_whether_or_not_it_is_its_turn(tmp_path, epochs, every):
    steps: list[int] = []

    def send(step: int, values: dict[str, float]) -> None:
        steps.extend([step] if "validation/dice" in values else [])

    train(
        tmp_path,
        data=data(2),
        epochs=epochs,
        iterations_per_epoch=2,
        validate_every=every,
        send=send,
    )

    assert steps[-1] == 2 * epochs


class PulledError(Exception):
    """Somebody pulls the plug."""


@pytest.fixture
def asked(monkeypatch) -> list[tuple[int, int]]:
    """The patches that were cut: (epoch, number) of each."""
    numbers: list[tuple[int, int]] = []
    cut = Patches.__getitem__

    def noted(self, at):
        numbers.append(at)
        return cut(self, at)

    monkeypatch.setattr(Patches, "__getitem__", noted)
    return numbers


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch, asked):

    def pull_the_plug(step: int, values: dict[str, float]) -> None:
        if step == 40:
            raise PulledError

    with pytest.raises(PulledError):
        train(tmp_path, send=pull_the_plug, checkpoint_every=0)
    asked.clear()
    steps: list[int] = []
    result = train(tmp_path, send=lambda step, values: steps.append(step))

    assert result.resumed
    assert result.steps == 60
    assert min(steps) == 40, "from the last checkpoint on, not from the start"
    # Step 39 was the last that was saved: nine batches of four in the third epoch.
    rest = [(2, number) for number in range(36, 60)] + [(3, number) for number in range(60)]
    assert asked == rest, "the patches that the uninterrupted run would have seen"
    assert result.best > 0.8


def test_a_run_that_has_ended_is_not_trained_again(tmp_path):
    first = train(tmp_path)

    second = train(tmp_path)

    assert second.resumed
    assert (second.best, second.steps) == (first.best, first.steps)


@pytest.mark.slow
def test_a_budget_of_time_is_kept_with_its_validations(tmp_path):
    began = time.monotonic()
    result = train(tmp_path, time_budget=6.0)

    assert 4 < result.seconds < 9
    assert time.monotonic() - began < 15
    assert result.best > 0.8


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    result = train(tmp_path, module(rate=1e-12), ema=None, epochs=50, validate_every=1, patience=2)

    assert result.steps == 45, "the first validation, and two that are no better"
    assert result.stopped_early


def test_patience_is_not_given_anew_to_a_run_that_goes_on(tmp_path, monkeypatch):
    how = {"ema": None, "epochs": 50, "validate_every": 1, "patience": 3}

    def pull_the_plug(step: int, values: dict[str, float]) -> None:
        if step == 40:
            raise PulledError

    with pytest.raises(PulledError):
        train(tmp_path, module(rate=1e-12), send=pull_the_plug, checkpoint_every=0, **how)
    result = train(tmp_path, module(rate=1e-12), **how)

    assert result.resumed
    assert result.steps == 60, "the first validation, and three that are no better"


def test_a_run_that_takes_all_its_steps_did_not_stop_early(tmp_path):
    assert not train(tmp_path, patience=10).stopped_early


@pytest.mark.parametrize(("seconds", "low", "high"), [(0.0, 0, 60), (0.05, 60, 100)])
def test_how_long_the_network_waits_for_patches_is_measured(
    tmp_path, monkeypatch, seconds, low, high
):
    cut = Patches.__getitem__

    def slow(self, at):
        time.sleep(seconds)
        return cut(self, at)

    monkeypatch.setattr(Patches, "__getitem__", slow)
    sent: list[dict[str, float]] = []

    result = train(tmp_path, data=data(10), epochs=2, send=lambda step, values: sent.append(values))

    assert low < result.idle_percent < high
    told = [values["train/idle_percent"] for values in sent if "train/idle_percent" in values]
    assert all(low < percent < high for percent in told)
    assert told


@pytest.mark.slow
def test_what_a_budget_of_time_comes_to_is_told_and_kept_by_a_run_that_goes_on(
    tmp_path, monkeypatch
):
    """The first part is stopped when half of its time is over."""
    said = [Console(file=io.StringIO(), width=200) for _ in range(2)]
    began = time.monotonic()

    def pull_the_plug(step: int, values: dict[str, float]) -> None:
        if time.monotonic() - began > 3:
            raise PulledError

    how = {"time_budget": 6.0, "data": data()}
    with pytest.raises(PulledError):
        train(tmp_path, send=pull_the_plug, console=said[0], checkpoint_every=0, **how)
    result = train(tmp_path, console=said[1], **how)

    first, second = (console.file.getvalue() for console in said)
    assert "time budget 0:00:06 (wall time), validations included; one about every" in first
    assert re.search(r"a step takes [\d.]+ s: about [\d,]+ steps", first)
    assert re.search(r"goes on at step \d+ with 0:00:0\d of 0:00:06 left", second)
    assert result.resumed
    assert 5 < result.seconds < 9


class Spoilt(SegmentationModule):
    """A module whose loss is no number from step 20 on."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step >= 20 else loss


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_best_weights(tmp_path):
    trained = Spoilt(
        UNetClassic(2, 1, 2, channels=[4, 8]),
        DeepSupervision(DiceCE()),
        structures={"disc": 1},
        window_voxels=(32, 32),
    )

    with pytest.raises(MedsegError) as refused:
        train(tmp_path, trained, validate_every=1)

    assert "the loss became nan at step 21 (cases disc_" in str(refused.value)
    assert "lower train.learning_rate" in str(refused.value)
    weights = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert weights["global_step"] == 15
    assert all(torch.isfinite(w).all() for w in weights["state_dict"].values())


class Marker:
    """When unpickled, writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "was_executed"
    torch.save({"state_dict": Marker(marker)}, tmp_path / "last.ckpt")

    with pytest.raises(MedsegError, match=r"last\.ckpt: damaged, or not written by medseg"):
        train(tmp_path)
    assert not marker.exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"PK\x03\x04 half a checkpoint")

    with pytest.raises(MedsegError, match=r"last\.ckpt: damaged.*\n  remove the folder"):
        train(tmp_path)


def test_with_a_processor_budget_validations_come_as_often_as_it_plans(monkeypatch):
    """Others have two thirds of the machine: three seconds pass for one of ours."""
    passed = {"wall": 0.0, "cpu": 0.0}
    for name in passed:
        monkeypatch.setitem(CLOCKS, name, lambda name=name: passed[name])
    judged = module()

    def slow(image: torch.Tensor) -> None:
        passed["wall"] += 3.0
        passed["cpu"] += 1.0

    monkeypatch.setattr(judged, "classes", slow)
    # Two images of a second each: a fifth of 50 s are five validations, one each 10 s of ours.
    assert _validation_interval(judged, data(), 50, "cpu").total_seconds() == pytest.approx(30)
    assert _validation_interval(judged, data(), 150, "wall").total_seconds() == pytest.approx(30)


@pytest.mark.parametrize(
    ("able", "wanted", "used", "warns"),
    [
        ({"avx512_bf16": True}, "auto", "bf16-mixed", False),
        ({"amx_bf16": True}, "bf16", "bf16-mixed", False),
        ({"avx2": True, "avx512_bf16": False}, "auto", "32-true", False),
        ({"avx2": True}, "bf16", "bf16-mixed", True),
    ],
)
def test_a_processor_trains_in_bf16_only_where_it_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], wanted: str, used: str, warns: bool
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    said = io.StringIO()

    assert _precision(wanted, "cpu", Console(file=said)) == used
    assert ("takes ten times as long" in " ".join(said.getvalue().split())) == warns
