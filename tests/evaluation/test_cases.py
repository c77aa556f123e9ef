import math

import numpy as np
import pytest

from medseg import __version__
from medseg.errors import MedsegError
from medseg.evaluation import (
    DEFAULT_METRICS,
    MetricRequest,
    check_same_grid,
    evaluate_case,
    evaluate_instances,
    evaluate_labels,
)
from medseg.geometry import Grid, Length, Unit
from medseg.images.image import Image

DICE = MetricRequest("dice")
HD95 = MetricRequest("hd95")


def nsd_at(text: str) -> MetricRequest:
    return MetricRequest("nsd", {"tolerance": Length.parse(text)})


def squares(*corners: tuple[int, int], side: int = 4) -> np.ndarray:
    """Label 1, 2, ... squares with these upper left corners in a 20 x 20 image."""
    labels = np.zeros((20, 20), np.uint8)
    for label, (y, x) in enumerate(corners, start=1):
        labels[y : y + side, x : x + side] = label
    return labels


GRID = Grid((20, 20), (0.5, 0.5), Unit.UM)


def evaluate(reference, prediction, metrics=(DICE, HD95), structures=None, grid=GRID, **other):
    structures = structures or {"cell": (1,)}
    return evaluate_case("img_1", "fish", reference, prediction, grid, structures, metrics, **other)


def test_there_is_one_record_for_each_structure_and_metric():
    labels = squares((2, 2), (10, 10))

    records = evaluate(labels, labels, structures={"cell": (1,), "nucleus": (2,), "both": (1, 2)})

    assert [(r.structure, r.metric, r.value, r.status) for r in records] == [
        (structure, metric, value, "ok")
        for structure in ("cell", "nucleus", "both")
        for metric, value in (("dice", 1.0), ("hd95", 0.0))
    ]


def test_a_record_says_how_and_on_what_it_was_measured():
    labels = squares((2, 2))

    dice, border = evaluate(labels, labels, [DICE, nsd_at("1 um")])

    assert (dice.case, dice.group, dice.unit, dice.settings) == ("img_1", "fish", "1", "")
    assert (border.settings, border.label) == ("tolerance=1 um", "nsd (tolerance=1 um)")
    assert border.definition == "nsd/surfel-area/v1"
    assert (border.spacing, border.spacing_unit) == ((0.5, 0.5), Unit.UM)
    assert border.version == __version__


def test_half_overlapping_squares_share_half():
    records = evaluate(squares((2, 2)), squares((2, 4)), [DICE])

    assert records[0].value == 0.5


def test_distances_come_in_the_unit_of_the_grid():
    # Two voxels of 0.5 um apart.
    in_um = evaluate(squares((2, 2)), squares((2, 4)), [MetricRequest("hd")])[0]

    assert (in_um.value, in_um.unit) == (pytest.approx(1.0), "um")


@pytest.mark.parametrize("text", ["1 um", "0.001 mm", "1000 nm", "2 px"])
def test_a_tolerance_in_any_unit_is_converted_to_the_grid(text):
    records = evaluate(squares((2, 2)), squares((2, 4)), [nsd_at(text)])

    assert records[0].value == 1.0


def test_a_missed_structure_counts_with_the_worst_values():
    dice, hd95 = evaluate(squares((2, 2)), squares())

    assert (dice.value, dice.status) == (0.0, "empty_prediction")
    assert (hd95.value, hd95.status) == (pytest.approx(math.hypot(10, 10)), "empty_prediction")


def test_an_invented_structure_counts_with_the_worst_values():
    dice, hd95 = evaluate(squares(), squares((2, 2)))

    assert (dice.value, dice.status) == (0.0, "empty_reference")
    assert (hd95.value, hd95.status) == (pytest.approx(math.hypot(10, 10)), "empty_reference")


def test_nothing_to_find_and_nothing_found_has_no_value():
    records = evaluate(squares(), squares())

    assert [(r.value, r.status) for r in records] == [(None, "both_empty")] * 2


@pytest.mark.parametrize("status", ["missing_prediction", "error"])
def test_a_missing_or_unusable_prediction_counts_with_the_worst_values(status):
    dice, hd95 = evaluate(squares((2, 2)), None, failure=status)

    assert (dice.value, dice.status) == (0.0, status)
    assert (hd95.value, hd95.status) == (pytest.approx(math.hypot(10, 10)), status)


def test_ignored_voxels_are_judged_in_neither_mask():
    reference = squares((2, 2))
    reference[10:, :] = 255
    prediction = squares((2, 2))
    prediction[10:14, 2:6] = 1

    record = evaluate(reference, prediction, [DICE], ignore=255)[0]

    assert (record.value, record.ignored_voxels) == (1.0, 200)


def test_the_voxel_backend_is_another_definition():
    labels = squares((2, 2))

    records = evaluate(labels, labels, [HD95, DICE], backend="voxel")

    assert records[0].definition == "hd95/voxel-linear-maxdirected/v1"
    assert records[1].definition == "dice/voxel/v1"


