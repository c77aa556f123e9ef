"""Cross-entropy over voxels."""

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from medseg.losses.base import LOSSES, ClassWeights, Loss, as_weights, check_shapes, check_weights


@LOSSES.register("cross_entropy")
class CrossEntropy(Loss):
    """Mean over the voxels of minus the logarithm of the true class's probability.

    Args:
        class_weights: Weight of each class, background first; equal by default. The mean is
            weighted, so that only their ratios count. A job may say ``median_frequency``.
        ignore_index: A value of the target that marks voxels that nobody judged.

    Returns (of ``forward``):
        Unitless, 0 or more; the logarithm of the number of classes for equal logits. 0 if every
        voxel is ignored.

    Raises:
        ValueError: A weight is negative, or their number is not that of the classes.
    """

    def __init__(
        self, *, class_weights: ClassWeights = None, ignore_index: int | None = -1
    ) -> None:
        super().__init__()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", as_weights(class_weights), persistent=False)
        self.ignore_index = ignore_index

    def forward(
        self, logits: Tensor, target: Tensor, voxel_weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss; see :class:`medseg.losses.base.Loss` for the shapes."""
        check_shapes(logits, target)
        check_weights(self.class_weights, logits.shape[1])
        classes = target[:, 0].long()
        if voxel_weights is not None:
            return self._weighed(logits, classes, voxel_weights[:, 0])
        if self.ignore_index is None:
            return F.cross_entropy(logits.float(), classes, self.class_weights)
        annotated = classes != self.ignore_index
        total = F.cross_entropy(
            logits.float(),
            classes,
            self.class_weights,
            ignore_index=self.ignore_index,
            reduction="sum",
        )
        if self.class_weights is None:
            return total / annotated.sum().clamp(min=1)
        present = classes.where(annotated, 0)
        weight = (self.class_weights[present] * annotated).sum()
        return total / weight.where(weight > 0, 1.0)

    def _weighed(self, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        if self.ignore_index is not None:
            weights = weights * (classes != self.ignore_index)
            classes = classes.where(classes != self.ignore_index, 0)
        if self.class_weights is not None:
            weights = weights * self.class_weights[classes]
        each = F.cross_entropy(logits.float(), classes, reduction="none")
        total = weights.sum()
        return (each * weights).sum() / total.where(total > 0, 1.0)
