import json
import math

import pytest

from medseg.tracking.history import History


def lines(history):
    return [json.loads(line) for line in history.path.read_text().splitlines()]


def test_each_value_is_one_line_with_step_key_value_and_time(tmp_path):
    History(tmp_path).add({"loss": 0.5}, step=3, time=1000)

    assert lines(History(tmp_path)) == [{"step": 3, "key": "loss", "value": 0.5, "time": 1000}]


def test_a_value_that_is_not_finite_is_counted_not_kept(tmp_path):
    history = History(tmp_path)
    history.add({"hd95": math.inf}, step=0, time=1000)
    history.add({"hd95": math.nan}, step=1, time=2000)

    kept = [(p.key, p.value, p.status) for p in history.points]
    assert kept == [
        ("hd95", None, "inf"),
        ("not_finite/hd95", 1.0, None),
        ("hd95", None, "nan"),
        ("not_finite/hd95", 2.0, None),
    ]


def test_counting_goes_on_after_a_resume(tmp_path):
    History(tmp_path).add({"hd95": math.inf}, step=0, time=1000)
    history = History(tmp_path)
    history.add({"hd95": math.inf}, step=1, time=2000)

    assert history.points[-1].value == 2.0


def test_a_step_trained_twice_is_in_the_history_once(tmp_path):
    History(tmp_path).add({"loss": 0.5}, step=3, time=1000)
    resumed = History(tmp_path)

    assert resumed.add({"loss": 0.6}, step=3, time=2000) == []
    assert len(lines(resumed)) == 1


def test_a_resumed_run_gives_colliding_names_their_old_slugs(tmp_path):
    first = History(tmp_path)
    first.add({"kidney(left)": 1.0, "kidney_left": 2.0}, step=0, time=1000)
    keys = [point.key for point in first.points]
    resumed = History(tmp_path)
    resumed.add({"kidney_left": 2.0, "kidney(left)": 1.0}, step=1, time=2000)

    assert [point.key for point in resumed.points[2:]] == keys[::-1]


def test_a_line_cut_by_a_kill_is_removed_and_the_rest_kept(tmp_path):
    history = History(tmp_path)
    history.add({"loss": 0.5}, step=0, time=1000)
    with history.path.open("a") as file:
        file.write('{"step": 1, "key": "lo')
    resumed = History(tmp_path)
    resumed.add({"loss": 0.4}, step=1, time=2000)

    assert [line["value"] for line in lines(resumed)] == [0.5, 0.4]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')

    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: not a metric"):
        History(tmp_path)
