"""From files to cases, splits and batches.

``medseg.data.module`` needs torch and is imported by whoever trains; the rest is light.
"""

from medseg.data.cases import Case, LabelMap, ObjectMap, Reading, group_of
from medseg.data.layouts import LAYOUTS, find_cases
from medseg.data.split import SPLITS, Split

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Case",
    "LabelMap",
    "ObjectMap",
    "Reading",
    "Split",
    "find_cases",
    "group_of",
]
