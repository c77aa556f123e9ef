"""Making patches that could have been acquired, so that few images teach more."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandSimulateLowResolutiond
from monai.transforms.transform import MapTransform, Randomizable

from medseg.registry import Registry
from medseg.transforms.normalisation import plain
from medseg.transforms.sampling import Sample
from medseg.transforms.sides import Mirror, Sides
from medseg.transforms.spatial import RandMirrord, RandQuarterTurnd, RandWarpd

AUGMENTATIONS: "Registry[Augmentation]" = Registry(
    "augmentation", given=("spatial_dims", "patch_voxels", "sagittal_axis", "sided")
)

_IMAGE = ("image",)
# Sided labels bear this rotation in a plane that holds left and right (the recipe's own in 3D).
_SMALL_ROTATION = 30.0


class Augmentation(Compose):
    """Random transforms of a patch of a case.

    Call it with ``{"image": (channels, *spatial), "label": (1, *spatial), "start": first voxel of
    the patch}`` and, optionally, a seed; without ``start`` the patch is the middle of the image.
    The result holds ``image`` (channels, *patch), float32, and ``label`` (1, *patch), plain
    contiguous tensors. The same seed gives the same patch.

    Unlike MONAI's ``Compose``, all transforms draw from one random state: seeding each of them
    apart takes 2 ms a patch.
    """

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "Augmentation":
        """Let all transforms draw from one random state."""
        self.R = np.random.RandomState(seed) if state is None else state
        for transform in self.transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[str, Any], seed: int | None = None) -> Sample:  # type: ignore[override]
        """Return the augmented patch."""
        if seed is not None:
            self.set_random_state(seed)
        result: Any = data
        # Not Compose's own loop: it wraps every error in a RuntimeError that hides its words.
        for transform in self.transforms:
            result = transform(result)
        # Cloned: a view would keep, and send to another process, the whole case.
        return {
            key: plain(result[key]).clone(memory_format=torch.contiguous_format)
            for key in ("image", "label")
        }


@AUGMENTATIONS.register("recipe")
def recipe(
    spatial_dims: int,
    patch_voxels: Sequence[int],
    sagittal_axis: int | None = None,
    sided: Sequence[tuple[int, int]] = (),
    *,
    rotation: float = 0.2,
    degrees: float | None = None,
    scaling: float = 0.2,
    scaling_range: tuple[float, float] = (0.7, 1.4),
    elastic: float = 0.0,
    elastic_voxels: float | None = None,
    noise: float = 0.1,
    noise_sigma: float = 0.1,
    blur: float = 0.2,
    blur_sigma: tuple[float, float] = (0.5, 1.0),
    brightness: float = 0.15,
    brightness_change: float = 0.25,
    contrast: float = 0.15,
    contrast_change: float = 0.25,
    low_resolution: float = 0.25,
    low_resolution_zoom: tuple[float, float] = (0.5, 1.0),
    gamma_inverted: float = 0.1,
    gamma: float = 0.3,
    gamma_range: tuple[float, float] = (0.7, 1.5),
    mirror: Mirror = "all",
) -> Augmentation:
    """nnU-Net's augmentation, the strongest published recipe, in its order.

    Args:
        spatial_dims: 2 or 3.
        patch_voxels: Size of the patch. If one side is less than a third of the longest, the patch
            is warped as a stack of slices ("dummy 2D").
        sagittal_axis: Array axis that crosses left and right; None if it isn't known.
        sided: (left, right) classes. They trade places in a mirror across the sagittal axis, and
            rotations that could exchange them stay below 30 degrees. If the axis isn't known,
            nothing is mirrored.
        rotation: Probability of a rotation.
        degrees: Largest rotation. None: 30 in 3D; 180 in 2D and in a stack, 15 if a 2D patch is
            more than 1.5 times as long as wide.
        scaling: Probability of a scaling, the same on all axes.
        scaling_range: Its factor; above 1 objects become smaller.
        elastic: Probability of U-Net's elastic deformation; nnU-Net has none.
        elastic_voxels: See :class:`RandWarpd`.
        noise: Probability of Gaussian noise.
        noise_sigma: Its standard deviation is drawn between 0 and this, on normalised intensities.
        blur: Probability of a Gaussian blur.
        blur_sigma: Its sigma in voxels, drawn for each axis.
        brightness: Probability of a multiplication, drawn for each channel.
        brightness_change: By 1 - this to 1 + this.
        contrast: Probability of a stretch about the channel's mean, within its old range.
        contrast_change: By 1 - this to 1 + this.
        low_resolution: Probability of a coarser image, interpolated back.
        low_resolution_zoom: Its factor; 0.5 keeps every second voxel.
        gamma_inverted: Probability of a gamma curve on the negative, keeping mean and deviation.
        gamma: Probability of a gamma curve on the image.
        gamma_range: The exponent.
        mirror: ``all``, ``none``, or the axes that may be flipped (``x``, ``y``, ``z``, or numbers
            of array axes), each with probability one half.

    Source:
        nnU-Net 2.8.1, ``get_training_transforms``. Differences: blur and low resolution change
        all channels or none (there each channel with probability 0.5); the exponent is uniform
        (there one half of the draws below 1); outside of the image labels are ``IGNORED`` (there
        background).
    """
    patch = _checked_patch(spatial_dims, patch_voxels)
    sides = Sides(tuple((int(a), int(b)) for a, b in sided), sagittal_axis)
    flat = _flat_axis(patch)
    zoom: Transform = RandSimulateLowResolutiond(
        _IMAGE,
        prob=low_resolution,
        upsample_mode="bilinear" if spatial_dims == 2 or flat is not None else "trilinear",
        zoom_range=low_resolution_zoom,
    )
    return Augmentation(
        [
            RandWarpd(
                patch,
                degrees=_degrees(patch, flat, sides, degrees),
                rotation=rotation,
                scaling=scaling,
                scaling_range=scaling_range,
                elastic=elastic,
                elastic_voxels=elastic_voxels,
                flat_axis=flat,
            ),
            RandGaussianNoised(_IMAGE, prob=noise, std=noise_sigma),
            RandGaussianSmoothd(
                _IMAGE, prob=blur, sigma_x=blur_sigma, sigma_y=blur_sigma, sigma_z=blur_sigma
            ),
            RandScaleIntensityd(
                _IMAGE, prob=brightness, factors=brightness_change, channel_wise=True
            ),
            RandScaleIntensityFixedMeand(
                _IMAGE, prob=contrast, factors=contrast_change, preserve_range=True
            ),
            zoom if flat is None else PerSlice(zoom, flat),
            RandAdjustContrastd(
                _IMAGE,
                prob=gamma_inverted,
                gamma=gamma_range,
                invert_image=True,
                retain_stats=True,
            ),
            RandAdjustContrastd(_IMAGE, prob=gamma, gamma=gamma_range, retain_stats=True),
            RandMirrord(sides.mirror_axes(mirror, spatial_dims), sides),
        ]
    )


@AUGMENTATIONS.register("light")
def light(
    spatial_dims: int,
    patch_voxels: Sequence[int],
    sagittal_axis: int | None = None,
    sided: Sequence[tuple[int, int]] = (),
    *,
    quarter_turns: float = 1.0,
    elastic: float = 0.0,
    elastic_voxels: float | None = None,
    brightness: float = 0.3,
    brightness_change: float = 0.25,
    shift: float = 0.3,
    shift_by: float = 0.1,
    noise: float = 0.15,
    noise_sigma: float = 0.1,
    mirror: Mirror = "all",
) -> Augmentation:
    """Cheap augmentation for training without a GPU: no interpolation unless ``elastic`` asks.

    Args:
        spatial_dims: 2 or 3.
        patch_voxels: Size of the patch.
        sagittal_axis: Array axis that crosses left and right; None if it isn't known.
        sided: (left, right) classes. They trade places in a mirror across the sagittal axis; if
            the axis isn't known, nothing is mirrored. No quarter turn may exchange them.
        quarter_turns: Probability of 0, 90, 180 or 270 degrees in the last two axes, where the
            patch is as long as wide.
        elastic: Probability of U-Net's elastic deformation.
        elastic_voxels: See :class:`RandWarpd`.
        brightness: Probability of a multiplication, drawn for each channel.
        brightness_change: By 1 - this to 1 + this.
        shift: Probability of an addition.
        shift_by: Between minus this and this, on normalised intensities.
        noise: Probability of Gaussian noise.
        noise_sigma: Its standard deviation is drawn between 0 and this.
        mirror: As in :func:`recipe`.
    """
    patch = _checked_patch(spatial_dims, patch_voxels)
    sides = Sides(tuple((int(a), int(b)) for a, b in sided), sagittal_axis)
    plane = (spatial_dims - 2, spatial_dims - 1)
    turns = patch[-1] == patch[-2] and not sides.keep_rotation_small(plane)
    return Augmentation(
        [
            RandWarpd(
                patch,
                degrees=(0.0,) * (1 if spatial_dims == 2 else 3),
                elastic=elastic,
                elastic_voxels=elastic_voxels,
                flat_axis=_flat_axis(patch),
            ),
            RandScaleIntensityd(
                _IMAGE, prob=brightness, factors=brightness_change, channel_wise=True
            ),
            RandShiftIntensityd(_IMAGE, prob=shift, offsets=shift_by),
            RandGaussianNoised(_IMAGE, prob=noise, std=noise_sigma),
            RandMirrord(sides.mirror_axes(mirror, spatial_dims), sides),
            RandQuarterTurnd(plane, prob=quarter_turns if turns else 0.0),
        ]
    )


@AUGMENTATIONS.register("none")
def none(
    spatial_dims: int,
    patch_voxels: Sequence[int],
    sagittal_axis: int | None = None,
    sided: Sequence[tuple[int, int]] = (),
) -> Augmentation:
    """Patches as they are."""
    patch = _checked_patch(spatial_dims, patch_voxels)
    return Augmentation([RandWarpd(patch, degrees=(0.0,) * (1 if spatial_dims == 2 else 3))])


Transform = Callable[[dict[Hashable, Any]], Any]


class PerSlice(MapTransform, Randomizable):
    """Applies a 2D transform of ``image`` to all slices of a volume alike.

    Args:
        transform: A random dictionary transform of ``image``.
        axis: The spatial axis along which the slices lie.
    """

    def __init__(self, transform: Any, axis: int) -> None:
        MapTransform.__init__(self, _IMAGE)
        self.transform, self.axis = transform, axis

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "PerSlice":
        """Seed the transform."""
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the volume, its slices transformed."""
        result = dict(data)
        stack = plain(result["image"]).movedim(1 + self.axis, 1)
        flat = plain(self.transform({"image": stack.flatten(0, 1)})["image"])
        result["image"] = flat.view(stack.shape).movedim(1, 1 + self.axis)
        return result


