"""Training on single objects: the loss of a method's targets, the score of the objects found."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medseg.inference import ObjectFinder, object_scores, probabilities_of, sliding_window
from medseg.inference.thresholds import JUDGED_BY
from medseg.training.module import SegmentationModule


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
        return dict(zip(JUDGED_BY, means, strict=True))
