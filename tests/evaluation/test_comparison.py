import json

import numpy as np
import pytest
from scipy.stats import wilcoxon

from medseg.errors import MedsegError
from medseg.evaluation import compare, comparison_json, comparison_table
from medseg.evaluation.comparison import _holm


def table(record, values, **other):
    return [record(f"c{i:02d}", value, **other) for i, value in enumerate(values)]


def test_differences_are_taken_case_by_case(record):
    (pair,) = compare(
        {"A": table(record, [0.5, 0.6, 0.9]), "B": table(record, [0.6, 0.6, 0.8])}, resamples=100
    ).pairs

    assert (pair.first, pair.second, pair.n, pair.n_groups) == ("A", "B", 3, 3)
    assert [c.difference for c in pair.cases] == pytest.approx([0.1, 0.0, -0.1])
    assert pair.difference == pytest.approx(0.0)
    assert (pair.p, pair.better) == (None, "")
    assert pair.note == "no test: 3 groups, at least 6 are needed"


def test_a_small_steady_gain_is_found_though_the_cases_differ_widely(record):
    hard = np.linspace(0.2, 0.9, 12)
    result = compare({"A": table(record, hard), "B": table(record, hard + 0.02)}, resamples=1000)

    (pair,) = result.pairs
    assert pair.difference == pytest.approx(0.02)
    assert pair.p == pytest.approx(2 / 2**12)
    assert (pair.better, result.ranking[0].name, result.ranking[0].share_first) == ("B", "B", 1.0)
    assert result.verdicts()[0].startswith("Dice: B is better than A by 0.020 (means ")


def test_of_distances_the_shorter_is_better(record):
    far = np.linspace(2, 9, 12)
    facts = {"metric": "hd95", "unit": "mm", "definition": "hd95/v1"}
    result = compare(
        {"A": table(record, far, **facts), "B": table(record, far + 1, **facts)}, resamples=500
    )

    assert result.pairs[0].better == "A"
    assert [(row.name, row.rank) for row in result.ranking] == [("A", 1), ("B", 2)]


def test_equal_predictions_are_never_called_different(record):
    same = table(record, np.linspace(0.2, 0.9, 12))
    (pair,) = (result := compare({"A": same, "B": same}, resamples=500)).pairs

    assert (pair.p, pair.p_holm, pair.better, pair.low, pair.high) == (1.0, 1.0, "", 0.0, 0.0)
    assert [(row.rank, row.share_first) for row in result.ranking] == [(1, 0.5), (1, 0.5)]


def test_noise_is_not_called_better(record):
    random = np.random.default_rng(1)
    base = random.uniform(0.5, 0.9, 20)
    noise = random.normal(0, 0.05, 20)
    noise -= noise.mean()
    result = compare({"A": table(record, base), "B": table(record, base + noise)}, resamples=1000)

    assert result.pairs[0].better == ""
    assert 0 < result.ranking[0].share_first < 1
    assert (result.ranking[0].rank_low, result.ranking[0].rank_high) == (1, 2)
    assert "no difference shown between A and B" in result.verdicts()[0]


def test_the_test_is_over_patients_not_slices(record):
    def slices(gain):
        return [
            record(f"p{p}s{s}", 0.5 + p / 50 + gain, group=f"patient {p}")
            for p in range(7)
            for s in range(10)
        ]

    (pair,) = compare({"A": slices(0.0), "B": slices(0.01)}, resamples=500).pairs

    assert (pair.n, pair.n_groups) == (70, 7)
    assert pair.p == pytest.approx(wilcoxon([0.01] * 7).pvalue)


def test_holm_multiplies_the_smallest_p_most_and_never_reorders():
    assert _holm({0: 0.04, 1: 0.01, 2: 0.03}) == pytest.approx({1: 0.03, 2: 0.06, 0: 0.06})
    assert _holm({0: 0.6, 1: 0.9}) == {0: 1.0, 1: 1.0}


def test_single_structures_do_not_blur_the_main_question(record):
    def organs(gain, count):
        return [
            record(f"c{i}", 0.5 + i / 50 + gain, structure=f"organ {k}")
            for i in range(8)
            for k in range(count)
        ]

    two, ten = (
        compare({"A": organs(0.0, k), "B": organs(0.01, k)}, resamples=200) for k in (2, 10)
    )

    assert (two.tests, ten.tests) == ((1, 2), (1, 10))
    assert two.headlines[0].p_holm == ten.headlines[0].p_holm == pytest.approx(2 / 2**8)
    assert ten.pairs[1].p_holm == pytest.approx(10 * 2 / 2**8)


