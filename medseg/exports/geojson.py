"""GeoJSON as QuPath reads it: pixel coordinates, one feature an object and plane."""

import json
from pathlib import Path
from typing import Any

from medseg.exports.objects import EXPORTS, Objects
from medseg.exports.outlines import Outline, Ring, outlines
from medseg.exports.table import measured


@EXPORTS.register("geojson", ending=".geojson", scored=True)
def write_geojson(objects: Objects, path: Path) -> None:
    """Write a FeatureCollection of detections, with what the table says as measurements.

    Source:
        RFC 7946; ``objectType``, ``classification``, ``measurements`` and the ``plane`` of a
        geometry are QuPath's.
    """
    table = measured(objects).drop(columns=["case", "id", "class"])
    rows = [{k: v for k, v in row.items() if v == v} for row in table.to_dict("records")]
    features = [_feature(objects, outline, rows[outline.index]) for outline in outlines(objects)]
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _feature(objects: Objects, outline: Outline, measurements: dict[str, float]) -> dict[str, Any]:
    polygons = [[_closed(ring) for ring in polygon] for polygon in outline.polygons]
    single = len(polygons) == 1
    geometry: dict[str, Any] = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    if outline.plane is not None:
        geometry["plane"] = {"c": -1, "z": outline.plane, "t": 0}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": "detection",
            "name": str(objects.ids[outline.index]),
            "classification": {"name": objects.classes[outline.index]},
            "measurements": measurements,
        },
    }


def _closed(ring: Ring) -> list[list[int]]:
    corners: list[list[int]] = ring.tolist()
    return [*corners, corners[0]]
