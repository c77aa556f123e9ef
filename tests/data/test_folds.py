"""Folds hold each group out once; training sets that grow contain each other."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from medseg.data import SPLITS, Case, Split, folds, thinned
from medseg.errors import MedsegError

PARTS = ("train", "validation", "test")
# Cases of each group: one slide has one image, another four.
sizes = st.lists(st.integers(1, 4), min_size=6, max_size=20)


def split_of(sizes: list[int], **shares) -> Split:
    cases = [
        Case(f"c{group}_{number}", (Path("c.tif"),), None, f"g{group}")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    return SPLITS.build("group", cases, **shares)


def names(cases) -> set[str]:
    return {case.name for case in cases}


@given(sizes, st.integers(2, 9), st.one_of(st.none(), st.integers(0, 9)))
def test_each_case_but_the_test_ones_is_held_out_once_and_no_group_is_divided(sizes, count, seed):
    split = split_of(sizes, test=0.2)

    parts = folds(split, count, seed=seed)

    held_out = [case.name for fold in parts for case in fold.test]
    assert sorted(held_out) == sorted(names(split.train) | names(split.validation))
    for fold in parts:
        assert not names(fold.cases) & names(split.test), "these are for the end"
        assert names(fold.cases) == set(held_out)
        groups = [{case.group for case in getattr(fold, part)} for part in PARTS]
        assert all(groups), "somebody trains, validates and is held out"
        assert sum(map(len, groups)) == len(set.union(*groups))


@given(sizes, st.integers(2, 6))
def test_folds_hold_out_as_many_groups_as_those_of_scikit_learn(sizes, count):
    split = split_of(sizes, test=0)
    count = min(count, len(sizes))
    groups = [case.group for case in split.cases]
    theirs = GroupKFold(count, shuffle=True, random_state=0).split(groups, groups=groups)

    held_out = [{case.group for case in fold.test} for fold in folds(split, count, seed=0)]

    expected = [len(set(np.array(groups)[test])) for _, test in theirs]
    assert sorted(map(len, held_out)) == sorted(expected)


@pytest.mark.parametrize("groups", [3, 4])
def test_below_five_groups_each_is_left_out_once(groups):
    parts = folds(split_of([2] * groups, test=0), 5, seed=0)

    assert len(parts) == groups
    assert [len(fold.test) for fold in parts] == [2] * groups


def test_two_groups_cannot_be_cross_validated():
    with pytest.raises(MedsegError, match=r"2 group\(s\) beside the test cases cannot be cross-v"):
        folds(split_of([3, 3, 3], test=0.3), 5, seed=0)


def test_one_fold_is_no_cross_validation():
    with pytest.raises(ValueError, match="two folds or more, got 1"):
        folds(split_of([1] * 9), 1, seed=0)


def test_as_large_a_share_validates_as_in_the_split_itself():
    # 16 of 20 train and 4 validate; of the 16 that are not held out, a fifth are 3.
    (fold, *_) = folds(split_of([1] * 20, test=0, validation=0.2), 5, seed=0)

    assert [len(getattr(fold, part)) for part in PARTS] == [13, 3, 4]


def test_slices_of_one_stack_are_held_out_in_blocks():
    slices = [Case(f"slice_{i}", (Path("s.tif"),), None, f"slice_{i}") for i in range(12)]
    split = SPLITS.build("blocks", slices, test=0.25, validation=0.25)

    held_out = [[case.name for case in fold.test] for fold in folds(split, 3, seed=None)]

    assert held_out == [[f"slice_{i + j}" for j in range(3)] for i in (0, 3, 6)]


@given(sizes, st.integers(0, 9))
def test_growing_training_sets_contain_each_other_and_change_nothing_else(sizes, seed):
    split = split_of(sizes)

    parts = thinned(split, [1.0, 0.1, 0.5, 0.25], seed=seed)

    trained = [names(part.train) for part in parts]
    assert trained == sorted(trained, key=len)
    assert all(few < many for few, many in itertools.pairwise(trained))
    assert parts[-1] == split
    assert {(part.validation, part.test) for part in parts} == {(split.validation, split.test)}


def test_shares_that_come_to_the_same_groups_are_one():
    # Of the four groups that train, a tenth and a quarter are both one.
    parts = thinned(split_of([1] * 5, test=0), [0.1, 0.25, 0.5, 1], seed=0)

    assert [len(part.train) for part in parts] == [1, 2, 4]


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="above 0 to 1"):
        thinned(split_of([1] * 9), [share], seed=0)
