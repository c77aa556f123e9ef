"""TIFF, OME-TIFF and ImageJ TIFF through tifffile.

Pixel sizes come from OME-XML or ImageJ's description, in micrometres. The resolution of a plain
TIFF says how large to print it, so it is not read.
"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader, writer
from medseg.images.image import Image
from medseg.images.orient import check_spacing
from medseg.images.raster import RGB, drop_alpha
from medseg.images.trust import check_length, check_size, decoding, first_bytes

_IN_UM = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "\\u00B5m"), 1.0),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6, "Å": 1e-4, "inch": 25400.0},
}
_OME_UNITS = {Unit.UM: "µm", Unit.MM: "mm", Unit.NM: "nm"}
_MOST_PAGES = 1_000_000
Sizes = Mapping[str, float]


@reader(".tif", ".tiff", ".ome.tif", ".ome.tiff")
def read_tiff(path: Path, stated: Stated) -> Image:
    """Read the one image of a TIFF file, with pixel size and channel names where it states them.

    Palette files give their indices: microscopes store a look-up table over true intensities.

    Raises:
        MedsegError: The file is damaged, holds several images, or leaves its axes open.
    """
    import tifffile

    _check_pages(path)
    with decoding(path, "a TIFF file"), tifffile.TiffFile(path, _multifile=False) as tiff:
        series = _only_series(path, tiff)
        sizes, channels = _described(tiff)
        extra = [int(sample) for sample in series.keyframe.extrasamples]
        letters = series.axes
        voxels = series.asarray()
    if "S" in letters:
        colours = letters.index("S")
        voxels = drop_alpha(path, np.moveaxis(voxels, colours, 0), bool(set(extra) & {1, 2}))
        letters = "C" + letters.replace("S", "")
        channels = RGB if len(voxels) == 3 else ()
    array, axes = arrange(path, voxels, letters, stated.axes)
    named = channels if len(channels) == (len(array) if axes.startswith("C") else 1) else ()
    grid = _grid(path, array.shape[axes.startswith("C") :], sizes)
    return Image(array, grid, axes, named)


def _check_pages(path: Path) -> None:
    """Follow the chain of pages to its end, as a chain that bites its tail never ends.

    Raises:
        MedsegError: It is no TIFF, or the chain leaves the file or returns to an earlier page.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) > 3 else 0
        if version not in (42, 43) or len(head) < (8 if version == 42 else 16):
            raise MedsegError(
                f"{path}: not a TIFF file; it starts with {first_bytes(path)}\n"
                f"  rename it to what it is, or copy the true file again from its origin"
            )
        count, entry, link = ("H", 12, "I") if version == 42 else ("Q", 20, "Q")
        count, link = order + count, order + link
        start = 4 if version == 42 else 8
        offset = struct.unpack_from(link, head, start)[0]
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) > _MOST_PAGES:
                raise MedsegError(
                    f"{path}: the list of pages returns to itself after {len(seen)} page(s)\n"
                    f"  the file is damaged: copy it again from its origin"
                )
            seen.add(offset)
            check_length(path, min(size, offset + struct.calcsize(count)), _end(count, offset))
            file.seek(offset)
            entries = struct.unpack(count, file.read(struct.calcsize(count)))[0]
            after = offset + struct.calcsize(count) + entries * entry
            check_length(path, min(size, _end(link, after)), _end(link, after))
            file.seek(after)
            offset = struct.unpack(link, file.read(struct.calcsize(link)))[0]


def _end(layout: str, offset: int) -> int:
    return offset + struct.calcsize(layout)


def _only_series(path: Path, tiff: Any) -> Any:
    """Return the one series of full resolution, after checking what it claims."""
    series = [one for one in tiff.series if not one.keyframe.is_reduced]
    if len(series) != 1:
        sizes = "; ".join(" x ".join(str(n) for n in one.shape) for one in series[:5])
        raise MedsegError(
            f"{path}: the file holds {len(series)} images ({sizes}); one is expected\n"
            f"  save each as a file of its own"
        )
    only = series[0]
    check_size(path, only.shape, only.dtype.itemsize)
    if any(page is None for page in only.pages):
        raise MedsegError(
            f"{path}: pages are missing: the image is spread over several files or cut off\n"
            f"  save it as one OME-TIFF file"
        )
    size = path.stat().st_size
    if only.dataoffset is not None:
        check_length(path, min(size, only.dataoffset + only.nbytes), only.dataoffset + only.nbytes)
        return only
    for page in only.pages:
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n)
        end = max(ends, default=0)
        check_length(path, min(size, end), end)
    return only


