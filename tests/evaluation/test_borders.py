"""Where along the border the error lies."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import ReportCase, report_case, summarise, write_report
from medseg.evaluation.borders import COLOURS, border_map
from medseg.evaluation.figures import projections, slices
from medseg.geometry import Grid, Length, Unit

LIMITS = [Length(value, Unit.UM) for value in (1.0, 2.0, 4.0, 8.0)]
GRID = Grid((40, 40), (1.0, 1.0), Unit.UM)


def box(*slices_: tuple[int, int], shape=(40, 40)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(*s) for s in slices_)] = 1
    return labels


def case(reference, prediction, grid=GRID, **other) -> ReportCase:
    return ReportCase("a", reference * 1.0, reference, prediction, grid, **other)


def test_equal_borders_are_all_in_the_nearest_class():
    found = border_map(case(box((10, 30), (10, 30)), box((10, 30), (10, 30))), LIMITS)

    assert [share.percent for share in found.shares] == [100, 0, 0, 0, 0]
    assert set(np.unique(found.reference)) == {0, 1}


def test_the_side_that_was_moved_is_far_and_the_opposite_side_is_not():
    # The right side lies 6 um off.
    found = border_map(case(box((10, 30), (10, 24)), box((10, 30), (10, 30))), LIMITS)

    assert found.reference[20, 23] == 4
    assert found.prediction[20, 29] == 4
    assert found.reference[20, 10] == found.prediction[20, 10] == 1
    assert found.shares[3].text == "4 to 8"
    # 20 of the 68 um of border, less what the corners are nearer.
    assert 15 < found.shares[3].percent < 100 * 20 / 68


def test_a_missed_and_an_invented_object_have_no_counterpart():
    reference = box((2, 10), (2, 10)) + 2 * box((20, 28), (20, 28))
    prediction = box((2, 10), (2, 10)) + 3 * box((20, 28), (2, 10))

    found = border_map(case(reference, prediction), LIMITS)

    assert found.reference[20, 20] == found.prediction[20, 2] == len(COLOURS) + 1
    assert (found.shares[-1].text, found.shares[-1].percent) == ("no counterpart", 50)


def test_what_is_not_judged_has_no_border():
    reference = box((10, 30), (10, 30)).astype(np.int16)
    reference[20:] = -1

    found = border_map(case(reference, box((10, 35), (10, 30)), ignore=-1), LIMITS)

    assert found.shares[0].percent == 100
    assert not found.prediction[25:].any()


def test_without_a_prediction_there_is_no_map():
    assert border_map(case(box((1, 3), (1, 3)), None), LIMITS) is None


def test_the_border_of_a_slice_is_drawn_in_the_classes_of_its_places():
    shown = case(box((10, 30), (10, 24)), box((10, 30), (10, 30)))

    ((view,), _) = slices(shown, 10_000_000, border_map(shown, LIMITS))

    assert [number for number, _ in view.far] == [1, 2, 3, 4]
    # The far class holds the two vertical sides: 14 um each way, in half pixels.
    drawn = re.findall(r"-?\d+", dict(view.far)[4].partition("l")[2])
    assert max(abs(int(number)) for number in drawn) >= 24
    assert view.size > len(view.picture)


def test_a_volume_is_seen_along_its_three_axes_with_the_farthest_on_top():
    reference = box((4, 12), (4, 12), (4, 12), shape=(16, 16, 16))
    prediction = box((4, 12), (4, 12), (4, 15), shape=(16, 16, 16))
    shown = case(reference, prediction, Grid((16, 16, 16), (1.0, 1.0, 1.0), Unit.UM))

    seen = projections(shown, border_map(shown, LIMITS))

    assert len(seen) == 3
    pixels = [
        np.array(Picture.open(io.BytesIO(base64.b64decode(one.picture.partition(",")[2]))))
        for one in seen
    ]
    # Along x the two faces 3 um apart lie behind each other: class 3 all over the middle.
    assert (pixels[2][5:9, 5:9] == 3).all()
    # Along y and z only the sides beyond the reference are far.
    assert pixels[0][8, 4] == 1
    assert pixels[0].max() == 3


def test_a_flat_image_is_not_projected():
    flat = case(box((1, 9), (1, 9)), box((1, 9), (1, 9)))

    assert projections(flat, border_map(flat, LIMITS)) == ()


def test_found_objects_are_shown_with_the_number_of_their_reference():
    reference = box((2, 10), (2, 10)) * np.uint32(4_000_000_000)
    prediction = box((2, 10), (2, 11)) * np.uint16(7) + box((20, 28), (2, 10)) * np.uint16(9)

    shown = report_case(
        "a", np.zeros((1, 40, 40)), reference, prediction, GRID, kind="instance", other=prediction
    )

    nothing, found, invented = np.unique(shown.prediction).tolist()
    assert (nothing, found) == (0, 4_000_000_000)
    assert invented > found
    assert np.array_equal(shown.prediction, shown.other)


def test_of_a_colour_picture_the_brightness_is_shown_else_the_first_channel():
    image = np.stack([np.full((40, 40), value) for value in (100, 200, 50)])
    labels = box((2, 10), (2, 10))

    colours = report_case("a", image, labels, None, GRID, channels=("red", "green", "blue"))
    stains = report_case("a", image, labels, None, GRID, channels=("nuclei", "actin", "mito"))

    assert colours.image[0, 0] == pytest.approx(0.299 * 100 + 0.587 * 200 + 0.114 * 50)
    assert stains.image[0, 0] == 100


def test_a_report_shows_the_map_of_each_case_and_asks_for_nothing_else(tmp_path, record):
    shown = case(box((10, 30), (10, 24)), box((10, 30), (10, 30)), other=box((9, 30), (9, 24)))
    records = [record("a", 0.8)]

    write_report(tmp_path / "r.html", title="t", facts={}, records=records,
                 summary=summarise(records), cases=[shown])  # fmt: skip

    text = (tmp_path / "r.html").read_text()
    assert 'class="no-far"' in text
    assert 'id="far-0-0"' in text
    assert 'href="#far-0-0"' in text
    assert 'class="other"' in text
    assert "Where the border is off" in text
