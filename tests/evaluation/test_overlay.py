import io
import re

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import ReportCase, overlay_png
from medseg.evaluation.figures import border_path, slices
from medseg.evaluation.overlay import bar_length, contours
from medseg.geometry import Grid, Unit


def disc(side: int = 64, radius: int = 20, shift: int = 0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    return ((y**2 + (x - shift) ** 2) < radius**2).astype(np.uint8)


def test_the_border_of_one_pixel_runs_half_way_to_its_neighbours():
    labels = np.zeros((3, 3), np.uint8)
    labels[1, 1] = 7

    (line,) = contours(labels)

    assert {tuple(point) for point in line.tolist()} == {(0.5, 1), (1, 0.5), (1.5, 1), (1, 1.5)}
    assert line[0].tolist() == line[-1].tolist()


def test_touching_objects_and_objects_at_the_edge_have_closed_borders_of_their_own():
    labels = np.zeros((6, 6), np.uint16)
    labels[:, :3], labels[:, 3:] = 65535, 2

    lines = contours(labels)

    assert len(lines) == 2
    assert all(line[0].tolist() == line[-1].tolist() for line in lines)


def test_no_label_has_no_border():
    assert contours(np.zeros((4, 4), np.uint8)) == []


def test_a_hole_has_a_border_too():
    labels = np.ones((5, 5), np.uint8)
    labels[2, 2] = 0

    assert len(contours(labels)) == 2


def path_area(path: str) -> float:
    """The area inside a path of half pixels, in pixels."""
    area = 0.0
    for part in re.findall(r"M(\d+) (\d+)l([^z]*)z", path):
        steps = np.array(re.findall(r"-?\d+", part[2]), int).reshape(-1, 2)
        points = np.vstack([[int(part[0]), int(part[1])], steps]).cumsum(axis=0)
        x, y = points.T
        area += abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    return area / 4


def test_the_path_encloses_the_area_that_was_drawn():
    labels = np.zeros((12, 12), np.uint8)
    labels[2:8, 3:10] = 1

    # Corners are cut by an eighth of a pixel each.
    assert path_area(border_path(labels)) == pytest.approx(6 * 7 - 4 / 8)


@pytest.mark.parametrize(("width", "bar"), [(100, 20), (90, 20), (400, 100), (0.9, 0.2), (7, 1)])
def test_a_scale_bar_is_a_round_length_of_at_most_a_quarter(width, bar):
    assert bar_length(width) == pytest.approx(bar)


def volume_case(prediction: bool = True) -> ReportCase:
    reference = np.repeat(disc()[None], 30, axis=0)
    reference[:5] = reference[-5:] = 0
    predicted = np.roll(reference, 2, axis=2)
    grid = Grid(reference.shape, (2.0, 1.0, 1.0), Unit.MM)
    return ReportCase("a", reference * 100.0, reference, predicted if prediction else None, grid)


@pytest.mark.parametrize("prediction", [True, False])
def test_a_picture_shows_the_ground_truth_in_yellow(prediction):
    png = overlay_png(volume_case(prediction), inches=2)

    pixels = np.array(Picture.open(io.BytesIO(png)).convert("RGB")).astype(int)
    yellow = (pixels[..., 0] > 230) & (pixels[..., 1] > 180) & (pixels[..., 2] < 80)
    blue = (pixels[..., 0] < 120) & (pixels[..., 2] > 200)
    assert yellow.sum() > 300
    assert bool(blue.sum() > 600) is prediction


def test_a_volume_has_a_slice_for_each_that_fits_the_budget():
    many, first = slices(volume_case(), 10_000_000)
    few, at = slices(volume_case(), 3 * many[first].size + 10)
    one, _ = slices(volume_case(), 1)

    assert (len(many), len(few), len(one)) == (22, 3, 1)
    assert few[at] == many[first] == one[0]


def test_a_small_structure_is_shown_close_up_in_the_proportions_of_the_image():
    labels = np.zeros((100, 200), np.uint8)
    labels[40:50, 90:110] = 1
    case = ReportCase("a", labels, labels, labels, Grid((100, 200), (2.0, 1.0), Unit.UM))

    ((view,), _) = slices(case, 10_000_000)

    left, top, width, height = view.close
    assert view.whole == (0, 0, 200, 200)
    assert width == height
    assert left <= 90
    assert left + width >= 110
    assert top <= 80
    assert top + height >= 100
    assert (view.whole_bar.text, view.whole_bar.width) == ("50 µm", 25.0)


def test_without_a_pixel_size_there_is_no_scale_bar():
    case = ReportCase("a", disc(), disc(), disc(), Grid((64, 64), (1.0, 1.0)))

    assert slices(case, 10_000_000)[0][0].whole_bar is None
