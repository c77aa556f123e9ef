"""Which suffix is read and written by which function.

To add a format: one file with a function under ``@reader(".suffix")`` (and one under ``@writer``),
and its import in ``medseg/images/__init__.py``. Libraries are imported inside the functions, so
that naming a suffix costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medseg.errors import MedsegError
from medseg.images.image import Image


@dataclass(frozen=True)
class Stated:
    """What the caller says about a file beyond what stands in it.

    Args:
        axes: Meaning of the file's axes, e.g. ``ZYX``, where the file leaves it open.
        labels: The file is a label image: palette indices are ids, not colours.
    """

    axes: str | None = None
    labels: bool = False


Reader = Callable[[Path, Stated], Image]
Writer = Callable[[Path, Image], None]

Part = TypeVar("Part")

READERS: dict[str, Reader] = {}
WRITERS: dict[str, Writer] = {}


def reader(*suffixes: str) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a function the reader of these suffixes."""

    def add(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(suffixes, function))
        return function

    return add


def writer(*suffixes: str) -> Callable[[Writer], Writer]:
    """Return a decorator that makes a function the writer of these suffixes."""

    def add(function: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(suffixes, function))
        return function

    return add


def image_suffix(path: str | Path) -> str:
    """Return the image suffix of a name as written, ``.nii.gz`` of ``a.nii.gz``; "" if none.

    The longest suffix counts, so that ``cell.ome.tif`` and ``cell.tif`` are both named ``cell``.
    What lies in an OME-Zarr has the suffix of that.
    """
    name = (zarr_root(path) or Path(path)).name
    for suffix in sorted(READERS, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[-len(suffix) :]
    return ""


def zarr_root(path: str | Path) -> Path | None:
    """Return the ``.zarr`` folder that a path is or lies in; None for any other path."""
    path = Path(path)
    inside = (one for one in (path, *path.parents) if one.name.lower().endswith(".zarr"))
    return next(inside, None)


def image_name(path: str | Path) -> str:
    """Return the name of an image's case: ``a`` of ``a.nii.gz``, ``a_1`` of ``a.zarr/1``."""
    path = Path(path)
    root = zarr_root(path) or path
    return "_".join((root.name.removesuffix(image_suffix(root)), *path.relative_to(root).parts))


def is_image_file(path: str | Path) -> bool:
    """Tell by the name whether this is an image; hidden files (``._a.nii.gz``) are none.

    A folder is an image if it directly holds a ``.dcm`` file: then it is a DICOM series. An
    OME-Zarr is one, and so is each of its levels and labels.
    """
    path = Path(path)
    if path.name.startswith("."):
        return False
    if path.is_dir() and zarr_root(path) is None:
        return any(inner.suffix.lower() == ".dcm" for inner in path.iterdir())
    return bool(image_suffix(path))


def reader_of(path: Path) -> Reader:
    """Return the reader of a file by its suffix.

    Raises:
        MedsegError: No reader knows the suffix.
    """
    return _of(path, READERS, "read")


def writer_of(path: Path) -> Writer:
    """Return the writer of a file by its suffix.

    Raises:
        MedsegError: No writer knows the suffix.
    """
    return _of(path, WRITERS, "written")


def _of(path: Path, table: dict[str, Part], done: str) -> Part:
    suffix = image_suffix(path).lower()
    if suffix not in table:
        known = ", ".join(sorted(table))
        raise MedsegError(
            f"{path}: images of this kind are not {done} here\n"
            f"  known are {known}\n"
            f"  convert it to one of these (a DICOM image is read by naming its folder)"
        )
    return table[suffix]
