"""Which channels of a file are meant: by their names where the file states them, else by order."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, nearest
from medseg.images import Image

_RGB = {"red", "green", "blue"}  # what the readers call the colours of a picture
_NUMBERED = re.compile(r"(c|ch|channel)?[\s:_#-]*[\d:\s]+", re.IGNORECASE)


def pick_channels(case: str, image: Image, wanted: Sequence[str]) -> NDArray[np.generic]:
    """Return the channels that a card names, in its order.

    A file that names its channels gives those of these names, upper or lower case alike, and may
    hold others beside them. A file without names, with mere numbers (``Channel:0:1``), with the
    colours of a picture or with a single channel is taken in its own order.

    Args:
        case: Whose image, for messages.
        image: The image of one file.
        wanted: The channels that the card names.

    Returns:
        (channels, *spatial).

    Raises:
        MedsegError: The file has no channel of a name, or two, or another number of channels
            without names; those found are listed.
    """
    array = image.channels_first
    found = [name.casefold() for name in image.channels]
    sought = [name.casefold() for name in wanted]
    if len(array) == len(wanted) and (
        len(array) == 1 or not _names_say_something(found) or found == sought
    ):
        return array
    if not found:
        raise MedsegError(
            f"{case}: the image has {len(array)} channel(s), the card names {len(wanted)} "
            f"({', '.join(wanted)}); correct 'channels' in the card"
        )
    listed = f"the file has {len(array)} channel(s): {', '.join(image.channels)}"
    for name in wanted:
        times = found.count(name.casefold())
        if times != 1:
            what = "no channel" if not times else f"{times} channels"
            hint = nearest(name, image.channels) if not times else ""
            near = hint if hint.startswith("; did") else ""
            raise MedsegError(
                f'{case}: {what} of the name "{name}"{near}\n  {listed}\n'
                f"  the card names {', '.join(wanted)}; correct 'channels' in the card"
            )
    return array[[found.index(name) for name in sought]]


def _names_say_something(names: Sequence[str]) -> bool:
    return bool(names) and set(names) != _RGB and not all(map(_NUMBERED.fullmatch, names))
