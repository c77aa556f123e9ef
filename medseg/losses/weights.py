"""Weights of classes: SegNet's median frequency.

Source: Badrinarayanan, Kendall & Cipolla, IEEE TPAMI 39 (2017) 2481-2495, arXiv:1511.00561.
"""

from collections.abc import Sequence
from statistics import median


def median_frequency_weights(voxels: Sequence[int], in_images: Sequence[int]) -> tuple[float, ...]:
    """Return median(f) / f for every class: rare classes weigh more, the median one weighs 1.

    The frequency f of a class is its share of the voxels of those images in which it occurs. The
    median is over the classes that occur; of an even number it is the mean of the middle two.

    Args:
        voxels: Voxels of each class in all training images.
        in_images: For each class, all voxels of the training images in which it occurs.

    Returns:
        A weight per class, unitless. 1 for a class that never occurs: nothing is known of it.

    Raises:
        ValueError: The two differ in length, no class occurs, or a class has more voxels than its
            images.
    """
    if len(voxels) != len(in_images):
        raise ValueError(
            f"voxels and in_images are one number per class each, got {len(voxels)} and "
            f"{len(in_images)}"
        )
    for number, (own, total) in enumerate(zip(voxels, in_images, strict=True)):
        if not 0 <= own <= total:
            raise ValueError(
                f"class {number} has {own} voxels in images of {total}; expected 0 to {total}"
            )
    frequencies = [
        own / total if own else 0.0 for own, total in zip(voxels, in_images, strict=True)
    ]
    if not any(frequencies):
        raise ValueError("no class has a voxel: there is no frequency to balance")
    middle = median(f for f in frequencies if f)
    return tuple(middle / f if f else 1.0 for f in frequencies)
