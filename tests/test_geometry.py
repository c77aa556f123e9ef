"""Lengths and grids."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.geometry import Grid, Length, Unit

PHYSICAL = st.sampled_from([Unit.MM, Unit.UM, Unit.NM])
SIZES = st.floats(1e-3, 1e3)
NUMBERS = st.floats(-1e12, 1e12)


@st.composite
def grids(draw, unit=PHYSICAL):
    n = draw(st.sampled_from([2, 3]))
    triple = st.tuples(*[st.floats(-500, 500)] * n)
    turned = np.eye(n)[list(draw(st.permutations(range(n))))]
    return Grid(
        shape=draw(st.tuples(*[st.integers(1, 60)] * n)),
        spacing=draw(st.tuples(*[SIZES] * n)),
        unit=draw(unit),
        origin=draw(st.none() | triple),
        direction=draw(st.sampled_from([None, tuple(map(tuple, turned.tolist()))])),
    )


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("2 um", 2.0, Unit.UM),
        ("1.5mm", 1.5, Unit.MM),
        (" 40 nm ", 40.0, Unit.NM),
        ("3 px", 3.0, Unit.PX),
        ("3 voxels", 3.0, Unit.PX),
        ("0.5 µm", 0.5, Unit.UM),
        ("0.5 μm", 0.5, Unit.UM),
        ("1e-3 mm", 0.001, Unit.MM),
        (".5 mm", 0.5, Unit.MM),
    ],
)
def test_a_length_is_a_number_with_a_unit(text, value, unit):
    assert Length.parse(text) == Length(value, unit)


@pytest.mark.parametrize("text", ["2", "um", "2 cm", "2 um um", "nan mm", "1,5 mm", "", 2, None])
def test_what_is_no_length_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match='write a number and a unit: "2 um"'):
        Length.parse(text)


def test_a_length_beyond_all_numbers_is_refused():
    with pytest.raises(ValueError, match="too large"):
        Length.parse("1e999 mm")


@given(NUMBERS, st.sampled_from(Unit))
def test_a_written_length_reads_back_the_same(value, unit):
    assert Length.parse(str(Length(value, unit))) == Length(value, unit)


@given(NUMBERS, PHYSICAL, PHYSICAL)
def test_a_length_in_another_unit_and_back_is_the_same(value, one, other):
    there = Length(value, one).to(other)
    assert Length(there, other).to(one) == pytest.approx(value)


def test_a_millimetre_has_a_thousand_micrometres_and_a_million_nanometres():
    assert Length(1, Unit.MM).to(Unit.UM) == 1000
    assert Length(1, Unit.MM).to(Unit.NM) == pytest.approx(1e6)
    assert Length(2500, Unit.NM).to(Unit.UM) == 2.5


@given(PHYSICAL)
def test_pixels_have_no_size(unit):
    with pytest.raises(ValueError, match="pixel size is not known"):
        Length(3, Unit.PX).to(unit)
    with pytest.raises(ValueError, match="give the length in px"):
        Length(3, unit).to(Unit.PX)


def test_a_length_on_a_grid_is_in_its_unit_and_pixels_are_multiples_of_its_voxels():
    grid = Grid((10, 10), (0.5, 0.5), Unit.UM)

    assert grid.length(Length(1, Unit.MM)) == 1000
    assert grid.length(Length(3, Unit.PX)) == 1.5
    assert Grid((10, 10), (1, 1)).length(Length(3, Unit.PX)) == 3


def test_pixels_mean_nothing_on_unequal_spacing_nor_millimetres_on_none():
    with pytest.raises(ValueError, match="the spacing differs between the axes"):
        Grid((5, 9, 9), (2.5, 1, 1), Unit.MM).length(Length(3, Unit.PX))
    with pytest.raises(ValueError, match="pixel size is not known"):
        Grid((9, 9), (1, 1)).length(Length(3, Unit.MM))


def test_a_grid_is_described_in_the_order_x_y_z():
    grid = Grid((96, 512, 256), (2.5, 0.8, 0.7), Unit.MM)

    assert grid.describe() == "256 x 512 x 96 voxels of 0.7 x 0.8 x 2.5 mm"
    assert Grid((96, 512), (1, 1)).describe() == "512 x 96 pixels of unknown size"


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan)])
def test_a_grid_without_sizes_for_its_axes_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing"):
        Grid((4, 4), spacing)


def test_the_affine_maps_array_indices_to_x_y_z():
    grid = Grid((4, 5, 6), (3.0, 2.0, 1.0), Unit.MM, origin=(10, 20, 30))

    assert (grid.affine @ [1, 0, 0, 1])[:3].tolist() == [10, 20, 33]
    assert (grid.affine @ [0, 0, 1, 1])[:3].tolist() == [11, 20, 30]


@given(grids())
def test_a_grid_matches_itself_and_itself_in_another_unit(grid):
    assert grid.matches(grid)
    for unit in (Unit.MM, Unit.UM, Unit.NM):
        assert grid.matches(grid.in_unit(unit))


@given(grids(), grids())
def test_matching_is_mutual(a, b):
    assert a.matches(b) == b.matches(a)


@given(grids())
def test_a_grid_of_other_size_or_unknown_pixel_size_does_not_match(grid):
    longer = (grid.shape[0] + 1, *grid.shape[1:])

    assert not grid.matches(replace(grid, shape=longer))
    assert not grid.matches(replace(grid, unit=Unit.PX))


@given(grids(), st.floats(0.02, 5))
def test_a_shift_by_more_than_a_hundredth_of_a_voxel_does_not_match(grid, share):
    known = replace(grid, origin=(0.0,) * grid.spatial_dims, direction=tuple(
        map(tuple, np.eye(grid.spatial_dims).tolist())
    ))  # fmt: skip
    step = share * min(grid.spacing)

    assert not known.matches(replace(known, origin=(step, *known.origin[1:])))
    assert known.matches(replace(known, origin=(0.004 * min(grid.spacing), *known.origin[1:])))


@given(grids(), grids())
def test_what_a_file_does_not_state_is_not_held_against_it(grid, other):
    silent = replace(grid, origin=None, direction=None)

    assert grid.matches(silent)
    assert silent.matches(grid)


def test_a_long_axis_shows_a_small_error_of_the_spacing():
    grid = Grid((2, 1000), (1.0, 1.0), Unit.MM)

    assert grid.matches(Grid((2, 1000), (1.0, 1.000005), Unit.MM))
    assert not grid.matches(Grid((2, 1000), (1.0, 1.0001), Unit.MM))
