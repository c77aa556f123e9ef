"""A case: the image files of one specimen, its label file, and the group that it belongs to."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.data.channels import pick_channels
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images import Image, kind_of_labels, read_image, read_labels


@dataclass(frozen=True)
class Case:
    """Where the files of one case lie.

    Args:
        name: Unique within the data set.
        images: One file with all channels, or one file a channel, in the card's order.
        labels: The reference; None if the case has none.
        group: What must not be split between training and test (patient, embryo, slide).
    """

    name: str
    images: tuple[Path, ...]
    labels: Path | None
    group: str


@dataclass(frozen=True)
class Reading:
    """How the files are to be understood where they do not say it themselves.

    Args:
        channels: Names of the channels: those that a file names itself, else in the file's order.
        axes: Axes of the image files, e.g. ``CZYX``; None where the files say it.
        label_axes: Axes of the label files, likewise.
        spacing: Pixel size in array order, for files that carry none.
        unit: Unit of ``spacing``.
        nonfinite: What to do with NaN and infinite voxels of images.
        numbers: File value of each structure, where files have names instead (RTSTRUCT, DICOM
            SEG); None where each object has a number of its own.
    """

    channels: tuple[str, ...]
    axes: str | None = None
    label_axes: str | None = None
    spacing: tuple[float, ...] | None = None
    unit: Unit | None = None
    nonfinite: Literal["refuse", "keep"] = "refuse"
    numbers: Mapping[str, int] | None = None

    def image(self, case: Case) -> Image:
        """Read a case's image with all its channels.

        Raises:
            MedsegError: A file is unreadable, channels lie on different grids, or are not those
                that the card names.
        """
        parts = [
            read_image(
                file,
                axes=self.axes,
                spacing=self.spacing,
                unit=self.unit,
                nonfinite=self.nonfinite,
            )
            for file in case.images
        ]
        for file, part in zip(case.images[1:], parts[1:], strict=True):
            if not part.grid.matches(parts[0].grid):
                raise MedsegError(
                    f"{case.name}: its channels lie on different grids\n"
                    f"  {case.images[0].name}   {parts[0].grid.describe()}\n"
                    f"  {file.name}   {part.grid.describe()}"
                )
        if len(parts) == 1:
            array = pick_channels(case.name, parts[0], self.channels)
        else:
            array = np.concatenate([part.channels_first for part in parts])
        if array.shape[0] != len(self.channels):
            raise MedsegError(
                f"{case.name}: its files have {array.shape[0]} channel(s), the card names "
                f"{len(self.channels)} ({', '.join(self.channels)}); correct 'channels' in the card"
            )
        axes = "C" + parts[0].axes.removeprefix("C")
        return replace(parts[0], array=array, axes=axes, channels=self.channels)

    def labels(self, case: Case) -> Image:
        """Read a case's reference.

        Raises:
            MedsegError: There is none, or it is unreadable or not a label image.
        """
        of_dicom = case.labels is not None and kind_of_labels(case.labels) is not None
        return self._labels(case, self.image(case) if of_dicom else None)

    def _labels(self, case: Case, image: Image | None) -> Image:
        if case.labels is None:
            raise MedsegError(f"{case.name}: there is no label file for it")
        return read_labels(
            case.labels,
            axes=self.label_axes,
            spacing=self.spacing,
            unit=self.unit,
            image=image,
            numbers=self.numbers,
        )

    def pair(self, case: Case) -> tuple[Image, Image]:
        """Read image and reference, and check that they lie on one grid."""
        image = self.image(case)
        labels = self._labels(case, image)
        check_one_grid(case.name, image, labels, what="the labels lie")
        return image, labels


def check_one_grid(case: str, image: Image, other: Image, *, what: str) -> None:
    """Refuse a label image that does not lie on its image's grid.

    Raises:
        MedsegError: Shapes, spacing, orientation or origin differ.
    """
    if image.grid.matches(other.grid):
        return
    lines = [
        f"{case}: {what} on another grid than the image",
        f"  image    {image.grid.describe()}",
        f"  labels   {other.grid.describe()}",
    ]
    if image.grid.describe() == other.grid.describe():
        lines.append("  the origin or the orientation differs, so the same voxel is another place")
    calibrated = [grid.unit is not Unit.PX for grid in (image.grid, other.grid)]
    if image.grid.shape == other.grid.shape and calibrated[0] != calibrated[1]:
        lines.append("  only one of the files states a pixel size: state it in the dataset card")
    else:
        lines.append("  draw or export the labels again on the image's own grid")
    raise MedsegError("\n".join(lines))


class LabelMap:
    """The classes of a data set and the values that stand for them in its files.

    Args:
        structures: File values by name; ``background`` is class 0, the others are 1, 2, ... in the
            order in which they stand.
        ignore: File value of voxels that nobody has judged; class ``IGNORED``.

    Raises:
        ValueError: There is no background, no structure beside it, a structure without a value,
            a value that no file can hold, or one value has two names.
    """

    IGNORED = -1

    def __init__(
        self, structures: Mapping[str, int | Sequence[int]], *, ignore: int | None = None
    ) -> None:
        if "background" not in structures or len(structures) < 2:
            raise ValueError("labels name the background and at least one structure")
        ordered = ["background", *(name for name in structures if name != "background")]
        values = {
            name: (v,) if isinstance(v, int) else tuple(v)
            for name, v in ((n, structures[n]) for n in ordered)
        }
        named = Counter(value for group in values.values() for value in group)
        named.update([] if ignore is None else [ignore])
        for name, group in values.items():
            if not group:
                raise ValueError(f'"{name}" has no file value')
        for value in named:
            if not 0 <= value < 2**32:
                raise ValueError(f"file values are whole numbers from 0 to 4294967295, got {value}")
        twice = sorted(value for value, count in named.items() if count > 1)
        if twice:
            raise ValueError(f"file value {twice[0]} stands for two labels")
        self.names: tuple[str, ...] = tuple(values)
        self.ignore = ignore
        self._values = values

    @property
    def values(self) -> dict[str, tuple[int, ...]]:
        """File values of each class, background first."""
        return dict(self._values)

    @property
    def structures(self) -> dict[str, int]:
        """Class index of each structure, background left out."""
        return {name: i for i, name in enumerate(self.names) if i}

    @property
    def written(self) -> dict[str, int]:
        """File value that is written for each class, background first."""
        return {name: group[0] for name, group in self._values.items()}

    @property
    def ignored(self) -> int | None:
        """What :meth:`classes` puts where nobody has judged; None if the files have no such."""
        return None if self.ignore is None else self.IGNORED

    def voxels(self, labels: NDArray[np.integer[Any]], case: str) -> dict[str, int]:
        """Return the voxels of each class; those that nobody has judged are left out.

        Raises:
            MedsegError: As :meth:`classes`.
        """
        classes = self.classes(labels, case)
        counts = np.bincount(classes[classes >= 0].ravel(), minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def classes(self, labels: NDArray[np.integer[Any]], case: str) -> NDArray[np.integer[Any]]:
        """Turn file values into class indices.

        Args:
            labels: Values as read, (*spatial).
            case: Whose labels, for the message.

        Raises:
            MedsegError: A value that the card does not name; says how often, and what is named.
        """
        known = {v: i for i, group in enumerate(self._values.values()) for v in group}
        if self.ignore is not None:
            known[self.ignore] = self.IGNORED
        found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        strange = [(int(v), int(c)) for v, c in zip(found, counts, strict=True) if v not in known]
        if strange:
            listed = ", ".join(f"{v} ({c} voxels)" for v, c in strange[:8])
            more = f" and {len(strange) - 8} more values" if len(strange) > 8 else ""
            named = ", ".join(
                f"{n}: {g[0] if len(g) == 1 else list(g)}" for n, g in self._values.items()
            )
            raise MedsegError(
                f"{case}: the labels hold values that the card does not name: {listed}{more}\n"
                f"  the card names {named}\n"
                f"  correct the file, or name the value under 'labels' (or as 'ignore') in the card"
            )
        table = np.array([known[int(v)] for v in found], np.int16)
        classes: NDArray[np.int16] = table[inverse.reshape(labels.shape)]
        return classes

    def learnt(self, labels: NDArray[np.integer[Any]], case: str) -> NDArray[np.integer[Any]]:
        """Return what a network learns from: ``IGNORED`` where nobody has judged.

        Raises:
            MedsegError: As :meth:`classes`.
        """
        return self.classes(labels, case)


class ObjectMap(LabelMap):
    """Labels of which every number but 0 is one object of the only structure.

    Args:
        structures: ``{"background": 0, NAME: 1}``: 1 stands for every number but 0.
        ignore: File value of voxels that nobody has judged.

    Raises:
        ValueError: The background is not 0, or there is not exactly one structure, written as 1.
    """

    def __init__(
        self, structures: Mapping[str, int | Sequence[int]], *, ignore: int | None = None
    ) -> None:
        super().__init__(structures, ignore=ignore)
        if list(self._values.values()) != [(0,), (1,)]:
            raise ValueError(
                "where every number is an object (kind: instance), labels name the background 0 "
                "and what the objects are, e.g. {background: 0, nucleus: 1}; 1 stands for every "
                "number but 0"
            )

    @property
    def ignored(self) -> int | None:
        """The file value of voxels that nobody has judged; numbers stay as they are."""
        return self.ignore

    def voxels(self, labels: NDArray[np.integer[Any]], case: str) -> dict[str, int]:
        """Return the voxels of the background and of all objects together."""
        judged = labels.size if self.ignore is None else int(np.sum(labels != self.ignore))
        drawn = int(np.count_nonzero(labels)) - (labels.size - judged)
        return dict(zip(self.names, (judged - drawn, drawn), strict=True))

    def classes(self, labels: NDArray[np.integer[Any]], case: str) -> NDArray[np.integer[Any]]:
        """Return the numbers as they are: each is an object of its own."""
        return labels

    def learnt(self, labels: NDArray[np.integer[Any]], case: str) -> NDArray[np.integer[Any]]:
        """Return the objects as 1, 2, ..., and ``IGNORED`` where nobody has judged."""
        found, inverse = np.unique(labels, return_inverse=True)
        is_object = (found != 0) & (found != (0 if self.ignore is None else self.ignore))
        numbers = np.cumsum(is_object, dtype=np.int32) * is_object
        if self.ignore is not None:
            numbers[found == self.ignore] = self.IGNORED
        renumbered: NDArray[np.int32] = numbers.astype(np.int32)[inverse.reshape(labels.shape)]
        return renumbered


def group_of(name: str, *, pattern: str | None = None, consecutive: int = 1) -> str:
    """Return the group of a case from its name.

    Args:
        name: The case's name.
        pattern: Regular expression whose first bracket is the group; None makes every case its own.
        consecutive: With a number in the bracket: this many consecutive numbers, from 1, are one
            group. 2 makes 2k-1 and 2k one group.

    Raises:
        ValueError: The pattern does not fit the name, or the bracket is no number where one is
            needed.
    """
    if pattern is None:
        return name
    match = re.search(pattern, name)
    if not match or not match.groups() or match[1] is None:
        raise ValueError(f'groups.pattern "{pattern}" finds no group in the case name "{name}"')
    if consecutive == 1:
        return match[1]
    if not match[1].isdecimal():
        raise ValueError(f'groups.consecutive counts numbers, but "{name}" gives "{match[1]}"')
    return str((int(match[1]) - 1) // consecutive + 1)
