from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from medseg.tracking.names import LONGEST, Slugs, slug

names = st.text(min_size=1, max_size=300)


def test_brackets_and_spaces_become_underscores():
    assert slug("dice/kidney (left)") == "dice/kidney_left"


def test_letters_of_any_script_stay():
    assert slug("dice/Zellkörper") == "dice/Zellkörper"


def test_a_name_cannot_climb_out_of_its_folder():
    assert slug("/../../etc/passwd") == "etc/passwd"
    assert slug("a//b/./c") == "a/b/c"


def test_two_names_with_one_slug_are_told_apart_and_stay_so():
    slugs = Slugs()
    left, other = slugs("kidney (left)"), slugs("kidney_left")

    assert left == "kidney_left"
    assert other != left
    assert other.startswith("kidney_left-")
    assert (slugs("kidney (left)"), slugs("kidney_left")) == (left, other)


def test_names_that_differ_in_case_only_are_told_apart():
    slugs = Slugs()

    assert slugs("Liver").casefold() != slugs("liver").casefold()


@settings(deadline=None)  # the cores are shared
@given(st.lists(names, unique=True, max_size=20))
def test_different_names_never_share_a_slug_and_mlflow_accepts_each(given_names):
    slugs = Slugs()
    found = [slugs(name) for name in given_names]

    assert len({slug.casefold() for slug in found}) == len(given_names)
    for one in found:
        _validate_metric_name(one)
        assert len(one) <= LONGEST


@settings(deadline=None)
@given(names)
def test_a_slug_is_its_own_slug(name):
    assert slug(slug(name)) == slug(name)