def test_the_images_are_left_as_they_were():
    reference, prediction = squares((2, 2)), squares((2, 4))
    before = reference.copy(), prediction.copy()

    evaluate(reference, prediction, ignore=7)

    assert np.array_equal(reference, before[0])
    assert np.array_equal(prediction, before[1])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (MetricRequest("dise"), r'img_1: metric dise: .*did you mean "dice"'),
        (MetricRequest("nsd"), 'img_1: metric nsd: .*tolerance: "nsd" needs this setting'),
        (MetricRequest("nsd", {"tol": 1.0}), "not a setting"),
        (MetricRequest("nsd", {"tolerance": -1.0}), "img_1: metric nsd: .*got -1.0"),
    ],
)
def test_a_wrong_request_is_refused_with_the_case_and_the_metric(request_, message):
    with pytest.raises(MedsegError, match=message):
        evaluate(squares((2, 2)), squares((2, 2)), [request_])


def test_a_physical_tolerance_on_an_uncalibrated_image_is_refused():
    grid = Grid((20, 20), (1.0, 1.0))

    with pytest.raises(MedsegError, match=r"img_1: metric nsd: .*pixel size is not known"):
        evaluate(squares((2, 2)), squares((2, 2)), [nsd_at("1 um")], grid=grid)


def test_arrays_off_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"prediction of \(19, 20\) voxels on a grid"):
        evaluate(squares((2, 2)), squares((2, 2))[1:])


def test_asking_for_nothing_is_refused():
    with pytest.raises(ValueError, match="no metric is named"):
        evaluate(squares((2, 2)), squares((2, 2)), [])


def image(shape, spacing, **other) -> Image:
    grid = Grid(shape, spacing, Unit.MM, **other)
    return Image(np.zeros(shape, np.uint8), grid, "ZYX")


def test_another_grid_is_refused_with_both_grids_and_what_to_do():
    reference = image((96, 5, 5), (2.5, 0.8, 0.8))
    prediction = image((48, 5, 5), (5.0, 0.8, 0.8))

    with pytest.raises(MedsegError) as refused:
        check_same_grid("liver_012", reference, prediction)

    assert str(refused.value).splitlines() == [
        "liver_012: the prediction lies on another grid than the reference",
        "  reference   5 x 5 x 96 voxels of 0.8 x 0.8 x 2.5 mm",
        "  prediction  5 x 5 x 48 voxels of 0.8 x 0.8 x 5 mm",
        "  resample the prediction onto the reference's grid first (nearest neighbour), or predict "
        "again with medseg predict, which writes on each image's own grid",
    ]


