"""The signature is the schema."""

from collections.abc import Sequence

import pytest

from medseg.registry import Registry


def toy(kind: str = "network") -> Registry[object]:
    registry: Registry[object] = Registry(kind, given=("spatial_dims",))

    @registry.register("msd", published=100)
    class MSD:
        def __init__(
            self, spatial_dims: int, *, depth: int = 50, dilations: Sequence[int] = (1, 2)
        ) -> None:
            self.given = spatial_dims, depth, dilations

    @registry.register("nsd")
    def nsd(*, tolerance: float, sides: tuple[int, ...] | None = None) -> float:
        return tolerance

    return registry


def test_a_mistyped_setting_is_refused_with_its_path_and_the_nearest_name():
    with pytest.raises(ValueError, match="not a setting") as refused:
        toy().check("msd", {"dilation": [1, 2]})

    assert str(refused.value) == (
        'network.dilation: not a setting of "msd"; did you mean "dilations"?'
    )


def test_a_setting_that_resembles_none_lists_those_that_exist():
    with pytest.raises(ValueError, match="known are: depth, dilations"):
        toy().check("msd", {"colour": "red"})


def test_an_argument_that_the_caller_gives_is_no_setting():
    with pytest.raises(ValueError, match=r'^network\.spatial_dims: not a setting of "msd"'):
        toy().check("msd", {"spatial_dims": 3})


def test_an_unknown_part_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r'^network.name: "mds" is no network; did you mean "msd"'):
        toy().check("mds", {})
    with pytest.raises(ValueError, match=r'^network.name: "mds" is no network; did you mean "msd"'):
        toy()["mds"]


def test_messages_start_with_the_path_that_the_caller_names():
    with pytest.raises(ValueError, match=r'^metrics\[1\].name: "mds" is no network'):
        toy().check("mds", {}, path="metrics[1]")
    with pytest.raises(ValueError, match=r'^metrics\[1\].tolerance: "nsd" needs this setting$'):
        toy().check("nsd", {}, path="metrics[1]")
    with pytest.raises(ValueError, match=r"^\.tolerance: "):
        toy().check("nsd", {}, path="")


@pytest.mark.parametrize(
    ("part", "settings", "path"),
    [
        ("msd", {"depth": "50"}, "network.depth: "),
        ("msd", {"depth": 50.5}, "network.depth: "),
        ("msd", {"depth": True}, "network.depth: "),
        ("msd", {"depth": None}, "network.depth: "),
        ("msd", {"dilations": 3}, "network.dilations: "),
        ("msd", {"dilations": [1, "2"]}, "network.dilations[1]: "),
        ("nsd", {"tolerance": "1e-3"}, "network.tolerance: "),
        ("nsd", {"tolerance": 1.0, "sides": [1, 2.5]}, "network.sides[1]: "),
    ],
)
def test_a_setting_of_another_type_is_refused_where_it_stands(part, settings, path):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is checked below
        toy().check(part, settings)

    assert str(refused.value).startswith(path)
    assert f"got {next(reversed(settings.values()))!r}" in str(refused.value)


def test_whole_numbers_do_for_decimals_and_lists_for_tuples():
    toy().check("nsd", {"tolerance": 2, "sides": [1, 2]})
    toy().check("nsd", {"tolerance": 2.5, "sides": (1, 2)})


def test_a_part_is_built_from_what_is_given_and_its_settings():
    assert toy().build("msd", 3, depth=7).given == (3, 7, (1, 2))


def test_a_name_is_registered_once():
    registry = toy()
    with pytest.raises(ValueError, match='network "msd" is registered twice'):
        registry.register("msd")(int)


def test_facts_are_those_of_the_registration_and_names_are_sorted():
    assert toy().facts("msd") == {"published": 100}
    assert list(toy()) == ["msd", "nsd"]
    assert "msd" in toy()
    assert "mds" not in toy()
