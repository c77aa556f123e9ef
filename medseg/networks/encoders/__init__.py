"""Encoders, for slices and volumes; one file a family.

To add one: its file, and one import line here.
"""

from medseg.networks.encoders.base import (
    ENCODERS,
    Encoder,
    OutputStride,
    check_output_stride,
    has_setting,
    make_encoder,
)
from medseg.networks.encoders.resnet import ResNet
from medseg.networks.encoders.timm import TimmEncoder
from medseg.networks.encoders.vgg import VGG
from medseg.networks.encoders.xception import Xception

__all__ = [
    "ENCODERS",
    "VGG",
    "Encoder",
    "OutputStride",
    "ResNet",
    "TimmEncoder",
    "Xception",
    "check_output_stride",
    "has_setting",
    "make_encoder",
]
