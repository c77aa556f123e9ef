"""From a trained network and an image to labels on the image's own grid."""

from medseg.inference.crf import DenseCRF
from medseg.inference.crf_choice import CrfCase, CrfChoice, choose_crf
from medseg.inference.ensemble import Ensemble, open_model, save_ensemble
from medseg.inference.model import Model, ModelSpec
from medseg.inference.objects import ObjectFinder
from medseg.inference.sliding import probabilities_of, sliding_window
from medseg.inference.thresholds import (
    ObjectCase,
    ThresholdChoice,
    choose_thresholds,
    object_scores,
)

__all__ = [
    "CrfCase",
    "CrfChoice",
    "DenseCRF",
    "Ensemble",
    "Model",
    "ModelSpec",
    "ObjectCase",
    "ObjectFinder",
    "ThresholdChoice",
    "choose_crf",
    "choose_thresholds",
    "object_scores",
    "open_model",
    "probabilities_of",
    "save_ensemble",
    "sliding_window",
]
