"""Who trains, who chooses the checkpoint, who is reported."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.data import SPLITS, Case, Split
from medseg.errors import MedsegError

PARTS = ("train", "validation", "test")


def cases_of(names: list[str], groups: list[str] | None = None) -> list[Case]:
    groups = groups or names
    return [
        Case(name, (Path(f"{name}.tif"),), None, group)
        for name, group in zip(names, groups, strict=True)
    ]


def slices(count: int) -> list[Case]:
    return cases_of([f"slice_{i}" for i in range(count)])


@given(st.integers(8, 60), st.integers(1, 4), st.integers(0, 9))
def test_every_case_is_in_one_part_and_no_group_is_divided(count, size, seed):
    cases = cases_of([f"c{i}" for i in range(count)], [f"g{i // size}" for i in range(count)])
    if -(-count // size) < 4:
        return

    split = SPLITS.build("group", cases, seed=seed)

    parts = [getattr(split, part) for part in PARTS]
    assert sorted(case.name for part in parts for case in part) == sorted(c.name for c in cases)
    groups = [{case.group for case in part} for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))


@given(st.integers(0, 99), st.permutations(range(20)))
def test_the_same_seed_gives_the_same_split_in_whatever_order_the_files_are_found(seed, order):
    cases = slices(20)
    shuffled = [cases[i] for i in order]

    assert SPLITS.build("group", cases, seed=seed) == SPLITS.build("group", shuffled, seed=seed)


def test_another_seed_gives_another_split_and_another_hash():
    splits = [SPLITS.build("group", slices(30), seed=seed) for seed in range(3)]

    assert len({split.hash for split in splits}) == 3
    assert all(len(split.hash) == 64 for split in splits)


def test_shares_are_shares_of_the_groups():
    split = SPLITS.build("group", slices(40), test=0.25, validation=0.1)

    assert [len(getattr(split, part)) for part in PARTS] == [26, 4, 10]


def test_the_hash_is_that_of_the_names_in_each_part():
    a, b, c = cases_of(["a", "b", "c"])

    assert Split((a,), (b,), (c,)).hash == Split((a,), (b,), (c,)).hash
    assert Split((a,), (b,), (c,)).hash != Split((a,), (c,), (b,)).hash


def test_without_a_share_for_test_none_is_tested():
    assert SPLITS.build("group", slices(5), test=0.0).test == ()


def test_too_few_groups_are_refused_with_the_numbers():
    with pytest.raises(MedsegError, match=r"2 group\(s\) cannot be split into 1 for test, 1 for"):
        SPLITS.build("group", slices(2))
    with pytest.raises(MedsegError, match="leaves no case for validation"):
        SPLITS.build("group", slices(9), validation=0.0)


@pytest.mark.parametrize("settings", [{"test": 1.5}, {"validation": -0.1}, {"test": 1.0}])
def test_what_is_no_share_is_refused(settings):
    ((name, _),) = settings.items()
    with pytest.raises(ValueError, match=rf"split\.{name}: is a share of the groups"):
        SPLITS.build("group", slices(9), **settings)


def test_blocks_are_contiguous_in_the_order_of_the_numbers():
    split = SPLITS.build("blocks", slices(20)[::-1], test=0.25, validation=0.1)

    assert split.names == {
        "train": [f"slice_{i}" for i in range(13)],
        "validation": ["slice_13", "slice_14"],
        "test": [f"slice_{i}" for i in range(15, 20)],
    }


def test_parts_are_stated_as_ranges_names_and_patterns():
    cases = cases_of(["00", "01", "02", "03", "a_1", "a_2", "a_10", "dish_b1", "dish_b2", "x"])

    split = SPLITS.build(
        "stated", cases, train=["00-02", "a_2-a_10"], validation=["dish_b*"], test=["03", "a_1"]
    )

    assert split.names == {
        "train": ["00", "01", "02", "a_2", "a_10"],
        "validation": ["dish_b1", "dish_b2"],
        "test": ["03", "a_1"],
    }


def test_a_name_that_looks_like_a_range_or_a_pattern_is_a_name_first():
    cases = cases_of(["2020-03", "cell[1]", "cell1", "x²"])

    split = SPLITS.build("stated", cases, train=["2020-03"], validation=["cell[1]"], test=["x²"])

    assert split.names == {"train": ["2020-03"], "validation": ["cell[1]"], "test": ["x²"]}


def test_a_range_or_name_that_fits_nothing_is_refused_with_its_part():
    with pytest.raises(MedsegError, match=r'split\.test: "90-99" fits no case'):
        SPLITS.build("stated", cases_of(["1", "2"]), train=["1"], validation=["2"], test=["90-99"])


def test_one_patient_on_both_sides_is_refused():
    cases = cases_of(["left", "right", "other"], ["ann", "ann", "bob"])

    with pytest.raises(MedsegError, match=r"group ann is both in train and in test \(case right\)"):
        SPLITS.build("stated", cases, train=["left"], validation=["other"], test=["right"])


def test_one_case_in_two_parts_is_refused():
    with pytest.raises(MedsegError, match="both in train and in validation"):
        SPLITS.build("stated", slices(4), train=["slice_0-2"], validation=["slice_2-3"])
