"""Networks, for slices and volumes; one file an architecture.

To add one: its file, and one import line here.
"""

from medseg.networks.autodeeplab import AutoDeepLab
from medseg.networks.base import NETWORKS, Network
from medseg.networks.basicunet import BasicUNet
from medseg.networks.deeplabv1 import DeepLabV1
from medseg.networks.deeplabv2 import DeepLabV2
from medseg.networks.deeplabv3 import DeepLabV3
from medseg.networks.deeplabv3plus import DeepLabV3Plus
from medseg.networks.dynunet import DynUNet
from medseg.networks.fcn import FCN
from medseg.networks.gcn import GCN
from medseg.networks.msd import MSDNet
from medseg.networks.patch_classifier import PatchClassifier
from medseg.networks.plain_fcn import PlainFCN
from medseg.networks.pspnet import PSPNet
from medseg.networks.segnet import SegNet
from medseg.networks.takeover import TakenOver, take_over
from medseg.networks.topology import plan_topology, strides_from_spacing
from medseg.networks.unet import UNetClassic

__all__ = [
    "FCN",
    "GCN",
    "NETWORKS",
    "AutoDeepLab",
    "BasicUNet",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "DynUNet",
    "MSDNet",
    "Network",
    "PSPNet",
    "PatchClassifier",
    "PlainFCN",
    "SegNet",
    "TakenOver",
    "UNetClassic",
    "plan_topology",
    "strides_from_spacing",
    "take_over",
]
