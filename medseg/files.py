"""Files and folders that appear whole or not at all, and outlast a loss of power."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import MedsegError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a file to write to, which takes the place of ``path`` once it is complete.

    Whoever reads meanwhile sees the old file or the new one, never half of it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        flush(aside)
        aside.replace(path)
        flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of ``path`` once it is complete.

    What an interrupted attempt left beside it is removed first.
    """
    aside = path.with_name(f"{path.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    yield aside
    for file in aside.rglob("*"):
        flush(file)
    flush(aside)
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second process works in it at the same time.

    The system lets go of it when this process ends, however it ends; its children do not hold it.

    Raises:
        MedsegError: Another process holds it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MedsegError(
                f"{folder}: another process is at work on this run; wait for it, or stop it"
            ) from None
        yield
