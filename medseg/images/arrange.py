"""From the axes of a file to one of YX, ZYX, CYX, CZYX.

Nothing is guessed: an axis whose meaning the file leaves open is refused until it is stated.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError

ORDER = "CZYX"


class AxesError(MedsegError):
    """A file leaves the meaning of its axes open: somebody has to state them."""


_NAMES = {"T": "time points", "C": "channels", "Z": "slices"}


def arrange(
    path: Path, array: NDArray[Any], axes: str, stated: str | None = None
) -> tuple[NDArray[Any], str]:
    """Return the array in the order channels, z, y, x, and the axes that it has.

    Args:
        path: The file, for messages.
        array: As in the file.
        axes: One letter an axis; other letters than C, Z, Y, X are axes left open, T is time.
        stated: What the caller says that the axes are, in the file's order or in ours.

    Returns:
        The array and its axes. Axes of length 1 are dropped, except Z, if nobody states them.

    Raises:
        MedsegError: An axis has no meaning, or another than stated, or is time.
    """
    if stated is not None and (set(stated) - set(ORDER) or len(set(stated)) != len(stated)):
        raise MedsegError(f"axes: {stated!r} is not made of the letters C, Z, Y, X, each once")
    array, axes = _drop_single(array, axes, stated)
    if stated is not None:
        axes = _as_stated(path, array, axes, stated)
    _check_known(path, array, axes)
    order = [axes.index(letter) for letter in ORDER if letter in axes]
    return np.ascontiguousarray(array.transpose(order)), "".join(axes[i] for i in order)


def _drop_single(array: NDArray[Any], axes: str, stated: str | None) -> tuple[NDArray[Any], str]:
    """Drop axes that hold nothing: of length 1, or channels that all repeat the first."""
    if stated is not None and len(stated) == len(axes):
        return array, axes
    kept = stated or "ZYX"
    for i in reversed(range(len(axes))):
        if axes[i] in kept:
            continue
        repeats = stated is not None and axes[i] == "C"
        if array.shape[i] == 1 or (repeats and (array == array.take([0], axis=i)).all()):
            array, axes = array.take(0, axis=i), axes[:i] + axes[i + 1 :]
    return array, axes


def _as_stated(path: Path, array: NDArray[Any], axes: str, stated: str) -> str:
    if set(axes) == set(stated):
        return axes
    known = set(axes) <= {*ORDER, "T"}  # else the order of the others is the reader's guess too
    conflicts = [a for a, b in zip(axes, stated, strict=False) if known and a != b and a != "T"]
    if len(axes) != len(stated) or conflicts:
        raise MedsegError(
            f"{path}: the file has the axes {_describe(array, axes)}, not {stated}\n"
            f"  correct what is stated under 'axes', or save the file with the axes that it means"
        )
    return stated


def _check_known(path: Path, array: NDArray[Any], axes: str) -> None:
    found = _describe(array, axes)
    if "T" in axes:
        count = array.shape[axes.index("T")]
        raise AxesError(
            f"{path}: the file holds {count} time points ({found}); one image is expected\n"
            f"  save each as its own file, or, if they are slices or channels, state axes: "
            f"{axes.replace('T', 'Z' if 'Z' not in axes else 'C')}"
        )
    if set(axes) - set(ORDER) or not {"Y", "X"} <= set(axes):
        raise AxesError(
            f"{path}: the file does not say what its axes mean ({found})\n"
            f"  state it: axes: ZYX if the first axis is slices, axes: CYX if it is channels"
        )


def _describe(array: NDArray[Any], axes: str) -> str:
    """Return e.g. ``31 slices x 61 Y x 57 X`` in the file's order."""
    return " x ".join(
        f"{n} {_NAMES.get(a, a if a in 'YX' else 'of unknown meaning')}"
        for n, a in zip(array.shape, axes, strict=True)
    )
