"""What other programs take: a table, ImageJ's ROIs, GeoJSON for QuPath, DICOM SEG.

Importing a file registers what it writes; an export is a function of the objects and a path.
"""

from medseg.exports import dicomseg, geojson, rois, table  # noqa: F401 (they fill the registry)
from medseg.exports.objects import EXPORTS, Objects, export
from medseg.exports.table import measured

__all__ = ["EXPORTS", "Objects", "export", "measured"]
