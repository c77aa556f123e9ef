"""Encoders, for slices and volumes; one file a family.

To add one: its file, and one import line here.
"""

from medseg.networks.encoders.base import ENCODERS, Encoder, OutputStride, make_encoder
from medseg.networks.encoders.resnet import ResNet

__all__ = ["ENCODERS", "Encoder", "OutputStride", "ResNet", "make_encoder"]
