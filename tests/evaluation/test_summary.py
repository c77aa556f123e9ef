import json

import numpy as np
import pytest

from medseg.evaluation import pick_cases, summarise, summary_json, summary_table, worst_first
from medseg.evaluation.intervals import interval


def only(records, **other):
    (summary,) = summarise(records, resamples=1000, **other)
    return summary


def test_failures_count_at_the_worst_value_and_the_mean_without_them_stands_beside(record):
    facts = {"metric": "hd95", "unit": "mm", "definition": "hd95/v1"}
    summary = only(
        [
            record("a", 2.0, **facts),
            record("b", 4.0, **facts),
            record("c", 90.0, status="empty_prediction", **facts),
            record("d", 100.0, status="missing_prediction", **facts),
            record("e", 104.0, status="empty_reference", **facts),
            record("f", None, **facts),
            record("g", 0.0, **facts),
            record("h", 100.0, status="error", **facts),
        ]
    )

    assert summary.mean == pytest.approx(400 / 7)
    assert summary.mean_ok == pytest.approx(2.0)
    assert summary.median == 90.0
    assert (summary.minimum, summary.maximum) == (0.0, 104.0)
    assert (summary.n, summary.n_ok, summary.n_missed, summary.n_false) == (7, 3, 2, 1)
    assert (summary.n_both_empty, summary.n_error, summary.n_groups) == (1, 1, 7)


def test_missing_one_more_structure_never_improves_the_mean(record):
    found = [record("a", 0.9), record("b", 0.8), record("c", 0.7)]
    missed = [*found[:2], record("c", 0.0, status="empty_prediction")]

    assert only(missed).mean < only(found).mean


def test_all_structures_is_the_mean_within_a_case_and_then_over_cases(record):
    # Case a has two structures, case b one: b weighs as much as a, not half.
    records = [
        record("a", 0.8, structure="left"),
        record("a", 0.6, structure="right"),
        record("b", 0.1, structure="left"),
        record("b", None, structure="right"),
    ]

    everything, left, right = summarise(records, resamples=100)

    assert everything.structure == "all structures"
    assert everything.mean == pytest.approx((0.7 + 0.1) / 2)
    assert (everything.n, everything.n_ok, everything.n_both_empty) == (2, 3, 1)
    assert (left.structure, left.mean) == ("left", pytest.approx(0.45))
    assert (right.structure, right.mean, right.n) == ("right", pytest.approx(0.6), 1)


def test_one_structure_has_no_second_row_for_all(record):
    assert [s.structure for s in summarise([record("a", 0.5)])] == ["liver"]


def test_two_tolerances_are_two_metrics(record):
    records = [
        record("a", 0.5, metric="nsd", settings="tolerance=1 mm"),
        record("a", 0.9, metric="nsd", settings="tolerance=2 mm"),
    ]

    assert [(s.label, s.mean) for s in summarise(records)] == [
        ("nsd (tolerance=1 mm)", 0.5),
        ("nsd (tolerance=2 mm)", 0.9),
    ]


def test_pixels_and_millimetres_are_never_averaged(record):
    records = [
        record("a", 2.0, metric="hd95", unit="mm"),
        record("b", 8.0, metric="hd95", unit="px"),
    ]

    assert [(s.unit, s.mean) for s in summarise(records)] == [("mm", 2.0), ("px", 8.0)]


def test_a_structure_that_is_nowhere_has_no_mean_and_says_so(record):
    summary = only([record("a", None), record("b", None)])

    assert (summary.n, summary.n_both_empty, summary.mean, summary.low) == (0, 2, None, None)
    assert summary.note == "no case holds this structure"


def test_fewer_than_three_groups_give_no_interval_and_say_so(record):
    slices = [record(f"s{i}", 0.5 + i / 100, group=f"patient {i % 2}") for i in range(20)]

    summary = only(slices)

    assert (summary.n, summary.n_groups, summary.low, summary.high) == (20, 2, None, None)
    assert summary.note == "no interval: 2 groups, at least 3 are needed"


def test_few_groups_give_an_interval_that_is_called_rough(record):
    records = [
        record(name, value) for name, value in zip("abcd", (0.5, 0.6, 0.7, 0.9), strict=True)
    ]

    summary = only(records)

    assert summary.low < summary.mean < summary.high
    assert summary.note == "the interval is rough: only 4 groups"


def test_more_slices_of_the_same_patients_do_not_narrow_the_interval():
    values = np.array([0.9, 0.8, 0.5, 0.7, 0.6, 0.95])
    groups = list("abcdef")

    once = interval(groups, values, resamples=2000)
    copied = interval(groups * 50, np.tile(values, 50), resamples=2000)
    as_if_independent = interval(
        [f"{g}{i}" for i in range(50) for g in groups], np.tile(values, 50), resamples=2000
    )

    assert copied == pytest.approx(once)
    assert np.ptp(as_if_independent) < np.ptp(once) / 4


def test_the_same_seed_gives_the_same_interval(record):
    records = [record(f"c{i}", value) for i, value in enumerate(np.linspace(0.3, 0.9, 12))]

    assert only(records, seed=3) == only(records, seed=3)
    assert only(records, seed=3).low != only(records, seed=4).low


def test_equal_values_have_an_interval_of_no_width(record):
    summary = only([record(name, 0.75) for name in "abcdefghijkl"])

    assert (summary.low, summary.high, summary.sd) == (0.75, 0.75, 0.0)


def test_the_interval_of_few_patients_holds_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(5)
    hits = 0
    for seed in range(300):
        low, high = interval(list("abcdef"), random.normal(0, 1, 6), resamples=500, seed=seed)
        hits += low <= 0 <= high

    assert 0.91 <= hits / 300 <= 0.99


def test_a_failure_without_a_worst_value_is_said_not_to_count(record):
    facts = {"metric": "splits", "unit": "count"}
    summary = only(
        [record("a", 2.0, **facts), record("b", None, status="missing_prediction", **facts)]
    )

    assert (summary.mean, summary.n, summary.n_missed) == (2.0, 1, 1)
    assert "1 failure does not count: this metric has no worst value" in summary.note


def test_the_worst_case_comes_first_by_the_first_metric(record):
    dice = [record("a", 0.9), record("b", 0.2), record("c", 0.5)]
    hd95 = [
        record(name, value, metric="hd95", unit="mm")
        for name, value in (("a", 9.0), ("b", 1.0), ("c", 5.0))
    ]

    assert [case.case for case in worst_first(dice + hd95)] == ["b", "c", "a"]
    assert [case.case for case in worst_first(hd95 + dice)] == ["a", "c", "b"]
    assert worst_first([]) == []


def test_half_of_the_pictures_are_of_the_worst_cases_then_come_median_and_best(record):
    records = [record(f"c{i:02d}", i / 100) for i in range(21)]

    assert pick_cases(records, 4) == ["c00", "c01", "c10", "c20"]
    assert pick_cases(records, 30) == [f"c{i:02d}" for i in range(21)]
    assert len(set(pick_cases(records, 12))) == 12


def test_a_case_that_is_there_twice_is_refused(record):
    with pytest.raises(ValueError, match="the first is a, liver, dice"):
        summarise([record("a", 0.5), record("a", 0.6)])


def test_a_summary_is_a_table_and_json_without_nan(record):
    summaries = summarise([record("a", None), record("b", None)])

    text = json.dumps(summary_json(summaries), allow_nan=False)

    assert json.loads(text)[0]["mean"] is None
    assert summary_table(summaries)["structure"].tolist() == ["liver"]
    assert list(summary_table([]).columns) == list(summary_table(summaries).columns)
