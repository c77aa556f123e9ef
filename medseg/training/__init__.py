"""Training: one LightningModule, one schedule, one way to run them."""

from medseg.training.fit import FitResult, fit
from medseg.training.module import SegmentationModule
from medseg.training.objects import ObjectsModule
from medseg.training.rehearsal import Rehearsed, rehearse
from medseg.training.schedule import Schedule

__all__ = [
    "FitResult",
    "ObjectsModule",
    "Rehearsed",
    "Schedule",
    "SegmentationModule",
    "fit",
    "rehearse",
]
