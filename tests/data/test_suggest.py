"""What names of cases suggest: groups, and slices that count on."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.data.suggest import count_on, suggest_groups


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["eye_1L", "eye_1R", "eye_2L", "eye_2R", "eye_3L"], ["eye_1", "eye_2", "eye_3"]),
        (["p1_slice_01", "p1_slice_02", "p2_slice_01", "p3_slice_01"], ["p1", "p2", "p3"]),
        (["fish7_3", "fish7_4", "fish8_3", "fish9_1"], ["fish7", "fish8", "fish9"]),
        (["dishA-t001", "dishA-t002", "dishB-t001", "dishC-t004"], ["dishA", "dishB", "dishC"]),
    ],
)
def test_members_of_a_group_share_what_stands_before(names, groups):
    pattern = suggest_groups(names)

    assert pattern is not None
    assert sorted({re.search(pattern, name)[1] for name in names}) == groups


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c", "d"],
        ["00", "01", "02", "03"],
        ["hippocampus_001", "hippocampus_003", "hippocampus_004"],
        ["p1_slice_01", "p1_slice_02", "p2_slice_01"],  # two groups cannot be split in three
        ["8f2c0e", "91aa03", "c0ffee"],
    ],
)
def test_names_without_such_a_form_suggest_nothing(names):
    assert suggest_groups(names) is None


@given(st.integers(0, 500), st.integers(2, 40), st.sampled_from(["", "t", "slice_"]))
def test_numbers_without_a_gap_count_on_in_any_order(first, count, prefix):
    names = [f"{prefix}{number:03d}" for number in range(first, first + count)]

    assert count_on(names[::-1])
    assert not count_on([*names[:1], *names[2:], f"{prefix}{first + count + 5:03d}"]) or count == 1
    assert not count_on([*names, "other_1"])
