"""From files to cases, splits and batches.

``medseg.data.module`` needs torch and is imported by whoever trains; the rest is light.
"""

from medseg.data import dicom  # noqa: F401 (a layout)
from medseg.data.cases import Case, LabelMap, ObjectMap, Reading, group_of
from medseg.data.digests import file_digests
from medseg.data.folds import folds, thinned
from medseg.data.layouts import LAYOUTS, UnpairedError, find_cases
from medseg.data.split import SPLITS, Split

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Case",
    "LabelMap",
    "ObjectMap",
    "Reading",
    "Split",
    "UnpairedError",
    "file_digests",
    "find_cases",
    "folds",
    "group_of",
    "thinned",
]
