"""Dataset cards: where the files are, what labels mean, how large a pixel is, who owns them."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medseg.config.reading import Section, checked, read_yaml
from medseg.config.values import PartSettings, SizeText, array_order, known_to
from medseg.data.cases import Case, LabelMap, ObjectMap, Reading, group_of
from medseg.data.layouts import LAYOUTS, UnpairedError, find_cases
from medseg.data.split import SPLITS
from medseg.errors import MedsegError
from medseg.geometry import Unit

LayoutPart = Annotated[PartSettings, known_to(lambda: LAYOUTS)]
SplitPart = Annotated[PartSettings, known_to(lambda: SPLITS)]
_LABEL_MAPS: dict[str, type[LabelMap]] = {"semantic": LabelMap, "instance": ObjectMap}


class Groups(Section):
    """How a case's name tells its group."""

    pattern: str
    consecutive: int = Field(default=1, ge=1)

    @field_validator("pattern")
    @classmethod
    def _one_bracket(cls, pattern: str) -> str:
        try:
            brackets = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f'"{pattern}" is no regular expression ({error})') from None
        if not brackets:
            raise ValueError(f'"{pattern}" has no bracket around what tells the group')
        return pattern


class Card(Section):
    """What ``configs/data/*.yaml`` says about a data set.

    Sizes are written in the order x, y, z.
    """

    name: str = Field(pattern=r"^[^/:\s][^/:]*$")  # as MLflow takes names of models
    description: str = ""
    licence: str = ""
    citation: str = ""
    root: str = "."
    layout: LayoutPart
    spatial_dims: Literal[2, 3]
    kind: Literal["semantic", "instance"] = "semantic"
    channels: tuple[str, ...] = ("image",)
    axes: str | None = None
    label_axes: str | None = None
    pixel_size: tuple[SizeText, ...] | None = None
    labels: dict[str, int | tuple[int, ...]]
    ignore: int | None = None
    groups: Groups | None = None
    split: SplitPart | None = None

    @field_validator("channels")
    @classmethod
    def _some_channel(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        if not channels or len(set(channels)) < len(channels):
            raise ValueError("channels: names each channel once, and at least one")
        return channels

    @model_validator(mode="after")
    def _sound(self) -> "Card":
        if self.pixel_size is not None:
            if len(self.pixel_size) != self.spatial_dims:
                raise ValueError(
                    f"pixel_size: {len(self.pixel_size)} lengths for {self.spatial_dims}D data"
                )
            if len({length.unit for length in self.pixel_size}) > 1:
                raise ValueError("pixel_size: all lengths in one unit, please")
        try:
            self.label_map()
        except ValueError as error:
            raise ValueError(f"labels: {error}") from None
        return self

    def label_map(self) -> LabelMap:
        """Return the classes and their file values."""
        return _LABEL_MAPS[self.kind](self.labels, ignore=self.ignore)

    def reading(self) -> Reading:
        """Return how the files are to be understood."""
        size = self.pixel_size
        written = self.label_map().written
        written.pop("background")
        return Reading(
            channels=self.channels,
            axes=self.axes,
            label_axes=self.label_axes,
            spacing=array_order([length.value for length in size]) if size else None,
            unit=Unit(size[0].unit) if size else None,
            numbers=written if self.kind == "semantic" else None,
        )


def read_card(path: Path) -> Card:
    """Read a dataset card.

    Raises:
        MedsegError: The file is missing, or a setting is wrong; names its path.
    """
    return checked(Card, read_yaml(path), path)


def card_root(card: Card, card_file: Path, data_root: Path | None) -> Path:
    """Return the folder of the files that a card describes.

    A relative ``root`` is looked for in ``data_root`` if one is given; else beside the card, and
    then in the folder that the environment variable ``MEDSEG_DATA`` names.

    Raises:
        MedsegError: It is in none of these; lists where it was looked for.
    """
    if data_root is not None:
        places = [data_root]
    else:
        places = [card_file.parent]
        if os.environ.get("MEDSEG_DATA"):
            places.append(Path(os.environ["MEDSEG_DATA"]))
    tried = [place / card.root for place in places]
    for folder in tried:
        if folder.is_dir():
            return folder
    listed = "\n".join(f"  looked for {folder}" for folder in tried)
    raise MedsegError(
        f"{card_file}: the folder '{card.root}' of the data set is not there\n{listed}\n"
        f"  give --data-root FOLDER, or set MEDSEG_DATA to the folder that holds it"
    )


def cases_of(card: Card, card_file: Path, data_root: Path | None) -> list[Case]:
    """Return the cases of a data set with their groups.

    Raises:
        MedsegError: Files are missing, or a name does not tell its group.
        UnpairedError: Files have no partner; holds the cases that are whole.
    """
    root = card_root(card, card_file, data_root)
    settings: dict[str, Any] = card.layout.settings
    try:
        return _grouped(card, find_cases(root, card.layout.name, settings))
    except UnpairedError as error:
        raise UnpairedError(str(error), _grouped(card, error.paired)) from None
    except ValueError as error:
        raise MedsegError(f"{card_file}: {error}") from None


def _grouped(card: Card, cases: Sequence[Case]) -> list[Case]:
    """Return the cases with the groups that the card's rule finds in their names."""
    if card.groups is None:
        return list(cases)
    rule = card.groups
    return [
        replace(case, group=group_of(case.name, pattern=rule.pattern, consecutive=rule.consecutive))
        for case in cases
    ]
