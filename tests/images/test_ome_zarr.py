"""OME-Zarr 0.4 and 0.5: images and labels in, labels back, valid by the specification's models."""

import json

import numpy as np
import pytest
import zarr
from ome_zarr_models import v04, v05

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images import (
    image_name,
    is_image_file,
    ome_zarr_level,
    read_image,
    read_labels,
    write_ome_zarr_labels,
)

VERSIONS = {"0.4": (2, v04), "0.5": (3, v05)}
UNIT = "nanometer"


def make(
    path, array, axes="czyx", *, version="0.4", unit=UNIT, names=("DAPI", "GFP"), spacing=250.0
):
    """Write an image with two levels as the specification says, the second every second pixel."""
    kind, _ = VERSIONS[version]
    group = zarr.open_group(path, mode="w", zarr_format=kind)
    types = {"c": "channel", "t": "time"}
    described = [
        {"name": a, "type": types.get(a, "space")} | ({"unit": unit} if a in "zyx" and unit else {})
        for a in axes
    ]
    datasets = []
    for level in (0, 1):
        step = 2**level
        part = array[(..., slice(None, None, step), slice(None, None, step))]
        more = {"dimension_names": list(axes)} if kind == 3 else {}
        keys = {"name": "default" if kind == 3 else "v2", "separator": "/"}
        new = group.create_array(
            f"s{level}",
            shape=part.shape,
            chunks=tuple(min(n, 8) for n in part.shape),
            dtype=part.dtype,
            chunk_key_encoding=keys,
            **more,
        )
        new[...] = part
        scale = [{"z": 2 * spacing}.get(a, spacing * step if a in "yx" else 1.0) for a in axes]
        datasets.append(
            {
                "path": f"s{level}",
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    told = {"multiscales": [{"name": "cells", "axes": described, "datasets": datasets}]}
    if names:
        window = {"min": 0, "max": 9, "start": 0, "end": 9}
        told["omero"] = {
            "channels": [{"label": n, "color": "FFFFFF", "window": window} for n in names]
        }
    if kind == 3:
        group.attrs["ome"] = {"version": version, **told}
    else:
        told["multiscales"][0]["version"] = version
        group.attrs.update(told)
    told = group.attrs["ome"] if kind == 3 else dict(group.attrs)
    VERSIONS[version][1].image.ImageAttrs.model_validate(told)
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 999, (2, 3, 11, 13), dtype=np.uint16)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_image_comes_with_channels_and_pixel_size(tmp_path, pixels, version):
    path = make(tmp_path / "cells.ome.zarr", pixels, version=version)

    image = read_image(path)

    np.testing.assert_array_equal(image.array, pixels)
    assert (image.axes, image.channels) == ("CZYX", ("DAPI", "GFP"))
    assert image.grid.unit is Unit.UM
    assert image.grid.spacing == pytest.approx((0.5, 0.25, 0.25))
    assert image.metadata == {"level": "s0", "levels": ["s0", "s1"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_level_is_named_by_its_path_and_has_its_own_pixel_size(tmp_path, pixels, version):
    path = make(tmp_path / "cells.zarr", pixels, version=version)

    image = read_image(path / "s1")

    assert ome_zarr_level(path, 1) == path / "s1"
    np.testing.assert_array_equal(image.array, pixels[..., ::2, ::2])
    assert image.grid.spacing == pytest.approx((0.5, 0.5, 0.5))
    assert image.metadata["level"] == "s1"
    assert image_name(path / "s1") == "cells_s1"
    assert is_image_file(path)
    with pytest.raises(MedsegError, match=r"no level 2; its levels are 0 to 1 \(s0, s1\)"):
        ome_zarr_level(path, 2)


def test_time_of_length_one_is_dropped_and_more_is_refused(tmp_path, pixels):
    one = make(tmp_path / "one.ome.zarr", pixels[None], "tczyx")
    np.testing.assert_array_equal(read_image(one).array, pixels)
    many = make(tmp_path / "many.ome.zarr", pixels, "tzyx", names=())
    with pytest.raises(MedsegError, match="2 time points"):
        read_image(many)


def test_without_units_there_is_no_pixel_size(tmp_path, pixels):
    path = make(tmp_path / "cells.ome.zarr", pixels, unit=None, spacing=1.0)
    assert read_image(path).grid.unit is Unit.PX


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("axes", "shape"), [("yx", (11, 13)), ("czyx", (2, 3, 11, 13))])
def test_labels_are_written_into_their_image_on_all_levels(tmp_path, version, axes, shape):
    names = ("DAPI", "GFP") if "c" in axes else ()
    image = np.zeros(shape, np.uint16)
    path = make(tmp_path / "cells.ome.zarr", image, axes, version=version, names=names)
    labels = np.zeros(shape[-2:] if len(shape) == 2 else shape[1:], np.int64)
    labels[..., 2:6, 3:9] = 70_000
    labels[..., 8:, :4] = 3

    written = write_ome_zarr_labels(path, "nuclei", labels, made_by={"model": "m"})

    assert written == path / "labels" / "nuclei"
    back = read_labels(written)
    np.testing.assert_array_equal(back.array, labels)
    assert back.array.dtype == np.uint32
    assert back.grid == read_image(path).grid
    half = read_labels(written / "s1")
    assert half.grid == read_image(path / "s1").grid
    assert set(np.unique(half.array)) == {0, 3, 70_000}
    kind, models = VERSIONS[version]
    group, listed = (zarr.open_group(p, mode="r") for p in (written, written.parent))
    assert group.metadata.zarr_format == listed.metadata.zarr_format == kind
    told, names = (dict(g.attrs["ome"] if kind == 3 else g.attrs) for g in (group, listed))
    models.image_label.ImageLabelAttrs.model_validate(told)
    assert "image-label" in told
    assert models.labels.LabelsAttrs.model_validate(names).labels == ["nuclei"]
    assert sorted(p.name for p in (path / "labels").iterdir() if p.is_dir()) == ["nuclei"]


def test_labels_of_a_level_are_spread_to_the_finer_one(tmp_path):
    path = make(tmp_path / "a.ome.zarr", np.zeros((4, 6), np.uint8), "yx", names=())
    labels = np.array([[1, 0, 2], [0, 3, 0]])

    written = write_ome_zarr_labels(path / "s1", "n", labels, made_by={})

    np.testing.assert_array_equal(read_labels(written / "s1").array, labels)
    np.testing.assert_array_equal(read_labels(written).array, np.kron(labels, np.ones((2, 2))))


def test_labels_that_a_person_drew_are_never_replaced_and_our_own_are(tmp_path):
    path = make(tmp_path / "a.ome.zarr", np.zeros((4, 6), np.uint8), "yx", names=())
    make(path / "labels" / "drawn", np.ones((4, 6), np.uint8), "yx", names=())
    ones, twos = np.ones((4, 6), np.uint8), np.full((4, 6), 2)

    with pytest.raises(MedsegError, match="labels of this name, which medseg did not write"):
        write_ome_zarr_labels(path, "drawn", twos, made_by={})
    write_ome_zarr_labels(path, "ours", ones, made_by={})
    write_ome_zarr_labels(path, "ours", twos, made_by={})

    assert read_labels(path / "labels" / "drawn").array.max() == 1
    assert read_labels(path / "labels" / "ours").array.min() == 2


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = make(tmp_path / "a.ome.zarr", np.zeros((4, 6), np.uint8), "yx", names=())
    ones = np.ones((4, 6), np.uint8)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg.images.ome_zarr._transformations", full)  # after the finest level
    with pytest.raises(MedsegError, match=r"labels/n: cannot be written: No space left"):
        write_ome_zarr_labels(path, "n", ones, made_by={})

    monkeypatch.undo()
    monkeypatch.setattr(zarr.Array, "__setitem__", lambda *_: None)  # a disk that forgets
    with pytest.raises(MedsegError, match="does not read back"):
        write_ome_zarr_labels(path, "n", ones, made_by={})

    assert [p.name for p in (path / "labels").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    path = make(tmp_path / "a.ome.zarr", np.zeros((4, 6), np.uint8), "yx", names=())
    with pytest.raises(MedsegError, match="cannot name labels"):
        write_ome_zarr_labels(path, name, np.ones((4, 6), np.uint8), made_by={})


def test_a_collection_names_the_images_in_it(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    make(tmp_path / "a.zarr" / "0", np.zeros((4, 6), np.uint8), "yx", names=())
    with pytest.raises(MedsegError, match=r"no OME-Zarr image itself[\s\S]*name one .*a.zarr/0"):
        read_image(tmp_path / "a.zarr")
    assert read_image(tmp_path / "a.zarr" / "0").array.shape == (4, 6)


def test_a_folder_that_is_no_zarr_and_a_damaged_chunk_are_named(tmp_path, pixels):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(MedsegError, match=r"empty.zarr: cannot be read as OME-Zarr"):
        read_image(tmp_path / "empty.zarr")
    path = make(tmp_path / "cells.ome.zarr", pixels)
    chunk = next(p for p in (path / "s0").rglob("*") if p.is_file() and not p.name.startswith("."))
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(MedsegError, match="the file is cut off: 20 of"):
        read_image(path)


def test_a_header_that_claims_too_much_is_refused_before_it_is_allocated(tmp_path, pixels):
    path = make(tmp_path / "cells.ome.zarr", pixels)
    header = json.loads((path / "s0" / ".zarray").read_text())
    header["shape"] = [2, 30000, 30000, 30000]
    (path / "s0" / ".zarray").write_text(json.dumps(header))
    with pytest.raises(MedsegError, match="30000 x 30000 x 30000"):
        read_image(path)
