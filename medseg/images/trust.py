"""What is checked before pixels are trusted.

Readers of medical images fill what is missing with zeros, skip checksums, and allocate whatever
a header asks for. Here a file that is cut off, damaged or absurd is refused by name.
"""

import gzip
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from medseg.errors import MedsegError

LARGEST_BYTES = 64 * 2**30
_PIECE = 2**20
_DAMAGED = "  copy it again from its origin, or leave it out"


@contextmanager
def decoding(path: Path, kind: str, remedy: str = _DAMAGED) -> Iterator[None]:
    """Turn whatever a library raises on a broken file into a message that names the file.

    Raises:
        MedsegError: The library failed; its own words are part of the message.
    """
    try:
        yield
    except MedsegError:
        raise
    except Exception as error:  # a broken file makes a decoder raise anything, even KeyError
        words = " ".join(str(error).split())[-300:] or type(error).__name__
        raise MedsegError(f"{path}: cannot be read as {kind}: {words}\n{remedy}") from error


def check_present(path: Path) -> None:
    """Refuse a file that is missing or empty.

    Raises:
        MedsegError: There is no such file, or it has no bytes.
    """
    if not path.exists():
        raise MedsegError(f"{path}: there is no such file; check the name and the folder")
    if path.is_file() and path.stat().st_size == 0:
        raise MedsegError(f"{path}: the file is empty (0 bytes)\n{_DAMAGED}")


def first_bytes(path: Path) -> str:
    """Return the beginning of a file as Python would print it, for messages."""
    with path.open("rb") as file:
        return repr(file.read(16))[1:]


def check_size(path: Path, shape: tuple[int, ...], itemsize: int) -> int:
    """Return the bytes that an array needs, or refuse it before it is allocated.

    Raises:
        MedsegError: A side is not positive, or the array exceeds 64 GiB or the free memory.
    """
    sides = " x ".join(str(side) for side in reversed(shape))
    if not shape or min(shape) < 1:
        raise MedsegError(
            f"{path}: the header states {sides} voxels, so there is no image\n{_DAMAGED}"
        )
    needed = math.prod(int(side) for side in shape) * itemsize
    allowed = min(LARGEST_BYTES, free_memory())
    if needed > allowed:
        raise MedsegError(
            f"{path}: the header states {sides} voxels, {needed / 2**30:,.1f} GiB; "
            f"{allowed / 2**30:,.1f} GiB can be read here\n"
            f"  if that is its true size, crop it or cut it into pieces; else the header is damaged"
        )
    return needed


def free_memory() -> int:
    """Return the bytes that this computer, container or batch job can still give.

    As far as it tells; only Linux does.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, _left_by_group())
    return LARGEST_BYTES


def _left_by_group(
    mine: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the bytes that the control groups (v2) of this process leave it.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst: ``memory.max``, ``memory.current``, and
    of the latter the ``inactive_file`` that is given back on demand.
    """
    left = sys.maxsize
    try:
        _, _, path = mine.read_text().strip().rpartition("0::/")
        place = groups / path
        for group in (place, *place.parents[: len(Path(path).parts)]):
            limit = group / "memory.max"
            if limit.exists() and limit.read_text().strip() != "max":
                stat = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
                used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
                left = min(left, max(0, int(limit.read_text()) - used))
    except (OSError, ValueError, KeyError):
        pass  # no such groups here, or not to be read: they say nothing
    return left


def check_length(path: Path, found: int, expected: int) -> None:
    """Refuse a file whose length is not what its header accounts for.

    Raises:
        MedsegError: It is shorter or longer; both numbers are in the message.
    """
    if found < expected:
        share = math.floor(100 * found / expected)
        raise MedsegError(
            f"{path}: the file is cut off: {found:,} of {expected:,} bytes ({share} %)\n{_DAMAGED}"
        )
    if found > expected:
        raise MedsegError(
            f"{path}: {found - expected:,} bytes more than the {expected:,} that the header "
            f"accounts for\n  the header or the file is damaged: copy it again from its origin"
        )


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a plain or gzip-compressed file; reading to the end checks the gzip checksum.

    Raises:
        MedsegError: The name ends in .gz and the content is no gzip, or it is damaged or cut off.
    """
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    if path.name.lower().endswith(".gz") and not compressed:
        raise MedsegError(
            f"{path}: not a gzip file, although it is named .gz; it starts with "
            f"{first_bytes(path)}\n"
            f"  rename it to what it is, or copy the true file again from its origin"
        )
    with gzip.open(path) if compressed else path.open("rb") as file:
        try:
            yield file
        except EOFError as error:
            raise MedsegError(
                f"{path}: the compressed data are cut off before their end\n{_DAMAGED}"
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise MedsegError(
                f"{path}: the compressed data are damaged ({error})\n{_DAMAGED}"
            ) from error


def read_exactly(path: Path, file: BufferedIOBase, count: int) -> bytearray:
    """Read the last ``count`` bytes of a stream: no more, no fewer, to its checked end.

    Nothing beyond ``count`` is kept, so a small file that inflates without end stops there.

    Raises:
        MedsegError: The stream is shorter or longer.
    """
    if isinstance(file, gzip.GzipFile) and count > 1100 * path.stat().st_size + 2**16:
        raise MedsegError(
            f"{path}: the header states {count:,} bytes of voxels, which a compressed file of "
            f"{path.stat().st_size:,} bytes cannot hold\n{_DAMAGED}"
        )
    buffer = bytearray(count)
    view = memoryview(buffer)
    filled = 0
    while filled < count:
        piece = file.read(min(_PIECE, count - filled))
        if not piece:
            check_length(path, filled, count)
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    if file.read(1):
        raise MedsegError(
            f"{path}: holds more than the {count:,} bytes of voxels that its header accounts for; "
            f"stopped there\n  the header or the file is damaged: copy it again from its origin"
        )
    return buffer


def check_stream(path: Path, file: BufferedIOBase, count: int) -> None:
    """Inflate the zlib or gzip data that follow, keeping nothing, and check sum and length.

    Raises:
        MedsegError: The data are damaged, cut off, or do not inflate to ``count`` bytes.
    """
    inflate = zlib.decompressobj(wbits=47)  # 47: zlib or gzip, whichever the data begin with
    total = 0
    pending = b""
    while not inflate.eof and total <= count:
        pending = pending or file.read(_PIECE)
        if not pending:
            raise MedsegError(
                f"{path}: the compressed data are cut off before their end\n{_DAMAGED}"
            )
        try:
            total += len(inflate.decompress(pending, _PIECE))
        except zlib.error as error:
            raise MedsegError(
                f"{path}: the compressed data are damaged ({error})\n{_DAMAGED}"
            ) from error
        pending = inflate.unconsumed_tail
    check_length(path, total, count)
