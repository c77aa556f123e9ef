"""Preparation and augmentation: from arrays on their grids to the tensors a network sees."""

from medseg.transforms.augmentation import AUGMENTATIONS, Augmentation
from medseg.transforms.normalisation import (
    NORMALISATIONS,
    CtStatistics,
    Normalisation,
    foreground_statistics,
)
from medseg.transforms.planes import PlaneSampler, plane_of
from medseg.transforms.preparation import Preparation, Prepared
from medseg.transforms.sampling import IGNORED, PatchSampler, PatchSource, index_foreground
from medseg.transforms.sides import find_sided_pairs, named_axes

__all__ = [
    "AUGMENTATIONS",
    "IGNORED",
    "NORMALISATIONS",
    "Augmentation",
    "CtStatistics",
    "Normalisation",
    "PatchSampler",
    "PatchSource",
    "PlaneSampler",
    "Preparation",
    "Prepared",
    "find_sided_pairs",
    "foreground_statistics",
    "index_foreground",
    "named_axes",
    "plane_of",
]
