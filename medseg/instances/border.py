"""Objects as interior and border.

The network tells background, interior and border apart; interiors of touching objects are separated
by the borders of both. Each connected interior is one object, grown back over the border.

Source: the third class of the winners of the Data Science Bowl 2018, Caicedo et al., Nature Methods
16 (2019) 1247-1253; the weights of gaps of U-Net, arXiv:1505.04597.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed
from torch import Tensor, nn

from medseg.instances.base import IGNORED, INSTANCES, Array, Floats, Labels, Method
from medseg.instances.depth import Mask, depths, each_object, touching
from medseg.instances.gaps import unet_weight_map

BACKGROUND, INTERIOR, BORDER = range(3)


@INSTANCES.register("border")
class Border(Method):
    """Background, interior and border as three classes.

    Voxels not deeper in their object than ``width`` are its border, and those that touch another
    object. In an object too thin for that, the border is half as deep as the object: every object
    has an interior.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        width: Of the border, a length; None is one voxel of the finest spacing.
        gap_weight: Of the narrowest gap between two interiors in the cross-entropy, added to the 1
            of every voxel (w0 of U-Net's weight map, there 10); 0 for no map.
        gap_sigma: Width of a gap over which that weight falls, a length.

    Raises:
        ValueError: A length or weight is not positive, or a gap has a weight and no sigma.
    """

    outputs = ("background", "interior", "border")

    def __init__(
        self,
        spatial_dims: int,
        *,
        width: float | None = None,
        gap_weight: float = 0.0,
        gap_sigma: float | None = None,
    ) -> None:
        super().__init__(spatial_dims)
        if width is not None and width <= 0:
            raise ValueError(f"width is a length, got {width}")
        if gap_weight < 0:
            raise ValueError(f"gap_weight is not negative, got {gap_weight}")
        if gap_weight and not gap_sigma:
            raise ValueError("gap_weight needs gap_sigma, the width over which it falls: 2 um, say")
        self.width = width
        self.gap_weight = gap_weight
        self.gap_sigma = gap_sigma

    def targets(self, labels: Labels, spacing: Sequence[float]) -> Floats:
        """Return the class of each voxel and, with ``gap_weight``, its weight."""
        classes = self.classes(labels, spacing)
        if not self.gap_weight or self.gap_sigma is None:
            return classes[None].astype(np.float32)
        interiors = labels * (classes == INTERIOR)
        weights = unet_weight_map(
            interiors, w0=self.gap_weight, sigma=self.gap_sigma, spacing=spacing
        )
        return np.stack([classes.astype(np.float32), weights])

    def classes(self, labels: Labels, spacing: Sequence[float]) -> Labels:
        """Return background, interior or border of each voxel; -1 where nobody judged."""
        depth, deepest = depths(labels, spacing)
        width = min(spacing) if self.width is None else self.width
        # A millionth of slack: three voxels of 0.1 are 0.3 wide.
        deep = depth > np.minimum(width * (1 + 1e-6), deepest / 2)
        interior = deep & ~touching(labels)
        for box, number in each_object(labels):
            own = labels[box] == number
            if not interior[box][own].any():
                interior[box] |= own & deep[box]
        classes = np.where(interior, INTERIOR, np.where(labels > 0, BORDER, BACKGROUND))
        classes[labels < 0] = IGNORED
        return classes

    def loss(self, of_classes: nn.Module) -> nn.Module:
        """Return the job's loss of the three classes, with the weights of the voxels."""
        return _WeighedClasses(of_classes)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """``core``: least probability of a seed; ``foreground``: of an object; ``smallest``."""
        return {"core": 0.5, "foreground": 0.5, "smallest": 0.0}

    @property
    def candidates(self) -> Mapping[str, tuple[float, ...]]:
        """Six cores, four foregrounds."""
        return {"core": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "foreground": (0.3, 0.4, 0.5, 0.6)}

    def grown(self, scores: Floats, spacing: Sequence[float], chosen: Mapping[str, float]) -> Array:
        """Return one object a connected interior, grown over the border.

        Args:
            scores: (3, *spatial), probabilities of background, interior and border.
            spacing: Not needed: voxels that share a face are neighbours.
            chosen: Interiors are more probable than ``core``; interior and border together are
                more probable than ``foreground`` in an object.
        """
        inside: Mask = scores[INTERIOR] > chosen["core"]
        seeds = ndimage.label(inside)[0]
        objects: Mask = inside | (scores[BACKGROUND] < 1 - chosen["foreground"])
        ids: Array = watershed(  # type: ignore[no-untyped-call]
            scores[BORDER] - scores[INTERIOR], seeds, mask=objects
        )
        return ids


class _WeighedClasses(nn.Module):
    """A loss of classes whose targets may carry a weight for each voxel as a second channel."""

    def __init__(self, of_classes: nn.Module) -> None:
        super().__init__()
        self.of_classes = of_classes

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = {} if target.shape[1] == 1 else {"voxel_weights": target[:, 1:]}
        result: Tensor = self.of_classes(logits, target[:, :1].long(), **weights)
        return result
