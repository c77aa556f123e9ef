"""Sizes, single objects and bands around the border, worked out by hand."""

import math

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.evaluation import (
    band_widths,
    bands_table,
    case_detail,
    object_records,
    summarise_bands,
)
from medseg.evaluation.bands import band_charts
from medseg.evaluation.sizes import size_plots
from medseg.geometry import Grid, Length, Unit

GRID = Grid((8, 20), (0.5, 0.5), Unit.UM)
HALF = np.zeros((8, 20), np.int16)
HALF[:, 10:] = 1
SHIFTED = np.zeros((8, 20), np.int16)
SHIFTED[:, 11:] = 1
ONE = {"cell": (1,)}
WIDTHS = [Length(0.0, Unit.UM), Length(1.0, Unit.UM)]


def detail(reference=HALF, prediction=SHIFTED, name="a", **other):
    return case_detail(name, name, reference, prediction, GRID, ONE, widths=WIDTHS, **other)


def cells(*boxes: tuple[int, int, int]) -> np.ndarray:
    """Squares of 4 x 4 pixels: number, row, column."""
    labels = np.zeros((8, 20), np.uint32)
    for number, row, column in boxes:
        labels[row : row + 4, column : column + 4] = number
    return labels


def test_sizes_are_in_the_unit_of_the_grid():
    assert detail().sizes == {"cell": 80 * 0.25}


def test_bands_end_with_the_whole_image():
    bands = detail().bands

    assert [band.width for band in bands] == [0.0, 1.0, math.inf]
    # One column of 20 is wrong; the narrow band holds the two columns at the border.
    assert [band.band_accuracy for band in bands] == [0.5, 5 / 6, 0.95]
    assert bands[0].rest_accuracy == 1.0


def test_nothing_is_right_without_a_prediction():
    bands = detail(prediction=None).bands

    assert {band.band_accuracy for band in bands} | {band.rest_iou for band in bands} == {0.0}


def test_what_is_not_judged_counts_in_no_band_and_has_no_border():
    reference = HALF.copy()
    reference[:, 9:12] = -1

    bands = detail(reference, ignore=-1).bands

    # The wrong column and the border lie in what nobody judged.
    assert (bands[-1].band_voxels, bands[-1].band_accuracy) == (8 * 17, 1.0)
    assert bands[0].band_voxels == 0


def test_a_prediction_that_judges_nothing_is_wrong_there():
    prediction = HALF.copy()
    prediction[:, :10] = -1

    assert detail(prediction=prediction).bands[-1].band_accuracy == 0.5


def test_a_band_without_meaning_on_the_grid_is_refused_with_the_case():
    with pytest.raises(MedsegError, match=r"a: band around the border: .*cannot be expressed"):
        case_detail("a", "a", HALF, HALF, Grid((8, 20), (1.0, 1.0)), ONE, widths=WIDTHS)


def test_bands_are_lengths_of_1_to_16_of_the_finest_voxels_if_none_are_asked_for():
    grid = Grid((4, 4, 4), (2.5, 0.8, 0.8), Unit.MM)

    assert [str(width) for width in band_widths(grid)] == [
        "0.8 mm", "1.6 mm", "3.2 mm", "6.4 mm", "12.8 mm",
    ]  # fmt: skip


def test_objects_are_found_missed_and_invented_one_by_one():
    # Ids beyond 2^31, which a label image may have.
    reference = cells((4_000_000_000, 0, 0), (7, 0, 8))
    prediction = cells((3, 0, 0), (9, 4, 16))

    shown = detail(reference, prediction, kind="instance")

    assert [(o.reference_id, o.predicted_id, o.size, o.iou, o.assd) for o in shown.objects] == [
        (7, None, 4.0, 0.0, None),
        (4_000_000_000, 3, 4.0, 1.0, 0.0),
        (None, 9, 4.0, 0.0, None),
    ]
    assert shown.sizes == {"cell": 8.0}
    # Wrong: the missed and the invented object, not the found one with another number.
    assert shown.bands[-1].band_accuracy == 1 - 32 / 160


