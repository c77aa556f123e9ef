"""A zip of ROIs for ImageJ's and Fiji's ROI Manager."""

from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from medseg.errors import MedsegError
from medseg.exports.objects import EXPORTS, Objects
from medseg.exports.outlines import Outline, outlines

_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # the segments of ImageJ's composite ROIs


@EXPORTS.register("rois", ending="_rois.zip", scored=False)
def write_rois(objects: Objects, path: Path) -> None:
    """Write one ROI an object and plane, called by the object's number.

    A polygon for an object in one piece; a composite ROI where there are holes or several pieces.

    Raises:
        MedsegError: roifile is not installed.
    """
    with ZipFile(path, "w", ZIP_DEFLATED) as file:
        for outline in outlines(objects):
            roi = _roi(objects, outline)
            # Without a date, so that the same objects give the same file.
            file.writestr(ZipInfo(f"{roi.name}.roi"), roi.tobytes(), ZIP_DEFLATED)


def _roi(objects: Objects, outline: Outline) -> Any:
    try:
        from roifile import ROI_TYPE, ImagejRoi
    except ImportError as error:
        raise MedsegError(
            "--write rois: needs roifile, which is not installed: pip install 'medseg[microscopy]'"
        ) from error
    rings = [ring for polygon in outline.polygons for ring in polygon]
    name = str(objects.ids[outline.index])
    name = name if outline.plane is None else f"{name}_z{outline.plane + 1}"
    roi = ImagejRoi.frompoints(np.concatenate(rings), name=name, z=outline.plane)
    if outline.plane is not None:
        roi.position = outline.plane + 1
    roi.props = f"class: {objects.classes[outline.index]}\n"
    if len(rings) > 1:
        roi.roitype = ROI_TYPE.RECT
        path: list[float] = []
        for ring in rings:
            for number, (x, y) in enumerate(ring.tolist()):
                path += [_LINE if number else _MOVE, x, y]
            path.append(_CLOSE)
        roi.multi_coordinates = np.array(path, np.float32)
        roi.shape_roi_size = len(path)
        roi.integer_coordinates = roi.subpixel_coordinates = None
        roi.n_coordinates = 0
    return roi
