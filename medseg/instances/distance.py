"""Objects as foreground and the depth in them.

The network tells foreground from background, and how deep a voxel lies in its object. Each peak of
the depth is one object, grown down to the valleys between them (a watershed). A gap in a border
does not join two objects, as long as there is a valley.

Source: Naylor et al., IEEE TMI 38 (2019) 448-459, doi:10.1109/TMI.2018.2865709. There distances are
in pixels; here each object's deepest voxel has 1, so that large and small ones have like valleys.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed
from torch import Tensor, nn

from medseg.instances.base import IGNORED, INSTANCES, Array, Floats, Labels, Method
from medseg.instances.depth import depths

_OUTSIDE = -1.0  # below every depth


@INSTANCES.register("distance")
class Distance(Method):
    """Foreground, and the depth of each voxel as a share of its object's deepest.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        smoothing: Standard deviation with which the depth is smoothed before its peaks are looked
            for, a length; None is one voxel of the finest spacing.
        distance_weight: Of the mean error of the depth in the loss, beside the job's loss of the
            foreground.

    Raises:
        ValueError: The length or the weight is not positive.
    """

    outputs = ("background", "foreground", "distance")

    def __init__(
        self, spatial_dims: int, *, smoothing: float | None = None, distance_weight: float = 5.0
    ) -> None:
        super().__init__(spatial_dims)
        if smoothing is not None and smoothing <= 0:
            raise ValueError(f"smoothing is a length, got {smoothing}")
        if distance_weight <= 0:
            raise ValueError(f"distance_weight is positive, got {distance_weight}")
        self.smoothing = smoothing
        self.distance_weight = distance_weight

    def targets(self, labels: Labels, spacing: Sequence[float]) -> Floats:
        """Return foreground (1) or background (0) of each voxel, and its depth, 0 to 1."""
        depth, deepest = depths(labels, spacing)
        share = np.divide(depth, deepest, out=np.zeros_like(depth), where=deepest > 0)
        foreground = np.where(labels < 0, IGNORED, labels > 0).astype(np.float32)
        return np.stack([foreground, share])

    def loss(self, of_classes: nn.Module) -> nn.Module:
        """Return the job's loss of the foreground plus the weighed mean error of the depth."""
        return _ForegroundAndDistance(of_classes, self.distance_weight)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the probabilities of background and foreground, and the depth."""
        return torch.cat([logits[:, :2].softmax(1), logits[:, 2:].sigmoid()], dim=1)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """``peak``: least rise of a peak over a valley; ``foreground``: least probability."""
        return {"peak": 0.1, "foreground": 0.5, "smallest": 0.0}

    @property
    def candidates(self) -> Mapping[str, tuple[float, ...]]:
        """Five peaks, four foregrounds."""
        return {"peak": (0.02, 0.05, 0.1, 0.2, 0.3), "foreground": (0.3, 0.4, 0.5, 0.6)}

    def grown(self, scores: Floats, spacing: Sequence[float], chosen: Mapping[str, float]) -> Array:
        """Return one object a peak of the depth, grown down to the valleys.

        Args:
            scores: (3, *spatial): probabilities of background and foreground, and the depth.
            spacing: Distance of neighbouring voxels along each axis.
            chosen: ``peak``, by how much a peak rises over the valley to a higher one; objects are
                where the foreground is more probable than ``foreground``.
        """
        within: Array = scores[1] > chosen["foreground"]
        if not within.any():
            return within
        length = min(spacing) if self.smoothing is None else self.smoothing
        smooth = ndimage.gaussian_filter(scores[2], [length / side for side in spacing])
        # Padded, so that a plateau that fills the image is a peak, too.
        depth = np.pad(np.where(within, smooth, _OUTSIDE), 1, constant_values=_OUTSIDE)
        lowered = reconstruction(  # type: ignore[no-untyped-call]
            np.maximum(depth - chosen["peak"], _OUTSIDE), depth
        )
        tops = local_maxima(lowered)  # type: ignore[no-untyped-call]
        inner = tuple(slice(1, -1) for _ in spacing)
        whole = ndimage.generate_binary_structure(depth.ndim, depth.ndim)
        seeds = ndimage.label(tops, structure=whole)[0][inner]
        ids: Array = watershed(-smooth, seeds, mask=within)  # type: ignore[no-untyped-call]
        return ids


class _ForegroundAndDistance(nn.Module):
    """A loss of two classes, and of the depth wherever somebody judged."""

    def __init__(self, of_classes: nn.Module, distance_weight: float) -> None:
        super().__init__()
        self.of_classes = of_classes
        self.distance_weight = distance_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        foreground: Tensor = self.of_classes(logits[:, :2], target[:, :1].long())
        judged = target[:, :1] != IGNORED
        error = (logits[:, 2:].float().sigmoid() - target[:, 1:]).abs() * judged
        return foreground + self.distance_weight * error.sum() / judged.sum().clamp(min=1)