def test_all_structures_come_first_as_the_mean_within_each_case(record):
    def case(left, right):
        return [record("a", left, structure="left"), record("a", right, structure="right")]

    result = compare({"A": case(0.5, 0.7), "B": case(0.5, 0.9)}, resamples=10)

    assert [p.structure for p in result.pairs] == ["all structures", "left", "right"]
    assert (result.pairs[0].mean_first, result.pairs[0].mean_second) == pytest.approx((0.6, 0.7))


def test_inventing_a_structure_counts_against_finding_nothing(record):
    clean = [record("a", 0.8), record("b", None)]
    invents = [record("a", 0.8), record("b", 0.0, status="empty_reference")]

    (pair,) = compare({"clean": clean, "invents": invents}, resamples=10).pairs

    assert (pair.mean_first, pair.mean_second) == pytest.approx((0.9, 0.4))


def test_what_nobody_can_count_is_left_out_for_all(record):
    facts = {"metric": "splits", "unit": "count"}
    failed = [record("a", 3.0, **facts), record("b", None, status="missing_prediction", **facts)]
    fine = [record("a", 1.0, **facts), record("b", 0.0, **facts)]

    (pair,) = compare({"failed": failed, "fine": fine}, resamples=10).pairs

    assert (pair.n, pair.mean_first, pair.mean_second) == (1, 3.0, 1.0)


def test_three_are_compared_pair_by_pair_and_ranked(record):
    base = np.linspace(0.3, 0.6, 10)
    result = compare(
        {name: table(record, base + gain) for name, gain in (("A", 0.0), ("B", 0.2), ("C", 0.1))},
        resamples=200,
    )

    assert [(p.first, p.second) for p in result.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [(row.rank, row.name) for row in result.ranking] == [(1, "B"), (2, "C"), (3, "A")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"case": "z"}, "differ in their cases\n  only in A (1): c02\n  only in B (1): z\n"),
        ({"structure": "spleen"}, "in their structures\n  only in A (1): c02: liver\n"),
        ({"group": "p9"}, "in their groups\n  only in A (1): c02 in c02\n"),
        (
            {"spacing": (5.0, 0.8, 0.8)},
            "in their grids\n  only in A (1): c02 at 0.8 x 0.8 x 2.5 mm",
        ),
        ({"definition": "dice/v9"}, "only in B (1): dice in 1 (dice/v9)\n"),
        ({"settings": "smooth=1"}, "only in B (1): dice (smooth=1) in 1 (dice/voxel/v1)\n"),
    ],
)
def test_what_is_not_the_same_is_not_compared(record, change, text):
    mine = table(record, [0.5, 0.6, 0.7])
    theirs = [*mine[:2], record(change.pop("case", "c02"), 0.7, **{"group": "c02", **change})]

    with pytest.raises(MedsegError) as refused:
        compare({"A": mine, "B": theirs})

    assert str(refused.value).startswith("A and B cannot be compared: they ")
    assert text in str(refused.value)
    assert str(refused.value).endswith("then compare again")


def test_long_lists_of_differences_are_cut(record):
    with pytest.raises(MedsegError, match=r"only in A \(25\): .* and 15 more"):
        compare({"A": table(record, [0.5] * 26), "B": table(record, [0.5])})


def test_a_value_that_only_one_has_is_refused(record):
    both = [record("a", 0.5), record("a", 0.6, metric="iou"), record("b", 0.5)]
    one = [*both, record("b", 0.6, metric="iou")]

    with pytest.raises(MedsegError, match="differ in their values"):
        compare({"A": one, "B": both})


def test_one_table_alone_is_refused(record):
    with pytest.raises(MedsegError, match="needs two tables of records or more, got 1"):
        compare({"A": table(record, [0.5])})


def test_a_comparison_is_a_table_and_json_without_nan(record):
    result = compare({"A": table(record, [0.5, 0.6]), "B": table(record, [0.6, 0.7])}, resamples=10)

    text = json.dumps(comparison_json(result), allow_nan=False)

    assert json.loads(text)["pairs"][0]["low"] is None
    assert comparison_table(result)["second"].tolist() == ["B"]
    assert "cases" not in comparison_table(result)
