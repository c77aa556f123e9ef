"""What is exported encloses the very pixels of each object, for other programs too."""

import json

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roifile import roiread
from skimage.draw import polygon2mask

from medseg.exports import EXPORTS, Objects, export, measured
from medseg.exports.outlines import polygons_of
from medseg.geometry import Grid, Unit

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))

RING = np.zeros((7, 8), np.uint16)
RING[1:6, 1:7] = 7
RING[2:5, 3:5] = 0  # a hole of 3 x 2
RING[3, 3] = 300  # an object of one pixel in it


def objects_of(labels: np.ndarray, spacing=None, **more) -> Objects:
    spacing = spacing or (0.5, 0.25)
    return Objects.of("a", labels, Grid(labels.shape, spacing, Unit.UM), classes="cell", **more)


def drawn(rings: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Rasterise with scikit-image: a pixel is inside if its centre is, by the even-odd rule."""
    # Corners lie half a pixel from the centres, and scikit-image counts from the centres.
    parts = [polygon2mask(shape, np.asarray(ring)[:, ::-1] - 0.5) for ring in rings]
    return np.logical_xor.reduce([np.zeros(shape, bool), *parts])


@given(masks)
def test_an_outline_filled_by_shapely_is_the_mask_and_each_polygon_is_valid(mask):
    polygons = [shapely.Polygon(p[0], p[1:]) for p in polygons_of(mask)]

    assert all(polygon.is_valid for polygon in polygons), polygons
    assert sum(polygon.area for polygon in polygons) == mask.sum()
    y, x = np.indices(mask.shape) + 0.5
    inside = [shapely.contains_xy(polygon, x, y) for polygon in polygons]
    np.testing.assert_array_equal(np.logical_or.reduce([np.zeros_like(mask), *inside]), mask)


@given(masks)
def test_holes_run_the_other_way(mask):
    for outer, *holes in polygons_of(mask):
        assert shapely.LinearRing(outer).is_ccw
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)


def test_geojson_keeps_the_hole_and_says_what_the_object_is(tmp_path):
    file = export("geojson", objects_of(RING), tmp_path)
    content = json.loads(file.read_text())

    assert file.name == "a.geojson"
    ring, dot = content["features"]
    assert (ring["properties"]["name"], dot["properties"]["name"]) == ("7", "300")
    assert ring["properties"]["classification"] == {"name": "cell"}
    assert ring["properties"]["measurements"]["area_um2"] == (30 - 6) * 0.125
    assert "score" not in ring["properties"]["measurements"]
    assert dot["geometry"]["type"] == "Polygon"
    assert sorted(map(tuple, dot["geometry"]["coordinates"][0][:-1])) == [
        (3, 3),
        (3, 4),
        (4, 3),
        (4, 4),
    ]
    outer, hole = ring["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    np.testing.assert_array_equal(drawn([outer, hole], RING.shape), RING == 7)


def test_rois_read_back_by_roifile_are_the_objects(tmp_path):
    labels = np.zeros((20, 20), np.uint32)
    yy, xx = np.indices(labels.shape)
    labels[(yy - 8) ** 2 + (xx - 7) ** 2 < 30] = 70_000
    labels[15:18, 2:4] = labels[12:14, 15:19] = 5  # an object in two pieces
    labels[7:9, 7:9] = 0  # a hole in the disc

    rois = {roi.name: roi for roi in roiread(export("rois", objects_of(labels), tmp_path))}

    assert set(rois) == {"5", "70000"}
    for name, roi in rois.items():
        rings = roi.coordinates(multi=True)
        np.testing.assert_array_equal(drawn(rings, labels.shape), labels == int(name))
    assert rois["5"].props == "class: cell\n"


def test_a_stack_has_an_outline_in_each_plane_that_tells_which(tmp_path):
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[1:, 2:4, 1:5] = 4
    stack = objects_of(labels, (2.0, 0.5, 0.5))

    rois = roiread(export("rois", stack, tmp_path))
    features = json.loads(export("geojson", stack, tmp_path).read_text())["features"]

    assert [(roi.name, roi.position, roi.z_position) for roi in rois] == [
        ("4_z2", 2, 2),
        ("4_z3", 3, 3),
    ]
    assert [f["geometry"]["plane"]["z"] for f in features] == [1, 2]
    for plane, roi, feature in zip((1, 2), rois, features, strict=True):
        np.testing.assert_array_equal(drawn([roi.coordinates()], (6, 6)), labels[plane] == 4)
        rings = feature["geometry"]["coordinates"]
        np.testing.assert_array_equal(drawn(rings, (6, 6)), labels[plane] == 4)


def test_the_table_has_areas_and_places_in_micrometres(tmp_path):
    labels = np.zeros((10, 10), np.uint8)
    labels[2:4, 6:9] = 9  # rows 2 and 3, columns 6 to 8: centre at 2.5, 7
    probability = np.where(labels == 9, 0.75, 0.1)

    table = pd.read_csv(export("table", objects_of(labels, probability=probability), tmp_path))

    assert table.to_dict("records") == [
        {
            "case": "a",
            "id": 9,
            "class": "cell",
            "pixels": 6,
            "area_um2": 0.75,
            "x_um": 1.75,
            "y_um": 1.25,
            "x_px": 7.0,
            "y_px": 2.5,
            "score": 0.75,
        }
    ]


def test_volumes_are_told_where_they_lie_in_the_world():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 2, 4] = 1
    direction = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    grid = Grid(labels.shape, (2.0, 0.5, 0.5), Unit.MM, (10.0, 20.0, 30.0), direction)

    row = measured(Objects.of("a", labels, grid, classes="tumour")).iloc[0]

    assert row["volume_mm3"] == pytest.approx(2 * 0.5)
    # 10 - 4 * 0.5 to the left, 20 + 2 * 0.5, 30 + 1.5 * 2.
    assert tuple(row[["x_mm", "y_mm", "z_mm"]]) == pytest.approx((8.0, 21.0, 33.0))


def test_without_a_pixel_size_nothing_is_in_micrometres():
    labels = np.ones((2, 2), np.uint8)
    table = measured(Objects.of("a", labels, Grid((2, 2), (1.0, 1.0)), classes="cell"))
    assert list(table.columns) == ["case", "id", "class", "pixels", "x_px", "y_px", "score"]


def test_classes_are_exported_under_their_names_whatever_the_background_is_called():
    labels = np.array([[255, 0], [3, 3]], np.uint8)
    classes = {0: "disc", 3: "rim"}
    grid = Grid((2, 2), (1.0, 1.0))
    table = measured(Objects.of("a", labels, grid, classes=classes, background=255))
    assert table[["id", "class", "pixels"]].values.tolist() == [[0, "disc", 1], [3, "rim", 2]]


@pytest.mark.parametrize("name", sorted(set(EXPORTS) - {"dicomseg"}))  # which needs a series
@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
def test_an_image_without_objects_gives_a_file_without_objects(name, shape, tmp_path):
    empty = objects_of(np.zeros(shape, np.uint8), (1.0,) * len(shape))
    file = export(name, empty, tmp_path)
    assert file.exists()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_failed_export_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.exports.geojson.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export("geojson", objects_of(RING), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_export_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r'"geo" is no export'):
        export("geo", objects_of(RING), tmp_path)
