"""Soft Dice plus cross-entropy.

Source: the loss of nnU-Net, Isensee et al., Nature Methods 18 (2021) 203-211.
"""

from monai.losses.dice import DiceLoss
from torch import Tensor

from medseg.losses.base import LOSSES, ClassWeights, Loss, check_shapes
from medseg.losses.cross_entropy import CrossEntropy


@LOSSES.register("dice_ce")
class DiceCE(Loss):
    """Sum of soft Dice loss (MONAI's, on softmax) and cross-entropy.

    Dice counts overlap and so forgives the many background voxels; cross-entropy gives every voxel
    a gradient, and counts the weights of voxels. A class absent from target and logits costs
    nothing; one predicted where there is none costs up to 1, divided by the number of classes.

    Args:
        include_background: Whether the background has its part in Dice.
        batch: Whether Dice sums over the batch before it divides, which is calmer for small
            structures, instead of image by image.
        smooth: Added to numerator and denominator of Dice, in voxels.
        dice_weight: Weight of Dice in the sum.
        ce_weight: Weight of the cross-entropy in the sum.
        class_weights: Weight of each class in the cross-entropy, background first. A job may say
            ``median_frequency``.
        ignore_index: A value of the target that marks voxels that nobody judged.

    Raises:
        ValueError: A weight is negative, or the number of class weights is not that of the classes.
    """

    def __init__(
        self,
        *,
        include_background: bool = False,
        batch: bool = False,
        smooth: float = 1e-5,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        class_weights: ClassWeights = None,
        ignore_index: int | None = -1,
    ) -> None:
        super().__init__()
        if min(dice_weight, ce_weight) < 0 or max(dice_weight, ce_weight) == 0:
            raise ValueError(
                f"dice_weight and ce_weight are not negative and not both zero, got {dice_weight} "
                f"and {ce_weight}"
            )
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.cross_entropy = CrossEntropy(class_weights=class_weights, ignore_index=ignore_index)
        self.dice = DiceLoss(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            smooth_nr=smooth,
            smooth_dr=smooth,
            batch=batch,
            ignore_index=ignore_index,
        )

    def forward(
        self, logits: Tensor, target: Tensor, voxel_weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss; see :class:`medseg.losses.base.Loss` for the shapes."""
        check_shapes(logits, target)
        dice: Tensor = self.dice(logits.float(), target)
        entropy: Tensor = self.cross_entropy(logits, target, voxel_weights)
        return self.dice_weight * dice + self.ce_weight * entropy
