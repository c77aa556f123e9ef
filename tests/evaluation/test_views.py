import numpy as np
import pytest

from medseg.evaluation import ReportCase
from medseg.evaluation.views import choose_slices, slicing_axis, turn_of, views
from medseg.geometry import Grid, Unit


def grid_along(*axes: str, spacing=(1.0, 1.0, 1.0), shape=(9, 9, 9)) -> Grid:
    """A grid whose array axes lead to R, L, A, P, S or I."""
    world = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    direction = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row, sign = world[letter]
        direction[row, column] = sign
    return Grid(shape, spacing, Unit.MM, (0.0,) * 3, tuple(map(tuple, direction.tolist())))


def shown(grid: Grid, mark: tuple[int, int, int], **other):
    """The first view of a volume that is black but for one bright voxel, which is the organ."""
    image = np.zeros(grid.shape, np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    image[mark] = labels[mark] = 1
    made, first = views(ReportCase("a", image, labels, labels, grid, **other))
    return made[first]


@pytest.mark.parametrize("axes", ["SAR", "SPL", "IPR", "SRA", "IAL", "SLP"])
def test_an_axial_slice_shows_the_front_on_top_and_the_patients_right_on_the_left(axes):
    grid = grid_along(*axes)
    # A voxel far to the front and far to the right of the patient.
    place = {"A": 8, "P": 0, "R": 8, "L": 0, "S": 4, "I": 4}
    view = shown(grid, tuple(place[letter] for letter in axes))

    assert np.argwhere(view.reference).tolist() == [[0, 0]]
    assert view.sides == ("R", "L", "A", "P")


def test_a_sagittal_series_shows_the_head_on_top_and_the_front_on_the_left():
    # Slices were taken from left to right: their spacing is widest along the last axis.
    grid = grid_along("S", "A", "R", spacing=(1.0, 1.0, 4.0))
    view = shown(grid, (8, 8, 4))

    assert np.argwhere(view.reference).tolist() == [[0, 0]]
    assert view.sides == ("A", "P", "S", "I")


def test_a_coronal_series_shows_the_head_on_top_and_the_patients_right_on_the_left():
    grid = grid_along("S", "A", "R", spacing=(1.0, 4.0, 1.0))
    view = shown(grid, (8, 4, 8))

    assert np.argwhere(view.reference).tolist() == [[0, 0]]
    assert view.sides == ("R", "L", "S", "I")


def test_without_a_stated_orientation_slices_stay_as_stored_and_bear_no_letters():
    view = shown(Grid((9, 9, 9), (1.0, 1.0, 1.0)), (4, 2, 6))

    assert np.argwhere(view.reference).tolist() == [[2, 6]]
    assert view.sides == ()


def test_turned_slices_keep_the_proportions_of_their_voxels():
    turn = turn_of(grid_along("S", "R", "A", spacing=(3.0, 0.5, 0.8)), 0)

    assert (turn.transposed, turn.spacing) == (True, (0.8, 0.5))


def test_volumes_are_looked_through_along_the_widest_spacing_else_from_feet_to_head():
    assert slicing_axis(Grid((9, 9, 9), (1.0, 1.0, 3.0))) == 2
    assert slicing_axis(Grid((9, 9, 9), (1.0, 1.0, 1.2))) == 0
    assert slicing_axis(grid_along("R", "S", "A")) == 1


def test_the_slice_with_most_disagreement_is_always_among_the_chosen():
    held = np.zeros(200, bool)
    held[20:180] = True
    errors = np.where(held, 1, 0)
    errors[87] = 50

    chosen, worst = choose_slices(held, errors, 10)

    assert worst == 87
    assert 87 in chosen
    assert len(chosen) == 10
    assert (chosen[0], chosen[-1]) == (20, 179)


def test_a_short_structure_is_shown_with_a_slice_beyond_each_end():
    held = np.zeros(50, bool)
    held[10:13] = True

    assert choose_slices(held, held.astype(int), 24)[0] == [9, 10, 11, 12, 13]


def test_an_empty_case_shows_its_middle():
    assert choose_slices(np.zeros(9, bool), np.zeros(9, int), 24) == ([4], 4)


def test_the_first_slice_shown_is_the_worst_one():
    reference = np.zeros((20, 16, 16), np.uint8)
    reference[4:16, 4:12, 4:12] = 1
    prediction = reference.copy()
    prediction[13] = 0
    image = reference.astype(float)
    grid = Grid(reference.shape, (1.0, 1.0, 1.0))

    made, first = views(ReportCase("a", image, reference, prediction, grid))

    assert made[first].caption == "slice 14 of 20"


def test_contrast_is_that_of_the_structure_and_what_surrounds_it():
    # A faint organ in tissue, between air and metal that would take all the contrast.
    image = np.full((64, 64), 40.0)
    labels = np.zeros((64, 64), np.uint8)
    labels[28:36, 28:36] = 1
    image[labels == 1] = 60.0
    image[:10] = -1000.0
    image[-10:] = 3000.0

    view = views(ReportCase("a", image, labels, labels, Grid((64, 64), (1.0, 1.0))))[0][0]

    assert int(view.grey[30, 30]) - int(view.grey[20, 20]) > 120


def test_a_stated_window_is_used_as_it_is():
    image = np.array([[-160.0, 240.0], [40.0, 1000.0]])
    labels = np.ones((2, 2), np.uint8)
    case = ReportCase("a", image, labels, None, Grid((2, 2), (1.0, 1.0)), window=(-160.0, 240.0))

    assert views(case)[0][0].grey.tolist() == [[0, 255], [127, 255]]


def test_an_image_of_one_grey_or_of_nothing_finite_can_be_shown():
    labels = np.ones((4, 4), np.uint8)
    for value in (7.0, np.nan):
        case = ReportCase("a", np.full((4, 4), value), labels, labels, Grid((4, 4), (1.0, 1.0)))
        assert views(case)[0][0].grey.shape == (4, 4)


def test_ignored_voxels_show_no_border():
    labels = np.full((8, 8), 255, np.uint8)
    prediction = np.ones((8, 8), np.uint8)
    case = ReportCase(
        "a", np.zeros((8, 8)), labels, prediction, Grid((8, 8), (1.0, 1.0)), ignore=255
    )

    assert not views(case)[0][0].drawn.any()


def test_a_large_flat_image_is_shown_whole_and_in_detail_where_it_is_wrong():
    reference = np.zeros((2500, 1500), np.uint8)
    prediction = reference.copy()
    prediction[2100:2140, 300:340] = 1
    case = ReportCase(
        "a", reference, reference, prediction, Grid((2500, 1500), (0.5, 0.5), Unit.UM)
    )

    (whole, detail), first = views(case)

    assert (whole.grey.shape, whole.spacing) == ((833, 500), (1.5, 1.5))
    assert (detail.grey.shape, detail.spacing, first) == ((384, 384), (0.5, 0.5), 1)
    assert detail.prediction.sum() == 40 * 40


def test_an_array_off_the_grid_is_refused():
    labels = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"img: image of \(3, 4, 4\) voxels.*give one channel"):
        ReportCase("img", np.zeros((3, 4, 4)), labels, labels, Grid((4, 4), (1.0, 1.0)))