def test_each_object_is_a_record_of_its_own():
    reference, prediction = cells((1, 0, 0), (2, 0, 8)), cells((5, 0, 1), (6, 4, 16))

    records = object_records([detail(reference, prediction, kind="instance")])

    found = {(r.structure, r.metric): (r.value, r.unit, r.status) for r in records}
    assert found["cell 1", "iou"] == (12 / 20, "1", "ok")
    assert found["cell 1", "hd95"] == (0.5, "um", "ok")
    assert found["cell 2", "iou"] == (0.0, "1", "empty_prediction")
    assert found["cell 2", "assd"] == (math.hypot(4, 10), "um", "empty_prediction")
    assert found["cell 6 (predicted)", "iou"] == (0.0, "1", "empty_reference")
    assert len(records) == 9


def test_bands_of_all_cases_are_means_with_intervals_over_groups():
    details = [detail(name=name) for name in "ab"] + [detail(prediction=HALF, name="c")]

    narrow, wide, whole = summarise_bands(details, resamples=200)

    assert (narrow.width, narrow.unit, narrow.n) == (0.0, "um", 3)
    assert narrow.band_accuracy.mean == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert 0.5 <= narrow.band_accuracy.low <= narrow.band_accuracy.high <= 1
    assert wide.width == 1.0
    assert (whole.width, whole.rest_accuracy.mean) == (None, None)
    assert bands_table([narrow, whole])["band_accuracy"].tolist() == [
        narrow.band_accuracy.mean,
        whole.band_accuracy.mean,
    ]


def test_widths_in_pixels_and_in_micrometres_are_never_averaged():
    plain = case_detail("b", "b", HALF, HALF, Grid((8, 20), (1.0, 1.0)), ONE,
                        widths=[Length(1.0, Unit.PX)])  # fmt: skip

    found = [(s.unit, s.width, s.n) for s in summarise_bands([detail(), plain], resamples=50)]

    assert found == [("px", 1.0, 1), ("px", None, 1), ("um", 0.0, 1), ("um", 1.0, 1),
                     ("um", None, 1)]  # fmt: skip


def test_the_curve_rises_from_the_narrow_to_the_wide_band():
    accuracy, iou = band_charts(summarise_bands([detail()], resamples=50))

    assert (accuracy.title, iou.title) == ("Accuracy", "IoU")
    assert [curve.name for curve in accuracy.curves] == ["near the border", "elsewhere"]
    # Axis 0.5 to 1: 0.5 is at the bottom, 5/6 at two thirds.
    assert accuracy.curves[0].points == "0.00,100.00 100.00,33.33"
    assert [tick.text for tick in accuracy.across] == ["0", "1"]


def test_each_structure_is_shown_by_its_size_and_failures_at_the_bad_end(record):
    names = ["small", "middle", "large"]
    details = [
        case_detail(name, name, np.arange(160).reshape(8, 20) < 40 * 2**i, None, GRID, ONE)
        for i, name in enumerate(names)
    ]
    records = [record("small", 0.0, structure="cell", status="empty_prediction"),
               record("middle", 0.8, structure="cell"),
               record("large", 0.9, structure="cell")]  # fmt: skip

    (plot,) = size_plots(records, details)

    assert [(spot.failed, spot.up) for spot in plot.spots] == [(True, 0), (False, 0), (False, 50)]
    steps = np.diff([spot.across for spot in plot.spots])
    assert steps[0] == pytest.approx(steps[1], abs=0.02)  # doubled twice
    assert plot.note == "by size as drawn, µm²"


def test_objects_are_shown_by_size_and_invented_ones_are_counted():
    reference = cells((1, 0, 0), (2, 0, 8), (3, 4, 12))
    prediction = cells((5, 0, 1), (6, 0, 8), (7, 4, 16))

    overlaps, apart = size_plots([], [detail(reference, prediction, kind="instance")] * 2)

    assert [spot.failed for spot in overlaps.spots] == [False, False, True] * 2
    assert "2 invented objects have no drawn size" in overlaps.note
    assert (apart.title, apart.unit, len(apart.spots)) == ("ASSD of found objects", "µm", 4)
