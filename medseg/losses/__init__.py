"""Losses, of logits against the class of every voxel.

To add one: its file, and one import line here.
"""

from medseg.losses.base import LOSSES, Loss
from medseg.losses.cross_entropy import CrossEntropy
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.dice_ce import DiceCE
from medseg.losses.weights import median_frequency_weights

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "DeepSupervision",
    "DiceCE",
    "Loss",
    "median_frequency_weights",
]
