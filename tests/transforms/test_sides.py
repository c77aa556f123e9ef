import pytest

from medseg.transforms import find_sided_pairs


@pytest.mark.parametrize(
    "names",
    [
        ("left lung", "right lung"),
        ("lung_left", "lung_right"),
        ("kidney_l", "kidney_r"),
        ("L. femur", "R. femur"),
        ("LeftAtrium", "RightAtrium"),
        ("Lung_upper_lobe_LEFT", "Lung_upper_lobe_RIGHT"),
        ("Hippocampus-L", "Hippocampus-R"),
        ("L_caudate", "R_caudate"),
    ],
)
def test_names_that_differ_in_the_side_are_a_pair(names):
    assert find_sided_pairs(("background", *names)) == [(1, 2)]
    assert find_sided_pairs((*reversed(names), "background")) == [(1, 0)]


def test_each_structure_finds_its_own_counterpart():
    names = ["background", "rib_left_1", "rib_left_2", "rib_right_2", "rib_right_1", "spine"]

    assert find_sided_pairs(names) == [(1, 4), (2, 3)]


def test_names_without_a_counterpart_are_no_pair():
    assert find_sided_pairs(["left lung", "right kidney", "vertebra L1", "vertebra R"]) == []
    assert find_sided_pairs(["anterior", "posterior", "cell", "copyright", "cleft"]) == []
