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
from medseg.metrics.mistakes import ctc_det, ctc_seg, merges, splits
from medseg.metrics.overlap import dice, iou, precision, recall, volume_difference
from medseg.metrics.trimap import Trimap, trimap_curve

__all__ = [
    "METRICS",
    "Border",
    "InstanceBorder",
    "InstancePair",
    "MaskPair",
    "Matching",
    "Status",
    "Trimap",
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
    "merges",
    "nsd",
    "panoptic_quality",
    "precision",
    "recall",
    "segmentation_quality",
    "splits",
    "trimap_curve",
    "volume_difference",
]
