"""Which part of a case is learnt from next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Label of voxels that nobody judged, or that lie outside of the image: losses leave them out.
IGNORED = -1

_MOST_VOXELS = 1_000_000  # kept of a case, 12 bytes each

Sample = dict[str, Tensor]
Place = tuple[int, ...]


@dataclass(frozen=True)
class PatchSource:
    """A prepared case, ready for patches to be cut from it.

    Args:
        image: (channels, *spatial), float32.
        label: (1, *spatial), integers; ``IGNORED`` where nobody judged.
        voxels: Some voxels of each class above 0, (count, spatial_dims), from
            :func:`index_foreground`.
    """

    image: Tensor
    label: Tensor
    voxels: Mapping[int, NDArray[np.int32]]

    def __post_init__(self) -> None:
        if self.label.shape != (1, *self.image.shape[1:]):
            raise ValueError(
                f"image of {tuple(self.image.shape)} with labels of {tuple(self.label.shape)}: "
                f"expected (channels, *spatial) and (1, *spatial)"
            )

    @classmethod
    def of(cls, image: Tensor, label: Tensor, *, seed: int = 0) -> "PatchSource":
        """Index a case; the seed decides which voxels of large classes are kept."""
        voxels = index_foreground(label[0].numpy(), rng=np.random.default_rng(seed))
        return cls(image, label, voxels)


def index_foreground(
    labels: NDArray[np.int32], *, max_voxels: int = 10_000, rng: np.random.Generator
) -> dict[int, NDArray[np.int32]]:
    """Return up to ``max_voxels`` random voxels of each class, or object, above 0.

    Args:
        labels: (*spatial), integers.
        max_voxels: Kept of each class; beyond it, voxels are drawn without replacement. Of more
            than a hundred classes, as objects may be, fewer: a million voxels of all.
        rng: Of that draw.

    Returns:
        Class -> (count, spatial_dims) array indices. Classes that are not present have no entry.
    """
    places = np.flatnonzero(labels > 0)
    values = labels.ravel()[places]
    order = np.argsort(values, kind="stable")
    classes, first = np.unique(values[order], return_index=True)
    max_voxels = min(max_voxels, max(1, _MOST_VOXELS // max(1, len(classes))))
    index = {}
    for value, members in zip(classes.tolist(), np.split(places[order], first[1:]), strict=False):
        if len(members) > max_voxels:
            members = rng.choice(members, max_voxels, replace=False)
        index[value] = np.stack(np.unravel_index(members, labels.shape), 1).astype(np.int32)
    return index


class PatchSampler:
    """Cuts patches from cases, often around a voxel of a structure.

    Args:
        patch_voxels: Size of a patch, array order.
        foreground: Probability that a patch is placed around a voxel of a class above 0, drawn
            uniformly among the classes present, so that small structures are seen as often as
            large ones. Other patches lie anywhere.
        jitter: How far the voxel may lie from the patch's centre, as a share of half the patch: 0
            centres it always, 1 lets it lie anywhere in the patch. Without jitter the network
            would learn that the centre is a structure.
        class_weights: Relative frequency of classes among the foreground patches; 1 if not named.

    Raises:
        ValueError: A share is not in [0, 1], a weight is negative, or a size is not positive.
    """

    def __init__(
        self,
        patch_voxels: Sequence[int],
        *,
        foreground: float = 0.67,
        jitter: float = 0.5,
        class_weights: Mapping[int, float] | None = None,
    ) -> None:
        self.patch_voxels = tuple(patch_voxels)
        self.foreground = foreground
        self.jitter = jitter
        self.class_weights = dict(class_weights or {})
        for name, share in (("foreground", foreground), ("jitter", jitter)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, got {share}")
        if min(self.class_weights.values(), default=0) < 0:
            raise ValueError(f"class_weights may not be negative, got {self.class_weights}")
        if min(self.patch_voxels, default=0) < 1:
            raise ValueError(f"patch_voxels are positive sizes, got {self.patch_voxels}")

    def place(self, source: PatchSource, rng: np.random.Generator) -> Place:
        """Return the first voxel of the next patch, per axis.

        The patch stays inside of the image; where the image is smaller, it lies at a random place
        inside of the patch.
        """
        shape, patch = np.array(source.label.shape[1:]), np.array(self.patch_voxels)
        if len(shape) != len(patch):
            raise ValueError(f"a patch of {len(patch)} axes from an image of {len(shape)} axes")
        low, high = np.minimum(0, shape - patch), np.maximum(0, shape - patch)
        around = self._foreground_voxel(source, rng) if rng.random() < self.foreground else None
        if around is None:
            start = rng.integers(low, high, endpoint=True)
        else:
            off_centre = rng.uniform(-1, 1, len(patch)) * self.jitter * (patch - 1) / 2
            start = np.round(around - (patch - 1) / 2 + off_centre).astype(int).clip(low, high)
        return tuple(start.tolist())

    def sample(
        self,
        source: PatchSource,
        rng: np.random.Generator,
        augmentation: Callable[[dict[str, object], int], Sample] | None = None,
    ) -> Sample:
        """Return the next patch: ``image`` (channels, *patch) and ``label`` (1, *patch).

        The augmentation gets the whole case and the patch's place, not the patch: a rotated patch
        then shows real surroundings in its corners, and only the voxels needed are read.

        Args:
            source: The case.
            rng: Decides the place and the augmentation; the same state gives the same patch.
            augmentation: From AUGMENTATIONS; None cuts the patch as it is.

        Returns:
            Contiguous tensors of their own. Where the patch reaches beyond the image, the image
            is 0 (the middle of normalised intensities) and the label ``IGNORED``.
        """
        start = self.place(source, rng)
        if augmentation is None:
            image = crop(source.image, start, self.patch_voxels, fill=0)
            label = crop(source.label, start, self.patch_voxels, fill=IGNORED)
            dense = torch.contiguous_format
            return {
                "image": image.clone(memory_format=dense),
                "label": label.clone(memory_format=dense),
            }
        seed = int(rng.integers(2**32))
        return augmentation({"image": source.image, "label": source.label, "start": start}, seed)

    def _foreground_voxel(
        self, source: PatchSource, rng: np.random.Generator
    ) -> NDArray[np.int32] | None:
        classes = sorted(source.voxels)
        weights = np.array([self.class_weights.get(value, 1.0) for value in classes])
        if not weights.sum():
            return None
        voxels = source.voxels[classes[int(rng.choice(len(classes), p=weights / weights.sum()))]]
        chosen: NDArray[np.int32] = voxels[rng.integers(len(voxels))]
        return chosen


def crop(image: Tensor, start: Sequence[int], size: Sequence[int], *, fill: float) -> Tensor:
    """Return a part of an image (channels, *spatial), filled where it lies outside.

    A view where no voxel lies outside.
    """
    shape = image.shape[1:]
    stop = [a + n for a, n in zip(start, size, strict=True)]
    inside = [
        slice(min(max(a, 0), n), min(max(b, 0), n))
        for a, b, n in zip(start, stop, shape, strict=True)
    ]
    part = image[(slice(None), *inside)]
    if tuple(part.shape[1:]) == tuple(size):
        return part
    result = torch.full((len(image), *size), fill, dtype=image.dtype)
    there = [slice(s.start - a, s.stop - a) for s, a in zip(inside, start, strict=True)]
    if part.numel():
        result[(slice(None), *there)] = part
    return result
