"""Single objects: what a network learns of them, and how its outputs become objects again.

To add a method: its file, and one import line here.
"""

from medseg.instances.affinities import Affinities
from medseg.instances.base import INSTANCES, Method
from medseg.instances.border import Border
from medseg.instances.distance import Distance
from medseg.instances.gaps import unet_weight_map

__all__ = [
    "INSTANCES",
    "Affinities",
    "Border",
    "Distance",
    "Method",
    "unet_weight_map",
]
