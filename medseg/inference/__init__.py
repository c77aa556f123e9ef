"""From a trained network and an image to labels on the image's own grid."""

from medseg.inference.model import Model, ModelSpec
from medseg.inference.sliding import probabilities_of, sliding_window

__all__ = ["Model", "ModelSpec", "probabilities_of", "sliding_window"]
