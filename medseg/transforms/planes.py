"""A stack seen plane by plane: each alone, or with its neighbours as further channels."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from medseg.transforms.sampling import PatchSampler, PatchSource, Sample


def plane_of(image: Tensor, number: int, neighbours: int = 0) -> Tensor:
    """Return one plane of a stack, with planes on each side of it as channels.

    Beyond the first and the last plane these repeat.

    Args:
        image: (channels, z, y, x).
        number: Of the plane, from 0.
        neighbours: Planes on each side.

    Returns:
        (channels * (2 * neighbours + 1), y, x): of each channel all planes in order.
    """
    if not neighbours:
        return image[:, number]
    last = image.shape[1] - 1
    around = [min(max(i, 0), last) for i in range(number - neighbours, number + neighbours + 1)]
    return image[:, around].flatten(0, 1)


class PlaneSampler(PatchSampler):
    """Cuts flat patches from the planes of stacks, often around a voxel of a structure.

    A plane is drawn through a voxel of a structure as often as ``foreground`` says, so that planes
    that hold little are not drawn as often as those that hold much.

    Args:
        patch_voxels: Size of a patch, (y, x).
        foreground: As of :class:`PatchSampler`.
        neighbours: Planes on each side that are channels of the patch.
    """

    def __init__(
        self, patch_voxels: Sequence[int], *, foreground: float = 0.67, neighbours: int = 0
    ) -> None:
        super().__init__(patch_voxels, foreground=foreground)
        self.neighbours = neighbours
        self._around = PatchSampler(patch_voxels, foreground=1.0)
        self._anywhere = PatchSampler(patch_voxels, foreground=0.0)

    def sample(
        self,
        source: PatchSource,
        rng: np.random.Generator,
        augmentation: Callable[[dict[str, object], int], Sample] | None = None,
    ) -> Sample:
        """Return the next patch: ``image`` (channels, y, x), as :func:`plane_of`, and ``label``."""
        voxel = self._foreground_voxel(source, rng) if rng.random() < self.foreground else None
        if voxel is None:
            number = int(rng.integers(source.label.shape[1]))
            return self._anywhere.sample(self._plane(source, number), rng, augmentation)
        return self._around.sample(self._plane(source, int(voxel[0]), voxel), rng, augmentation)

    def _plane(
        self, source: PatchSource, number: int, voxel: np.ndarray | None = None
    ) -> PatchSource:
        image = plane_of(source.image, number, self.neighbours)
        places = {} if voxel is None else {1: voxel[None, 1:]}
        return PatchSource(image, source.label[:, number], places)
