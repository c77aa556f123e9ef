"""Metrics of one case on plain arrays, in the unit of its grid; needs neither torch nor pandas."""

from medseg.metrics.bands import boundary_iou
from medseg.metrics.borders import Border
from medseg.metrics.distances import assd, hausdorff, hausdorff_percentile, hd95, masd, nsd
from medseg.metrics.instance_borders import InstanceBorder, instance_assd, instance_borders
from medseg.metrics.instances import (
    aji,
    average_precision,
    instance_f1,
    instance_precision,
    instance_recall,
    mean_average_precision,
    panoptic_quality,
    segmentation_quality,
)
from medseg.metrics.masks import METRICS, MaskPair, Status
from medseg.metrics.matching import InstancePair, Matching
from medseg.metrics.membranes import (
    MembranePair,
    MembraneScore,
    MembraneScores,
    membrane_scores,
    pixel_error,
    warping_error,
)
from medseg.metrics.mistakes import ctc_det, ctc_seg, merges, splits
from medseg.metrics.overlap import dice, iou, precision, recall, volume_difference
from medseg.metrics.regions import (
    AdaptedRand,
    adapted_rand,
    adapted_rand_error,
    v_info,
    v_rand,
    voi_merge,
    voi_split,
)
from medseg.metrics.trimap import Trimap, trimap_curve

__all__ = [
    "METRICS",
    "AdaptedRand",
    "Border",
    "InstanceBorder",
    "InstancePair",
    "MaskPair",
    "Matching",
    "MembranePair",
    "MembraneScore",
    "MembraneScores",
    "Status",
    "Trimap",
    "adapted_rand",
    "adapted_rand_error",
    "aji",
    "assd",
    "average_precision",
    "boundary_iou",
    "ctc_det",
    "ctc_seg",
    "dice",
    "hausdorff",
    "hausdorff_percentile",
    "hd95",
    "instance_assd",
    "instance_borders",
    "instance_f1",
    "instance_precision",
    "instance_recall",
    "iou",
    "masd",
    "mean_average_precision",
    "membrane_scores",
    "merges",
    "nsd",
    "panoptic_quality",
    "pixel_error",
    "precision",
    "recall",
    "segmentation_quality",
    "splits",
    "trimap_curve",
    "v_info",
    "v_rand",
    "voi_merge",
    "voi_split",
    "volume_difference",
    "warping_error",
]
