"""From the fingerprint of a data set and the memory at hand to the choices of a job.

Plain values in, plain values out, each choice with its reason: nothing here reads a file.
"""

from medseg.planning.choices import Choice, Machine, choose
from medseg.planning.fingerprint import Fingerprint, take_fingerprint
from medseg.planning.sizing import Size, plan_size, resampled, target_spacing, unet_features

__all__ = [
    "Choice",
    "Fingerprint",
    "Machine",
    "Size",
    "choose",
    "plan_size",
    "resampled",
    "take_fingerprint",
    "target_spacing",
    "unet_features",
]
