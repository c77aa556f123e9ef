"""What one reading of a data set leaves: numbers small enough to keep for thousands of cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medseg.data import LabelMap, Split
from medseg.doctor.findings import Finding
from medseg.geometry import Grid


@dataclass(frozen=True)
class ChannelFacts:
    """The intensities of one channel; of its finite voxels, if some are not.

    Args:
        name: Of the channel.
        lowest: Smallest value.
        highest: Largest value.
        percentiles: The 1st, 50th and 99th.
        at_top: Share of the voxels that have the largest value.
        nan: Voxels that are no number.
        infinite: Voxels that are infinite.
        copy_of: An earlier channel with the same voxels; empty if there is none.
    """

    name: str
    lowest: float
    highest: float
    percentiles: tuple[float, float, float]
    at_top: float
    nan: int = 0
    infinite: int = 0
    copy_of: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """An image.

    Args:
        grid: Where its voxels lie.
        dtype: Type of its voxels.
        channels: In the card's order.
        digest: Of the decoded voxels, whatever the file format and type; equal for equal images.
    """

    grid: Grid
    dtype: str
    channels: tuple[ChannelFacts, ...]
    digest: str


@dataclass(frozen=True)
class StructureFacts:
    """One structure in one label image; with a number for each object, all objects together.

    Args:
        voxels: How many.
        pieces: Sizes of its largest connected pieces, the largest first.
        number_of_pieces: How many there are.
        specks: Pieces of at most ``SPECK`` voxels beside a larger one.
        pinholes: Holes of at most ``SPECK`` voxels in it.
        holes: Larger ones.
        centre: World position (x, y[, z]) of its middle, in the grid's unit.
        contrasts: For each channel the chance that a voxel of it is brighter than one just beside
            it; 0.5 is no contrast, NaN if there is nothing to compare. Empty where the image lies
            on other voxels.
    """

    voxels: int
    pieces: tuple[int, ...]
    number_of_pieces: int
    specks: int
    pinholes: int
    holes: int
    centre: tuple[float, ...]
    contrasts: tuple[float, ...]


@dataclass(frozen=True)
class ObjectFacts:
    """The objects of a label image in which each has a number.

    Args:
        count: How many numbers.
        highest: The largest.
        scattered: Numbers that stand for several objects: in large pieces apart.
        frayed: Numbers with small pieces beside a large one.
        thin: Numbers without inner voxels: none has only its own number around it.
        holed: Numbers with a hole.
        specks: Numbers of at most ``SPECK`` voxels in all.
    """

    count: int
    highest: int
    scattered: tuple[int, ...]
    frayed: tuple[int, ...]
    thin: tuple[int, ...]
    holed: tuple[int, ...]
    specks: tuple[int, ...]


@dataclass(frozen=True)
class LabelFacts:
    """A label image.

    Args:
        grid: Where its voxels lie.
        values: Voxels of each value in the file; of the commonest if there are very many.
        edge_share: Share of the voxels with undeclared values that lie in thin seams; of several
            such values, one that most of these voxels have is left out. NaN without such voxels.
        structures: By name; those that are not there have no voxels.
        objects: Where each object has a number; None for classes.
        digest: Of the values.
    """

    grid: Grid
    values: Mapping[int, int]
    edge_share: float
    structures: Mapping[str, StructureFacts]
    objects: ObjectFacts | None
    digest: str


@dataclass(frozen=True)
class CaseFacts:
    """One case as it was read.

    Args:
        name: Of the case.
        group: What must not be split.
        image: None if it cannot be read.
        labels: None if there are none, or they cannot be read.
        labelled: Whether the case has a label file.
        findings: What reading itself found.
        thumbnail: A small JPEG with the borders drawn in; empty if there is no image.
    """

    name: str
    group: str
    image: ImageFacts | None = None
    labels: LabelFacts | None = None
    labelled: bool = True
    findings: tuple[Finding, ...] = ()
    thumbnail: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class DataFacts:
    """A whole data set as it was read: what every check is given.

    Args:
        cases: Its cases.
        labels: Names and file values of its structures.
        kind: Whether labels are classes or numbers of objects.
        spatial_dims: 2 or 3.
        grouped: Whether the card says how names tell groups.
        split: The parts; None if they cannot be made.
    """

    cases: tuple[CaseFacts, ...]
    labels: LabelMap
    kind: Literal["semantic", "instance"]
    spatial_dims: int
    grouped: bool
    split: Split | None

    @property
    def part_of(self) -> dict[str, str]:
        """Part of the split of each case that is in one."""
        if self.split is None:
            return {}
        return {name: part for part, names in self.split.names.items() for name in names}
