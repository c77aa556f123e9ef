"""From the fingerprint of a data set and the memory at hand to the choices of a job.

Plain values in, plain values out, each choice with its reason: nothing here reads a file.
"""

from medseg.planning.sizing import (
    Size,
    plan_size,
    resampled,
    target_spacing,
    unet_features,
)

__all__ = ["Size", "plan_size", "resampled", "target_spacing", "unet_features"]