def _checked_patch(spatial_dims: int, patch_voxels: Sequence[int]) -> tuple[int, ...]:
    patch = tuple(int(n) for n in patch_voxels)
    if len(patch) != spatial_dims or min(patch) < 1:
        raise ValueError(f"patch_voxels needs {spatial_dims} positive sizes, got {patch}")
    return patch


def _flat_axis(patch: tuple[int, ...]) -> int | None:
    """Return the axis of a volume's patch that is less than a third of the longest, if any."""
    shortest = patch.index(min(patch))
    return shortest if len(patch) == 3 and max(patch) > 3 * min(patch) else None


def _degrees(
    patch: tuple[int, ...], flat: int | None, sides: Sides, wanted: float | None
) -> tuple[float, ...]:
    """Return the largest rotation about each axis (2D: the one rotation)."""
    long = len(patch) == 2 and max(patch) > 1.5 * min(patch)
    default = 30.0 if len(patch) == 3 and flat is None else 15.0 if long else 180.0
    largest = default if wanted is None else wanted
    axes = range(len(patch))
    planes = [(0, 1)] if len(patch) == 2 else [tuple(b for b in axes if b != a) for a in axes]
    small = math.nextafter(_SMALL_ROTATION, 0)
    return tuple(
        min(largest, small) if sides.keep_rotation_small(plane) else largest for plane in planes
    )
