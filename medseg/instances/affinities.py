"""Objects as pairs of voxels that belong together.

The network tells, for each voxel and some offsets, whether the voxel there is of the same object.
Neighbours that belong together join, the surest first, unless voxels further apart are surely of
two objects (the mutex watershed). It needs no seed, so it suits objects that are long or branched.

Source: Wolf et al., IEEE TPAMI 43 (2020) 3724-3738, arXiv:1904.12654; the mutex watershed is that
of bioimage-cpp. There neighbours only attract; here two that are surely of two objects keep these
apart, too, so that objects thinner than the long offsets do not join.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.instances.base import IGNORED, INSTANCES, Array, Floats, Labels, Method

Offset = tuple[int, ...]


@INSTANCES.register("affinities")
class Affinities(Method):
    """Foreground, and whether voxels some way back along each axis are of the same object.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        reach: Distances in voxels at which objects are told apart, beside 1; a third to two
            thirds of an object's width is a good largest one.

    Raises:
        ValueError: A reach is below 2, or bioimage-cpp is not installed.
    """

    averages = False

    def __init__(self, spatial_dims: int, *, reach: Sequence[int] = (3, 9)) -> None:
        super().__init__(spatial_dims)
        if min(reach, default=0) < 2:
            raise ValueError(f"reach holds one or more distances from 2 up, got {list(reach)}")
        _mutex_watershed()
        self.offsets: tuple[Offset, ...] = tuple(
            tuple(-distance if axis == along else 0 for axis in range(spatial_dims))
            for distance in (1, *reach)
            for along in range(spatial_dims)
        )
        axes = "zyx"[-spatial_dims:]
        pairs = (f"same_{axes[i % spatial_dims]}{min(o)}" for i, o in enumerate(self.offsets))
        self.outputs = ("background", "foreground", *pairs)

    def targets(self, labels: Labels, spacing: Sequence[float]) -> Floats:
        """Return foreground (1) or background (0), and for each pair whether it is of one object.

        -1 where nobody judged one of a pair, where it reaches beyond the image, and where both
        voxels are background.
        """
        result = np.full((1 + len(self.offsets), *labels.shape), IGNORED, np.float32)
        result[0] = np.where(labels < 0, IGNORED, labels > 0)
        for pair, offset in zip(result[1:], self.offsets, strict=True):
            here, there = _both(offset, labels.shape)
            one, other = labels[here], labels[there]
            known = (one >= 0) & (other >= 0) & ((one > 0) | (other > 0))
            pair[here] = np.where(known, one == other, IGNORED)
        return result

    def loss(self, of_classes: nn.Module) -> nn.Module:
        """Return the job's loss of the foreground plus Dice and cross-entropy of the pairs."""
        return _ForegroundAndPairs(of_classes)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the probabilities of background, foreground and of each pair."""
        return torch.cat([logits[:, :2].softmax(1), logits[:, 2:].sigmoid()], dim=1)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """``attraction``: added to what joins neighbours; ``foreground``: least probability."""
        return {"attraction": 0.0, "foreground": 0.5, "smallest": 0.0}

    @property
    def candidates(self) -> Mapping[str, tuple[float, ...]]:
        """Five attractions, four foregrounds, and sizes that only specks fall below."""
        return {
            "attraction": (-0.3, -0.15, 0.0, 0.15, 0.3),
            "foreground": (0.3, 0.4, 0.5, 0.6),
            "smallest": (0.0, 8.0, 32.0),
        }

    def grown(self, scores: Floats, spacing: Sequence[float], chosen: Mapping[str, float]) -> Array:
        """Return the parts into which pairs divide the foreground.

        Args:
            scores: (outputs, *spatial): probabilities of background, foreground and the pairs.
            spacing: Not needed: offsets count voxels.
            chosen: ``attraction`` is added to what joins neighbours, more joins more; objects are
                where the foreground is more probable than ``foreground``.
        """
        pairs = scores[2:].astype(np.float32)
        near = self.spatial_dims
        ids: Array = _mutex_watershed()(
            np.concatenate([pairs[:near] + np.float32(chosen["attraction"]), 1 - pairs]),
            [*self.offsets[:near], *self.offsets],
            near,
            mask=scores[1] > chosen["foreground"],
        )
        return ids


def _both(offset: Offset, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels that have a partner at an offset of at most 0, and the partners."""
    here = tuple(slice(min(-o, n), None) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(0, max(n + o, 0)) for o, n in zip(offset, shape, strict=True))
    return here, there


def _mutex_watershed() -> Any:
    try:
        from bioimage_cpp.segmentation import mutex_watershed
    except ImportError:
        raise ValueError(
            "affinities need bioimage-cpp, which is not installed: pip install 'medseg[affinities]'"
        ) from None
    return mutex_watershed


class _ForegroundAndPairs(nn.Module):
    """A loss of two classes, and of the pairs that are known."""

    def __init__(self, of_classes: nn.Module) -> None:
        super().__init__()
        self.of_classes = of_classes

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        foreground: Tensor = self.of_classes(logits[:, :2], target[:, :1].long())
        pairs, same = logits[:, 2:].float(), target[:, 1:]
        known = (same != IGNORED).float()
        entropy = F.binary_cross_entropy_with_logits(pairs, same.clamp(min=0), reduction="none")
        # Dice of what is apart: the few pairs across a border count as much as the many within.
        apart, drawn = (1 - pairs.sigmoid()) * known, (1 - same.clamp(min=0)) * known
        axes = (0, *range(2, pairs.ndim))
        both, sizes = (apart * drawn).sum(axes), (apart + drawn).sum(axes)
        dice = 1 - (2 * both + 1) / (sizes + 1)
        return foreground + (entropy * known).sum() / known.sum().clamp(min=1) + dice.mean()
