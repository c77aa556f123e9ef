"""What some files of a data set say of themselves: axes, channels, pixel size, label values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.data.cases import Case, check_one_grid
from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import read_image, read_labels

MOST_READ = 12
_MANY_OBJECTS = 8


@dataclass(frozen=True)
class Surveyed:
    """What the files say.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        grids: Of the cases that were read.
        channels: Number of channels of each image.
        named: Their names, where all files state the same.
        values: Voxels of each label value, over all cases read.
        distinct: Of each case, how many label values beside 0 it has.
    """

    spatial_dims: int
    grids: tuple[Grid, ...]
    channels: int
    named: tuple[str, ...]
    values: dict[int, int]
    distinct: tuple[int, ...]

    @property
    def calibrated(self) -> bool:
        """Whether every file states a pixel size."""
        return all(grid.unit is not Unit.PX for grid in self.grids)

    @property
    def numbered(self) -> bool | None:
        """Whether the labels number objects: clearly so, clearly not, or open (None).

        Many values, and other ones from case to case, number objects; a single value beside 0
        does not.
        """
        above = sum(value > 0 for value in self.values)
        if above <= 1:
            return False
        most, least = max(self.distinct), min(self.distinct)
        if most >= _MANY_OBJECTS and (most > least or len(self.distinct) == 1):
            return True
        return None

    def describe_values(self) -> str:
        """Return the label values with their shares, the first eight."""
        total = sum(self.values.values())
        listed = [f"{v} ({n / total:.1%} of the voxels)" for v, n in sorted(self.values.items())]
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        return ", ".join(listed[:8]) + more


def survey(
    cases: Sequence[Case],
    *,
    axes: str | None = None,
    label_axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
    unit: Unit | None = None,
    numbers: Mapping[str, int] | None = None,
) -> Surveyed:
    """Read up to twelve cases, spread evenly over all.

    Args:
        cases: All cases.
        axes: Of the image files, where they leave it open.
        label_axes: Of the label files, likewise.
        spacing: Pixel size in array order, for files that carry none.
        unit: Of ``spacing``.
        numbers: Number of each structure, for label files that name them.

    Raises:
        MedsegError: No case has labels, a file cannot be read, or the cases differ in what they
            are: slices and volumes, or other numbers of channels.
        AxesError: A file leaves its axes open.
    """
    labelled = [case for case in cases if case.labels is not None]
    if not labelled:
        raise MedsegError(
            f"none of the {len(cases)} cases has labels, so there is nothing to learn"
        )
    chosen = np.unique(np.linspace(0, len(labelled) - 1, MOST_READ).round().astype(int))
    grids, counts, names, distinct = [], {}, set(), []
    values: Counter[int] = Counter()
    for case in (labelled[i] for i in chosen):
        images = [read_image(file, axes=axes, spacing=spacing, unit=unit) for file in case.images]
        grids.append(images[0].grid)
        counts[case.name] = sum(len(image.channels_first) for image in images)
        names.add(tuple(name for image in images for name in image.channels))
        labels = read_labels(
            case.labels or "",
            axes=label_axes,
            spacing=spacing,
            unit=unit,
            image=images[0],
            numbers=numbers,
        )
        check_one_grid(case.name, images[0], labels, what="the labels lie")
        found, sizes = np.unique(labels.array, return_counts=True)
        values.update(dict(zip(found.tolist(), sizes.tolist(), strict=True)))
        distinct.append(int(np.count_nonzero(found)))
    dims = {name: grid.spatial_dims for name, grid in zip(counts, grids, strict=True)}
    _check_alike("number of axes", dims)
    _check_alike("number of channels", counts)
    named = names.pop() if len(names) == 1 else ()
    named = named if len(set(named)) == len(named) else ()
    channels = next(iter(counts.values()))
    return Surveyed(
        spatial_dims=next(iter(dims.values())),
        grids=tuple(grids),
        channels=channels,
        named=named if len(named) == channels else (),
        values=dict(values),
        distinct=tuple(distinct),
    )


def _check_alike(what: str, numbers: dict[str, int]) -> None:
    by_number: dict[int, str] = {}
    for name, number in numbers.items():
        by_number.setdefault(number, name)
    if len(by_number) > 1:
        listed = ", ".join(f"{number} ({name})" for number, name in sorted(by_number.items()))
        raise MedsegError(
            f"the images differ in their {what}: {listed}\n"
            f"  one network takes one kind: put the others into a folder of their own"
        )
