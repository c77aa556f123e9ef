"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) through zarr-python: an image is a folder.

``a.ome.zarr`` is its image at full resolution, ``a.ome.zarr/1`` the next level (called as the file
calls it), ``a.ome.zarr/labels/nuclei`` the labels of that name. Labels can be written back.

Source: OME-NGFF specification, https://ngff.openmicroscopy.org/0.5/.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images.arrange import arrange
from medseg.images.formats import Stated, reader, zarr_root
from medseg.images.image import Image
from medseg.images.orient import check_spacing
from medseg.images.reading import narrowest
from medseg.images.trust import check_length, check_size, decoding

_IN_UM = {
    **{"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6},
    **{"angstrom": 1e-4, "picometer": 1e-6, "inch": 25400.0},
}
_MINE = "medseg"  # attribute of labels that we wrote, which we may replace


@reader(".ome.zarr", ".zarr")
def read_ome_zarr(path: Path, stated: Stated) -> Image:
    """Read an image, one of its levels, or one of its label images.

    Returns:
        The image with pixel size in um and channel names where the file states them; its
        metadata say which ``level`` was read, of which ``levels``.

    Raises:
        MedsegError: It is no OME-Zarr image, is damaged, holds several, or leaves its axes open.
    """
    with decoding(path, "OME-Zarr"):
        home, group, described, level = _multiscale(path)
        axes = [_axis(axis) for axis in described["axes"]]
        found = group[level["path"]]
        check_size(path, found.shape, found.dtype.itemsize)
        _check_chunks(home / level["path"], found)
        voxels = np.asarray(found[...])
        sizes = _sizes(axes, described, level)
        names = tuple(str(one.get("label", "")) for one in _attributes(group).get("channels", ()))
    letters = "".join(name if len(name) == 1 else "?" for name, _ in axes)
    array, kept = arrange(path, voxels, letters, stated.axes)
    channels = names if all(names) else ()
    channels = channels if len(channels) == (len(array) if kept.startswith("C") else 1) else ()
    levels = [one["path"] for one in described["datasets"]]
    grid = _grid(path, array.shape[kept.startswith("C") :], sizes)
    return Image(array, grid, kept, channels, {"level": level["path"], "levels": levels})


def ome_zarr_level(path: Path, level: int) -> Path:
    """Return the path of a level of an image or of labels, 0 the finest.

    Raises:
        MedsegError: It is no OME-Zarr image, or has no such level; those that it has are listed.
    """
    with decoding(path, "OME-Zarr"):
        levels = [str(one["path"]) for one in _multiscale(path)[2]["datasets"]]
    if not 0 <= level < len(levels):
        raise MedsegError(
            f"{path}: has no level {level}; its levels are 0 to {len(levels) - 1} "
            f"({', '.join(levels)})"
        )
    return path / levels[level]


def write_ome_zarr_labels(
    path: Path, name: str, labels: NDArray[np.integer[Any]], *, made_by: Mapping[str, Any]
) -> Path:
    """Write labels into the OME-Zarr of their image, on each of its levels, nearest neighbour.

    They are written aside, read back and compared, and only then get their name. Labels of this
    name are replaced if medseg wrote them.

    Args:
        path: The image, or one of its levels.
        name: Of the labels.
        labels: Whole numbers from 0, (z, y, x) or (y, x), on the image's or a level's grid.
        made_by: What made them; kept beside them.

    Returns:
        ``IMAGE/labels/NAME``.

    Raises:
        MedsegError: The image is no OME-Zarr, others wrote labels of this name, or what was
            written does not read back.
        ValueError: The labels have other axes than the image.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise MedsegError(
            f'"{name}" cannot name labels in an OME-Zarr: take letters, digits, "_", "-" and "."'
        )
    with decoding(path, "OME-Zarr"):
        home, image, described, _ = _multiscale(path)
    target = home / "labels" / name
    _check_replaceable(target)
    aside = home / "labels" / f".{name}.{os.getpid()}.part"
    try:
        finest = _write_levels(aside, image, described, labels, made_by)
        if not np.array_equal(np.asarray(finest), _to_shape(labels, finest.shape)):
            raise MedsegError(
                f"{target}: what was written does not read back; is the disk full or failing?"
            )
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    except OSError as error:
        raise MedsegError(
            f"{target}: cannot be written: {error.strerror or error}\n"
            f"  check that the disk has room and that the folder may be written to"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _list_labels(home, image, name)
    return target


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MedsegError(
            "OME-Zarr needs zarr, which is not installed: pip install 'medseg[microscopy]'"
        ) from error
    return zarr


def _multiscale(path: Path) -> tuple[Path, Any, dict[str, Any], dict[str, Any]]:
    """Return an image's folder and group, its multiscales entry, and the level that is meant."""
    zarr, root = _zarr(), zarr_root(path)
    home, wanted = path, None
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        # An array stands for its level: of the nearest group above it that lists it.
        for above in path.parents:
            group = zarr.open_group(above, mode="r")
            if "multiscales" in _ome(group) or above == root:
                home, node, wanted = above, group, path.relative_to(above).as_posix()
                break
    ome = _ome(node)
    if len(ome.get("multiscales", ())) != 1:
        raise MedsegError(_no_image(path, node, ome))
    described: dict[str, Any] = ome["multiscales"][0]
    levels = {str(level["path"]): level for level in described["datasets"]}
    if wanted is not None and wanted not in levels:
        raise MedsegError(f"{path}: is no level of its image, which has {', '.join(levels)}")
    return home, node, described, levels[wanted or next(iter(levels))]


def _check_chunks(folder: Path, array: Any) -> None:
    """Refuse chunks that are cut off: Blosc reads on beyond their end without a word.

    Raises:
        MedsegError: A chunk is shorter than its header accounts for.
    """
    if array.shards is not None or "Blosc" not in str(array.compressors):
        return
    for chunk in folder.rglob("*"):
        if chunk.is_file() and not chunk.name.startswith(".") and chunk.name != "zarr.json":
            with chunk.open("rb") as file:
                header = file.read(16)
            size = chunk.stat().st_size
            check_length(chunk, min(size, 16), 16)
            expected = int.from_bytes(header[12:16], "little")
            check_length(chunk, min(size, expected), expected)


def _no_image(path: Path, node: Any, ome: Mapping[str, Any]) -> str:
    if len(ome.get("multiscales", ())) > 1:
        return f"{path}: describes {len(ome['multiscales'])} images in one group; one is expected"
    inside = sorted(name for name in getattr(node, "group_keys", list)() if name != "OME")
    hint = f"name one of its images: {path / inside[0]}" if inside else "it holds no image"
    return f"{path}: is no OME-Zarr image itself (it has no 'multiscales')\n  {hint}"


def _attributes(group: Any) -> dict[str, Any]:
    return dict(_ome(group).get("omero", {}))


def _ome(group: Any) -> dict[str, Any]:
    """Return the metadata of OME: under ``ome`` from 0.5 on, at the top before."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome", attributes))


def _axis(axis: Any) -> tuple[str, Mapping[str, Any]]:
    """Return an axis's letter and description; before 0.4 it was its name alone."""
    described = {"name": axis} if isinstance(axis, str) else dict(axis)
    return str(described["name"]).upper(), described


def _sizes(
    axes: Sequence[tuple[str, Mapping[str, Any]]],
    described: Mapping[str, Any],
    level: Mapping[str, Any],
) -> dict[str, float]:
    """Return the pixel sizes in micrometres of the axes whose unit is stated."""
    scale = np.ones(len(axes))
    for source in (level, described):
        for change in source.get("coordinateTransformations", ()):
            if change["type"] == "scale":
                scale = scale * np.array(change["scale"], float)
    units = {name: _IN_UM.get(str(about.get("unit", ""))) for name, about in axes}
    return {
        name: float(size) * unit
        for (name, _), size in zip(axes, scale, strict=True)
        if (unit := units[name]) is not None and name in "ZYX"
    }


def _grid(path: Path, shape: tuple[int, ...], sizes: Mapping[str, float]) -> Grid:
    """Return the grid, in px unless every axis has a size."""
    letters = "ZYX"[-len(shape) :]
    if not set(letters) <= set(sizes):
        return Grid(shape, (1.0,) * len(shape))
    spacing = tuple(sizes[letter] for letter in letters)
    check_spacing(path, spacing[::-1])
    return Grid(shape, spacing, Unit.UM)


def _check_replaceable(target: Path) -> None:
    if target.exists() and _MINE not in dict(_zarr().open_group(target, mode="r").attrs):
        raise MedsegError(
            f"{target}: there are labels of this name, which medseg did not write\n"
            f"  give another name, or take them away"
        )


def _write_levels(
    where: Path,
    image: Any,
    described: Mapping[str, Any],
    labels: NDArray[np.integer[Any]],
    made_by: Mapping[str, Any],
) -> Any:
    """Write a group of labels with the levels of its image; return the finest."""
    new = image.metadata.zarr_format == 3
    axes = [_axis(axis) for axis in described["axes"]]
    kept = [i for i, (name, _) in enumerate(axes) if name != "C"]
    spatial = sum(name in "ZYX" for name, _ in axes)
    if labels.ndim != spatial:
        raise ValueError(f"labels of {labels.ndim} axes for an image of {spatial}")
    small = labels.astype(narrowest(int(labels.max(initial=0))), copy=False)
    group = _zarr().open_group(where, mode="w", zarr_format=image.metadata.zarr_format)
    datasets, arrays = [], []
    for level in described["datasets"]:
        like = image[level["path"]]
        shape = tuple(like.shape[i] for i in kept)
        keys = {"name": "default" if new else "v2", "separator": "/"}
        more = {"dimension_names": [axes[i][1]["name"] for i in kept]} if new else {}
        array = group.create_array(
            level["path"],
            shape=shape,
            chunks=tuple(like.chunks[i] for i in kept),
            dtype=small.dtype,
            chunk_key_encoding=keys,
            **more,
        )
        array[...] = _to_shape(small, shape)
        arrays.append(array)
        datasets.append({"path": level["path"], **_transformations(level, kept)})
    multiscales = {
        "name": where.name.split(".")[1],
        "axes": [axes[i][1] for i in kept],
        "datasets": datasets,
        **_transformations(described, kept),
    }
    about: dict[str, Any] = {"source": {"image": "../../"}}
    if new:
        version = _ome(image).get("version", "0.5")
        told = {"version": version, "multiscales": [multiscales], "image-label": about}
        group.attrs["ome"] = told
    else:
        version = described.get("version", "0.4")
        told = {
            "multiscales": [{**multiscales, "version": version}],
            "image-label": {**about, "version": version},
        }
        group.attrs.update(told)
    group.attrs[_MINE] = dict(made_by)
    return arrays[0]


def _transformations(source: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the transformations of the axes that are kept."""
    changes = [
        {**change, change["type"]: [change[change["type"]][i] for i in kept]}
        for change in source.get("coordinateTransformations", ())
    ]
    return {"coordinateTransformations": changes} if changes else {}


def _to_shape(labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return labels on a level's grid, the nearest voxel; a leading time axis has length 1."""
    for axis, (have, want) in enumerate(zip(labels.shape, shape[-labels.ndim :], strict=True)):
        if have != want:
            nearest = ((np.arange(want) + 0.5) * have / want).astype(np.int64)
            labels = labels.take(nearest, axis=axis)
    return labels.reshape(shape)


def _list_labels(home: Path, image: Any, name: str) -> None:
    """Add a name to the list that a reader of the labels starts from."""
    zarr, version = _zarr(), image.metadata.zarr_format
    group = zarr.open_group(home / "labels", mode="a", zarr_format=version)
    names = list(_ome(group).get("labels", ()))
    if name not in names:
        names.append(name)
        if version == 3:
            group.attrs["ome"] = {"version": _ome(image).get("version", "0.5"), "labels": names}
        else:
            group.attrs["labels"] = names
    if image.metadata.consolidated_metadata is not None:
        zarr.consolidate_metadata(home)