def test_the_same_voxels_in_another_place_are_refused_with_both_places():
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    flipped = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    reference = image((9, 5, 5), (2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=axes)
    prediction = image((9, 5, 5), (2.0, 1.0, 1.0), origin=(4.0, 0.0, 0.0), direction=flipped)

    with pytest.raises(MedsegError) as refused:
        check_same_grid("liver_012", reference, prediction)

    text = str(refused.value)
    assert "the reference's  first voxel lies at (0, 0, 0) mm" in text
    assert "the prediction's first voxel lies at (4, 0, 0) mm" in text
    assert "along (-1 0 0), (0 1 0), (0 0 1)" in text


def test_the_same_grid_passes():
    check_same_grid("a", image((9, 5, 5), (2.0, 1.0, 1.0)), image((9, 5, 5), (2.0, 1.0, 1.0)))


def instances(reference, prediction, metrics, **other):
    requests = [MetricRequest(name) for name in metrics]
    return evaluate_instances(
        "img_1", "fish", "cell", reference, prediction, GRID, requests, **other
    )


def test_objects_are_judged_one_by_one():
    # Two cells, one of them found.
    records = instances(
        squares((2, 2), (10, 10)), squares((2, 2)), ["average_precision", "instance_recall"]
    )

    assert [(r.structure, r.metric, r.value, r.status) for r in records] == [
        ("cell", "average_precision", 0.5, "ok"),
        ("cell", "instance_recall", 0.5, "ok"),
    ]


def test_a_missing_prediction_has_no_number_of_splits_rather_than_none_at_all():
    ap, splits = instances(squares((2, 2)), None, ["average_precision", "splits"])

    assert (ap.value, ap.status) == (0.0, "missing_prediction")
    assert (splits.value, splits.status, splits.uncounted) == (None, "missing_prediction", True)


def test_ignored_voxels_are_taken_from_objects():
    reference = squares((2, 2))
    reference[10:] = 255
    prediction = squares((2, 2), (12, 12))

    assert instances(reference, prediction, ["instance_precision"], ignore=255)[0].value == 1.0


def test_a_metric_of_another_kind_is_refused():
    labels = squares((2, 2))
    with pytest.raises(MedsegError, match=r"metric dice: it judges one structure as a whole"):
        instances(labels, labels, ["dice"])
    with pytest.raises(MedsegError, match=r"metric splits: it judges single objects, but"):
        evaluate(labels, labels, [MetricRequest("splits")])


def rooms(wall: int = 10, leak: bool = False) -> np.ndarray:
    """Two cells with a membrane, label 1, of one column between them."""
    labels = np.zeros((20, 20), np.uint8)
    labels[:, wall] = 1
    labels[7, wall] = 0 if leak else 1
    return labels


def of_membrane(name: str, **settings) -> MetricRequest:
    return MetricRequest(name, settings, structure="membrane")


def test_a_metric_can_be_asked_of_one_structure_only():
    labels = squares((2, 2), (10, 10))
    requests = [DICE, MetricRequest("hd95", structure="nucleus")]

    records = evaluate(labels, labels, requests, {"cell": (1,), "nucleus": (2,)})

    assert [(r.structure, r.metric) for r in records] == [
        ("cell", "dice"), ("nucleus", "dice"), ("nucleus", "hd95"),
    ]  # fmt: skip
    with pytest.raises(MedsegError, match=r'dice: there is no structure "cel", only cell'):
        evaluate(labels, labels, [MetricRequest("dice", structure="cel")])


def test_the_cells_that_a_membrane_keeps_apart_are_judged_after_thinning():
    thick = rooms()
    thick[:, 9:12] = 1
    asked = [of_membrane("v_rand"), of_membrane("voi_merge"), of_membrane("pixel_error")]

    wide = evaluate(rooms(), thick, asked, {"membrane": (1,)})
    leaking = evaluate(rooms(), rooms(leak=True), asked, {"membrane": (1,)})

    assert [r.value for r in wide] == [pytest.approx(1), pytest.approx(0), 40 / 400]
    # Two cells of 200 and 180 pixels are one: all of the smaller one's pairs are wrong.
    assert leaking[0].value < 0.7
    assert leaking[1].value == pytest.approx(1, abs=0.02)
    assert leaking[2].value == 1 / 400
    assert wide[0].definition == "v-rand/alpha-half/thinned-membrane/v1"
    assert (wide[0].structure, wide[0].status) == ("membrane", "ok")


def test_a_membrane_that_was_missed_altogether_has_a_value():
    v_rand, error = evaluate(
        rooms(), squares(), [of_membrane("v_rand"), of_membrane("warping_error")],
        {"membrane": (1,)},
    )  # fmt: skip

    assert (v_rand.status, error.status) == ("ok", "ok")
    assert 0 < v_rand.value < 0.7
    assert 0 < error.value <= 20 / 400


def test_pixels_that_are_not_judged_are_in_no_cell():
    reference = rooms()
    reference[:5] = 255
    prediction = rooms()
    prediction[:5] = 0  # a leak, where nobody has judged

    v_rand, error = evaluate(
        reference, prediction, [of_membrane("v_rand"), of_membrane("pixel_error")],
        {"membrane": (1,)}, ignore=255,
    )  # fmt: skip

    assert v_rand.value < 0.7  # the leak joins the cells on both sides all the same
    assert error.value == 0.0


def test_which_structure_is_the_membrane_must_be_said_and_it_must_be_flat():
    labels = rooms()
    with pytest.raises(MedsegError, match=r"v_rand: it judges the cells .*structure: membrane"):
        evaluate(labels, labels, [MetricRequest("v_rand")], {"membrane": (1,)})
    volume = np.stack([labels] * 3)
    with pytest.raises(MedsegError, match=r"v_rand: it judges membranes in 2D slices only"):
        evaluate(volume, volume, [of_membrane("v_rand")], {"membrane": (1,)},
                 Grid((3, 20, 20), (1.0, 1.0, 1.0)))  # fmt: skip
    with pytest.raises(MedsegError, match=r"pixel_error: it judges the cells .*every label is an"):
        instances(labels, labels, ["pixel_error"])


def test_the_same_metric_judges_cells_that_are_numbered_without_thinning():
    cells = squares((0, 0), (0, 10), side=10)

    (record,) = instances(cells, cells * 7, ["v_rand"])

    assert (record.value, record.definition) == (1.0, "v-rand/alpha-half/v1")


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_labels_of_each_kind_have_metrics_that_are_taken_if_none_is_asked_for(kind):
    labels = squares((2, 2), (10, 10))
    asked = [MetricRequest(name) for name in DEFAULT_METRICS[kind]]

    records = evaluate_labels(
        "img_1", "fish", labels, labels, GRID, {"cell": (1,)}, asked, kind=kind
    )

    best = {"hd95": 0.0, "assd": 0.0, "splits": 0.0, "merges": 0.0, "instance_assd": 0.0}
    assert {r.metric: r.value for r in records} == {
        name: best.get(name, 1.0) for name in DEFAULT_METRICS[kind]
    }
