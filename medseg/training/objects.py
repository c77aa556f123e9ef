"""Training on single objects: the loss of a method's targets, the score of the objects found."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.inference import ObjectFinder, probabilities_of, sliding_window
from medseg.metrics import METRICS, InstancePair
from medseg.training.module import SegmentationModule

Array = NDArray[Any]
_JUDGED_BY = ("panoptic_quality", "average_precision")


class ObjectsModule(SegmentationModule):
    """Trains a network on a method's targets, and validates the objects that it finds.

    The panoptic quality that chooses the checkpoint is that of the objects of each whole validation
    image, averaged over the images: Dice stays high while touching cells merge.

    Args:
        finder: Finds the objects, with its thresholds as they stand.
        args: As of :class:`SegmentationModule`.
    """

    score = "panoptic_quality"
    score_name = "PQ"

    def __init__(self, *args: Any, finder: ObjectFinder, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.finder = finder

    def judge(self, batch: Mapping[str, Any]) -> Tensor:
        """Return panoptic quality and average precision of one whole image."""
        rows = sliding_window(
            probabilities_of(self.network, activation=self.finder.method.scores),
            batch["image"][0],
            window=self.window_voxels,
            overlap=self.overlap,
        )
        scores = torch.cat(list(rows), dim=1).cpu().numpy()
        found = self.finder.find(scores, batch["spacing"][0])
        return torch.tensor(object_scores(batch["label"][0, 0].cpu().numpy(), found))

    def summary(self, judged: Tensor) -> dict[str, float]:
        """Return the means over the images; 0 where no image has an object or a found one."""
        means = judged.nanmean(0).nan_to_num(0.0).tolist()
        return dict(zip(_JUDGED_BY, means, strict=True))


def object_scores(reference: Array, found: Array) -> list[float]:
    """Return panoptic quality and average precision at an IoU of 0.5.

    Args:
        reference: (*spatial), the objects as drawn; below 0 where nobody judged.
        found: (*spatial), the objects to be judged.
    """
    judged = reference >= 0
    pair = InstancePair(reference * judged, found * judged)
    return [METRICS[name](pair) for name in _JUDGED_BY]
