"""What the headers of MetaImage, NRRD and GIPL claim, checked against their files.

ITK fills what is missing with zeros and reads no checksums, so the sizes are compared here first.
"""

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images.orient import check_spacing
from medseg.images.trust import (
    check_length,
    check_present,
    check_size,
    check_stream,
    first_bytes,
    opened,
    read_exactly,
)

_META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8"), 1),
    **dict.fromkeys(("uint8_t", "char"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t", "ushort"), 2),
    **dict.fromkeys(("unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int"), 4),
    **dict.fromkeys(("uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64"), 8),
    **dict.fromkeys(("unsigned long long", "uint64_t", "double"), 8),
}
_GIPL_BYTES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
_UNITS = {"um": Unit.UM, "µm": Unit.UM, "micron": Unit.UM, "microns": Unit.UM, "nm": Unit.NM}


@dataclass(frozen=True)
class Claim:
    """What a header says about the voxels that follow it.

    Args:
        shape: Sides, fastest first, components of a voxel included.
        itemsize: Bytes of one number.
        data: The file of the voxels; the header's own, or one beside it.
        offset: Where they begin; None if they are the last bytes.
        encoding: ``raw``, ``deflate`` (zlib or gzip) or ``other`` (left to ITK).
        unit: Unit of the pixel size.
    """

    shape: tuple[int, ...]
    itemsize: int
    data: Path
    offset: int | None
    encoding: str
    unit: Unit = Unit.MM


def check_meta(path: Path) -> Claim:
    """Check a MetaImage (.mha, .mhd) against its file and return what it claims.

    Raises:
        MedsegError: It is no MetaImage, or its voxels are cut off, damaged or elsewhere.
    """
    fields, end = _fields(path, "=", stop="ElementDataFile")
    if "DimSize" not in fields or fields.get("ElementType") not in _META_BYTES:
        raise _foreign(path, "MetaImage")
    for key in ("ElementSpacing", "ElementSize"):
        if key in fields:
            check_spacing(path, _numbers(path, fields[key]))
    name = fields["ElementDataFile"]
    binary = fields.get("BinaryData", "True").lower() == "true"
    compressed = fields.get("CompressedData", "False").lower() == "true"
    header = int(fields.get("HeaderSize", "0"))
    claim = Claim(
        (
            int(fields.get("ElementNumberOfChannels", "1")),
            *(int(n) for n in _numbers(path, fields["DimSize"])),
        ),
        _META_BYTES[fields["ElementType"]],
        path if name == "LOCAL" else _beside(path, name),
        end if name == "LOCAL" else (header if header >= 0 else None),
        "other" if not binary else "deflate" if compressed else "raw",
    )
    if compressed:  # where it is missing or wrong, ITK gives noise without an error
        stated = int((_numbers(path, fields.get("CompressedDataSize", "")) or (0,))[0])
        check_length(claim.data, claim.data.stat().st_size - (claim.offset or 0), stated)
    return _checked(path, claim)


def check_nrrd(path: Path) -> Claim:
    """Check an NRRD (.nrrd, .nhdr) against its file and return what it claims.

    Raises:
        MedsegError: It is no NRRD, or its voxels are cut off, damaged or elsewhere.
    """
    fields, end = _fields(path, ":", stop="")
    if "sizes" not in fields or fields.get("type") not in _NRRD_BYTES:
        raise _foreign(path, "NRRD")
    if "spacings" in fields:
        stated = (s for s in _numbers(path, fields["spacings"]) if not math.isnan(s))
        check_spacing(path, tuple(stated))
    name = fields.get("data file", fields.get("datafile"))
    encodings = {"raw": "raw", "gzip": "deflate", "gz": "deflate"}
    encoding = encodings.get(fields.get("encoding", "").lower(), "other")
    skips = {fields.get(key, "0") for key in ("byte skip", "byteskip", "line skip", "lineskip")}
    claim = Claim(
        tuple(int(n) for n in _numbers(path, fields["sizes"])),
        _NRRD_BYTES[fields["type"]],
        path if name is None else _beside(path, name),
        end if name is None else 0,
        encoding if skips == {"0"} else "other",
        _UNITS.get(fields.get("space units", "").split(" ")[0].strip('"'), Unit.MM),
    )
    return _checked(path, claim)


def check_gipl(path: Path) -> Claim:
    """Check a GIPL (.gipl, .gipl.gz) against its file and return what it claims.

    Raises:
        MedsegError: It is no GIPL, or its voxels are cut off or damaged.
    """
    with opened(path) as file:
        header = file.read(256)
        magic = header[252:256]
        if magic not in (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8"):
            raise _foreign(path, "GIPL")
        *sides, kind = struct.unpack(">5H", header[:10])
        shape = tuple(max(n, 1) for n in sides)
        check_spacing(path, struct.unpack(">3f", header[10:22]))
        if kind not in _GIPL_BYTES:
            raise _foreign(path, "GIPL")
        size = check_size(path, shape[::-1], _GIPL_BYTES[kind])
        if isinstance(file, gzip.GzipFile):
            read_exactly(path, file, size)
        else:
            check_length(path, path.stat().st_size, 256 + size)
    return Claim(shape, _GIPL_BYTES[kind], path, 256, "raw")


def _checked(path: Path, claim: Claim) -> Claim:
    size = check_size(path, claim.shape[::-1], claim.itemsize)
    if claim.encoding == "other":
        return claim
    length = claim.data.stat().st_size
    offset = length - size if claim.offset is None else claim.offset
    if claim.encoding == "raw":
        check_length(claim.data, length, offset + size)
        return claim
    with claim.data.open("rb") as file:
        file.seek(offset)
        check_stream(claim.data, file, size)
    return claim


def _fields(path: Path, sign: str, *, stop: str) -> tuple[dict[str, str], int]:
    """Return the lines ``key sign value`` up to the line that begins with ``stop``, or a blank one.

    The second value is the place of the first byte after that line.
    """
    fields: dict[str, str] = {}
    end = 0
    with path.open("rb") as file:
        for raw in iter(lambda: file.readline(2**16), b""):
            end += len(raw)
            line = raw.decode("latin-1").strip()
            key, found, value = line.partition(sign)
            if found:
                fields[key.strip()] = value.strip().lstrip("=")
            if (stop and key.strip() == stop) or (not stop and not line) or end > 2**20:
                break
    if stop and stop not in fields:
        raise _foreign(path, "MetaImage")
    return fields, end


def _numbers(path: Path, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split())
    except ValueError:
        raise MedsegError(
            f"{path}: the header has {text[:60]!r} where numbers are expected\n"
            f"  the header is damaged: copy the file again from its origin"
        ) from None


def _beside(path: Path, name: str) -> Path:
    """Return the data file of a header; it must lie in the same folder."""
    if Path(name).name != name or name.startswith("LIST") or "%" in name:
        raise MedsegError(
            f"{path}: its voxels are said to be in {name!r}; only one file in the same folder is "
            f"opened\n  save it as one file: .mha instead of .mhd, .nrrd instead of .nhdr"
        )
    data = path.parent / name
    check_present(data)
    if data.is_symlink():
        raise MedsegError(f"{data}: is a link; put the file itself beside {path.name}")
    return data


def _foreign(path: Path, kind: str) -> MedsegError:
    return MedsegError(
        f"{path}: not a {kind} file that can be read; it starts with {first_bytes(path)}\n"
        f"  rename it to what it is, or copy the true file again from its origin"
    )
