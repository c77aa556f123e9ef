"""The learning rate and the end of a run, by steps and by the clock."""

import time
from types import SimpleNamespace

import pytest
import torch

from medseg.training import Schedule
from medseg.training.schedule import moving_average


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Run:
    """The part of a Trainer that a schedule sees, with one step after the other."""

    def __init__(self, schedule: Schedule, rate: float = 0.5) -> None:
        weight = torch.nn.Parameter(torch.zeros(1))
        self.trainer = SimpleNamespace(
            optimizers=[torch.optim.SGD([weight], lr=rate)],
            global_step=schedule.steps,
            should_stop=False,
            check_val_every_n_epoch=5,
        )
        self.schedule = schedule
        schedule.on_train_start(self.trainer, None)

    def step(self) -> float:
        """Take one step and return the learning rate that it had."""
        self.schedule.on_train_batch_start(self.trainer, None, {}, 0)
        self.trainer.global_step += 1
        self.schedule.on_train_batch_end(self.trainer, None, {}, {}, 0)
        return self.trainer.optimizers[0].param_groups[0]["lr"]


def test_the_rate_falls_from_its_full_value_towards_zero_over_the_steps():
    run = Run(Schedule(iterations=100))
    rates = [run.step() for _ in range(100)]

    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx(0.5 * 0.5**0.9)
    assert rates[-1] == pytest.approx(0.5 * 0.01**0.9)
    assert run.trainer.should_stop


def test_a_run_stops_with_its_last_step_not_before_and_validates_there():
    run = Run(Schedule(iterations=3))
    stopped = []
    for _ in range(3):
        run.step()
        stopped.append((run.trainer.should_stop, run.trainer.check_val_every_n_epoch))

    assert stopped == [(False, 5), (False, 5), (True, 1)]


def test_the_rate_rises_over_the_warmup():
    run = Run(Schedule(iterations=10_000, warmup=4))

    assert [run.step() for _ in range(5)] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5], rel=1e-2)


def test_with_a_budget_the_rate_follows_the_clock_on_fast_and_slow_machines(clock):
    for seconds in (1.0, 7.0):
        run, began = Run(Schedule(iterations=1, time_budget=100)), clock.now
        rates = []
        while not run.trainer.should_stop:
            rates.append(run.step())
            clock.now += seconds
        assert clock.now - began == pytest.approx(100, abs=2 * seconds)
        assert rates[-1] <= 0.5 * (1.01 * seconds / 100) ** 0.9 + 1e-9


def test_the_time_of_the_last_validation_is_kept_for_the_one_at_the_end(clock):
    schedule = Schedule(iterations=1, time_budget=100)
    run = Run(schedule)
    clock.now += 40
    schedule.on_validation_start(run.trainer, None)
    clock.now += 20
    schedule.on_validation_end(run.trainer, None)
    while not run.trainer.should_stop:
        run.step()
        clock.now += 1

    assert schedule.seconds == pytest.approx(80, abs=2), "20 seconds are left to validate"


def test_a_resumed_run_goes_on_with_steps_and_seconds(clock):
    first = Run(Schedule(iterations=1, time_budget=100))
    for _ in range(3):
        first.step()
        clock.now += 10
    saved = first.schedule.state_dict()
    clock.now += 5000  # the night in which nothing ran

    schedule = Schedule(iterations=1, time_budget=100)
    schedule.load_state_dict(saved)
    second = Run(schedule)

    assert (schedule.steps, schedule.seconds) == (3, 30)
    assert schedule.progress == pytest.approx(0.3)
    clock.now += 10
    second.step()
    assert (schedule.steps, schedule.seconds) == (4, 40)


def test_the_time_left_is_told_from_the_pace_so_far(clock):
    schedule = Schedule(iterations=10)
    run = Run(schedule)
    assert schedule.seconds_left is None
    for _ in range(2):
        run.step()
        clock.now += 5

    assert schedule.seconds_left == pytest.approx(40)


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_without_time_is_refused(budget):
    with pytest.raises(ValueError, match="a time budget is positive"):
        Schedule(iterations=1, time_budget=budget)


def test_the_average_of_the_weights_starts_short_and_grows_to_its_decay():
    average = moving_average(0.99)._kwargs["avg_fn"]  # what Lightning hands to PyTorch
    zero, one = torch.zeros(1), torch.ones(1)

    assert float(average(zero, one, torch.tensor(0))) == pytest.approx(0.9)
    assert float(average(zero, one, torch.tensor(90))) == pytest.approx(1 - 91 / 100)
    assert float(average(zero, one, torch.tensor(10**6))) == pytest.approx(0.01)


def test_a_budget_of_processor_time_is_deaf_to_the_time_that_others_take(monkeypatch, clock):
    spent = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: spent[0])
    run = Run(Schedule(iterations=1, time_budget=10, clock="cpu"))
    steps = 0
    while not run.trainer.should_stop:
        run.step()
        spent[0] += 1
        clock.now += 50
        steps += 1

    assert steps == 11, "the step that finds the budget spent is the last"
