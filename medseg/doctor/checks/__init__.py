"""The checks of the doctor; ``CHECKS`` holds them all."""

from medseg.doctor.checks import (
    files,
    grids,
    groups,
    intensities,
    objects,
    sides,
    structures,
    values,
)
from medseg.doctor.checks.base import CHECKS

__all__ = [
    "CHECKS",
    "files",
    "grids",
    "groups",
    "intensities",
    "objects",
    "sides",
    "structures",
    "values",
]
