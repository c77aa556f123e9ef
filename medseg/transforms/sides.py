"""Structures that come in a left and a right."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_LEFT = frozenset({"left", "l", "lt", "sinistra", "sinister"})
_RIGHT = frozenset({"right", "r", "rt", "dextra", "dexter"})

Mirror = Literal["all", "none"] | Sequence[int | Literal["x", "y", "z"]]


def find_sided_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the classes that are the left and the right of one structure, by their names.

    Names that differ only in a word for the side form a pair: ``left lung`` and ``right lung``,
    ``kidney_l`` and ``kidney_r``, ``L. femur`` and ``R. femur``, ``LeftAtrium`` and
    ``RightAtrium``. A name without its counterpart forms none.

    Args:
        names: Name of each class; the position is the class.

    Returns:
        (left, right) class indices, in the order of the left ones.
    """
    left: dict[tuple[str, ...], int] = {}
    right: dict[tuple[str, ...], int] = {}
    for index, (side, rest) in sided_names(names).items():
        (left if side == "left" else right)[rest] = index
    return [(index, right[rest]) for rest, index in left.items() if rest in right]


def sided_names(
    names: Sequence[str],
) -> dict[int, tuple[Literal["left", "right"], tuple[str, ...]]]:
    """Return the classes whose names have a side: which, and the other words of the name.

    Args:
        names: Name of each class; the position is the class.
    """
    sided: dict[int, tuple[Literal["left", "right"], tuple[str, ...]]] = {}
    for index, name in enumerate(names):
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
        lower = [word.lower() for word in words]
        sides: tuple[tuple[Literal["left", "right"], frozenset[str]], ...] = (
            ("left", _LEFT),
            ("right", _RIGHT),
        )
        for side, known in sides:
            found = [i for i, word in enumerate(lower) if word in known]
            if len(found) == 1:
                sided[index] = side, tuple(lower[: found[0]] + lower[found[0] + 1 :])
    return sided


def named_axes(names: Iterable[int | str], spatial_dims: int) -> tuple[int, ...]:
    """Return array axes of x, y and z; numbers are array axes already."""
    return tuple(
        name if isinstance(name, int) else spatial_dims - 1 - "xyz".index(name) for name in names
    )


@dataclass(frozen=True)
class Sides:
    """Which classes trade places in a mirror, and which axis crosses the sides.

    Args:
        pairs: (left, right) class indices.
        axis: Array axis between left and right; None if it isn't known.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    axis: int | None = None

    def mirror_axes(self, mirror: Mirror, spatial_dims: int) -> tuple[int, ...]:
        """Return the axes that may be flipped.

        ``all`` means every axis that is safe: none if there are sided classes and nobody knows
        which axis crosses the sides.

        Raises:
            ValueError: Axes are named that don't exist or, as above, that aren't safe.
        """
        unsafe = bool(self.pairs) and self.axis is None
        if mirror == "none" or (mirror == "all" and unsafe):
            return ()
        if mirror == "all":
            return tuple(range(spatial_dims))
        axes = named_axes(mirror, spatial_dims)
        if not set(axes) <= set(range(spatial_dims)):
            raise ValueError(f"mirror: axes are 0 to {spatial_dims - 1}, got {axes}")
        if axes and unsafe:
            raise ValueError(
                "mirror: the labels have left and right, and the images do not say which axis "
                'crosses the sides; use mirror "none", or images that state their orientation'
            )
        return axes

    def keep_rotation_small(self, plane: Iterable[int]) -> bool:
        """Tell whether turning far in this plane could exchange left and right."""
        return bool(self.pairs) and (self.axis is None or self.axis in plane)

    def swapped(self, label: Tensor) -> Tensor:
        """Return labels with left and right exchanged; values below 0 stay."""
        highest = max(int(label.max()), *(max(pair) for pair in self.pairs))
        lowest = min(int(label.min()), 0)
        table = torch.arange(lowest, highest + 1, dtype=label.dtype)
        for left, right in self.pairs:
            table[left - lowest], table[right - lowest] = right, left
        return table[label.long() - lowest]