def _described(tiff: Any) -> tuple[Sizes, tuple[str, ...]]:
    """Return the pixel sizes in micrometres by axis, and the names of the channels."""
    import tifffile

    if tiff.is_ome:
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        channels = pixels.get("Channel", [])
        channels = channels if isinstance(channels, list) else [channels]
        names = tuple(str(channel.get("Name", "")) for channel in channels)
        return _ome_sizes(pixels), names if all(names) else ()
    if tiff.is_imagej:
        return _imagej_sizes(tiff), ()
    return {}, ()


def _ome_sizes(pixels: Mapping[str, Any]) -> Sizes:
    sizes = {}
    for axis in "ZYX":
        unit = _IN_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if f"PhysicalSize{axis}" in pixels and unit:
            sizes[axis] = float(pixels[f"PhysicalSize{axis}"]) * unit
    return sizes


def _imagej_sizes(tiff: Any) -> Sizes:
    described = tiff.imagej_metadata or {}
    unit = _IN_UM.get(str(described.get("unit", "")).strip())
    if unit is None:
        return {}
    sizes = {}
    for axis in "YX":
        tag = tiff.pages[0].tags.get(f"{axis}Resolution")
        if tag is not None and tag.value[0]:
            sizes[axis] = tag.value[1] / tag.value[0] * unit
    if "spacing" in described:
        sizes["Z"] = float(described["spacing"]) * unit
    return sizes


def _grid(path: Path, shape: tuple[int, ...], sizes: Sizes) -> Grid:
    """Return the grid, in px unless every axis has a size."""
    axes = "ZYX"[-len(shape) :]
    if not set(axes) <= set(sizes):
        return Grid(shape, (1.0,) * len(shape))
    spacing = tuple(sizes[axis] for axis in axes)
    check_spacing(path, spacing[::-1])
    return Grid(shape, spacing, Unit.UM)


@writer(".tif", ".tiff", ".ome.tif", ".ome.tiff")
def write_tiff(path: Path, image: Image) -> None:
    """Write with OME-XML whatever the suffix: it alone keeps pixel size with every type.

    The resolution tags repeat the pixel size in centimetres, for programs that do not read OME.
    Origin and orientation are not kept: TIFF has no place for them.
    """
    import tifffile

    grid = image.grid
    described: dict[str, Any] = {"axes": image.axes}
    resolution: dict[str, Any] = {}
    if grid.unit is not Unit.PX:
        for axis, size in zip("ZYX"[-grid.spatial_dims :], grid.spacing, strict=True):
            described[f"PhysicalSize{axis}"] = size
            described[f"PhysicalSize{axis}Unit"] = _OME_UNITS[grid.unit]
        in_cm = 1e4 / _IN_UM[_OME_UNITS[grid.unit]]
        per_cm = tuple(in_cm / size for size in (grid.spacing[-1], grid.spacing[-2]))
        if max(per_cm) < 2**31:
            resolution = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    if image.channels and image.axes.startswith("C"):
        described["Channel"] = {"Name": list(image.channels)}
    elif image.channels:
        described["Channel"] = {"Name": image.channels[0]}
    array: NDArray[Any] = np.ascontiguousarray(image.array)
    # tifffile's own identifier holds the time and the network card: the same image, another file.
    content = hashlib.sha256(repr(described).encode())
    content.update(array.data)
    described["UUID"] = str(UUID(bytes=content.digest()[:16]))
    tifffile.imwrite(
        path,
        array,
        ome=True,
        metadata=described,
        photometric="minisblack",
        compression="zlib",
        **resolution,
    )
