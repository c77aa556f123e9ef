"""Networks, for slices and volumes; one file an architecture.

To add one: its file, and one import line here.
"""

from medseg.networks.base import NETWORKS, Network
from medseg.networks.basicunet import BasicUNet
from medseg.networks.deeplabv3plus import DeepLabV3Plus
from medseg.networks.dynunet import DynUNet
from medseg.networks.msd import MSDNet
from medseg.networks.topology import plan_topology, strides_from_spacing
from medseg.networks.unet import UNetClassic

__all__ = [
    "NETWORKS",
    "BasicUNet",
    "DeepLabV3Plus",
    "DynUNet",
    "MSDNet",
    "Network",
    "UNetClassic",
    "plan_topology",
    "strides_from_spacing",
]
