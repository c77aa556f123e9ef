"""How far the borders of found objects lie from their references."""

from dataclasses import dataclass

import numpy as np

from medseg.metrics.distances import assd, hd95
from medseg.metrics.masks import METRICS, MaskPair
from medseg.metrics.matching import InstancePair, ratio


@dataclass(frozen=True)
class InstanceBorder:
    """How far the border of one found object lies from its reference, in the pair's unit."""

    reference_id: int
    predicted_id: int
    iou: float
    assd: float
    hd95: float


def instance_borders(pair: InstancePair, *, threshold: float = 0.5) -> list[InstanceBorder]:
    """Return the border distances of every object that was found.

    Args:
        pair: The two label images, with the spacing and unit of their grid.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        One entry per found object, by ascending reference id. Missed and invented objects have no
        distance; they are counted by precision and recall.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        :func:`~medseg.metrics.distances.assd` and :func:`~medseg.metrics.distances.hd95`.
    """
    match, runs = pair.matching(threshold), pair.runs
    drawn = runs.boxes(runs.reference, len(runs.reference_ids))
    predicted = runs.boxes(runs.prediction, len(runs.predicted_ids))
    found: list[InstanceBorder] = []
    for i, j, iou in zip(match.reference, match.prediction, match.iou, strict=True):
        lower = np.minimum(drawn[0][i], predicted[0][j])
        upper = np.maximum(drawn[1][i], predicted[1][j])
        box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        reference_id, predicted_id = runs.reference_ids[i], runs.predicted_ids[j]
        masks = MaskPair(
            pair.reference_labels[box] == reference_id,
            pair.predicted_labels[box] == predicted_id,
            pair.spacing,
            pair.unit,
        )
        found.append(
            InstanceBorder(
                int(reference_id), int(predicted_id), float(iou), assd(masks), hd95(masks)
            )
        )
    return sorted(found, key=lambda border: border.reference_id)


@METRICS.register(
    "instance_assd",
    best=0.0,
    worst="diagonal",
    unit="length",
    kind="instance",
    definition="instance-assd/surfel-area-pooled-mean-over-found/v1",
)
def instance_assd(pair: InstancePair, *, threshold: float = 0.5) -> float:
    """Mean over the found objects of the mean distance between their borders.

    It judges only what was found: read it beside the recall.

    Args:
        pair: The two label images, with the spacing and unit of their grid.
        threshold: An object is found if its IoU with a predicted one exceeds this.

    Returns:
        A length in the pair's unit, 0 or more. NaN if no object was found.

    Raises:
        ValueError: ``threshold`` is not in [0, 1).

    Source:
        :func:`~medseg.metrics.distances.assd`, every object weighing the same.
    """
    borders = instance_borders(pair, threshold=threshold)
    return ratio(sum(border.assd for border in borders), len(borders))
