"""A data set of OME-Zarr is trained on, and its labels go back into it."""

import numpy as np
import pytest
import zarr
from small_studies import disc

from medseg.images import read_image, read_labels, write_ome_zarr_labels

JOB = """\
data: {dataset: discs.yaml, patch_voxels: [32, 32]}
network: {name: unet, channels: [4, 8]}
augmentation: light
train: {epochs: 1, iterations_per_epoch: 12, learning_rate: 1e-2, ema: null}
metrics: [dice]
"""
CARD = """\
name: discs
layout: {name: ome_zarr, labels: drawn, level: 1}
spatial_dims: 2
channels: [GFP]
labels: {background: 0, disc: 1}
"""


def make_zarr(path, image, inside):
    """Write two channels, the disc in the second, with two levels; and its labels."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    pixels = np.stack([np.zeros_like(image), image])
    datasets = []
    for level in (0, 1):
        part = pixels[:, :: 2**level, :: 2**level]
        group.create_array(str(level), shape=part.shape, dtype=part.dtype)[...] = part
        scale = {"type": "scale", "scale": [1.0, 0.25 * 2**level, 0.25 * 2**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "micrometer"} for a in "yx"
    ]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    group.attrs["omero"] = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    write_ome_zarr_labels(path, "drawn", inside.astype(np.uint8), made_by={})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, medseg):
    root = tmp_path_factory.mktemp("zarr")
    rng = np.random.default_rng(0)
    for number in range(4):
        make_zarr(root / f"disc_{number}.ome.zarr", *disc(rng, (96, 96)))
    (root / "discs.yaml").write_text(CARD)
    (root / "job.yaml").write_text(JOB)
    store = f"sqlite:///{root / 'mlflow.db'}"
    ran = medseg(
        *("train", root / "job.yaml", "--runs", root / "runs", "--tracking-uri", store),
        *("--device", "cpu", "--json"),
    )
    assert ran.code == 0, ran.errors
    return root, ran.json["folder"]


def test_labels_go_back_beside_those_drawn_on_every_level(trained, medseg, tmp_path):
    root, run = trained
    image = root / "disc_0.ome.zarr"

    ran = medseg(
        "predict", run, image / "1", "-o", tmp_path, "--zarr-labels", "predicted", "--json"
    )

    assert ran.code == 0, ran.errors
    assert ran.json["exported"] == {"disc_0_1": [str(image / "labels" / "predicted")]}
    file = read_labels(tmp_path / "disc_0_1.ome.tif")
    inside = read_labels(image / "labels" / "predicted" / "1")
    np.testing.assert_array_equal(file.array, inside.array)
    assert file.grid == inside.grid == read_image(image / "1").grid
    assert read_labels(image / "labels" / "predicted").array.shape == (96, 96)
    assert zarr.open_group(image / "labels", mode="r").attrs["labels"] == ["drawn", "predicted"]


def test_an_image_that_is_no_ome_zarr_is_refused_before_anything_is_predicted(
    trained, medseg, tmp_path
):
    (tmp_path / "a.png").write_bytes(b"")
    out = tmp_path / "out"
    ran = medseg("predict", trained[1], tmp_path / "a.png", "-o", out, "--zarr-labels", "x")
    assert ran.code == 1
    assert "a.png is no OME-Zarr" in ran.errors
    assert not out.exists()


def test_a_data_set_without_the_labels_named_says_so(trained, medseg):
    root, _ = trained
    other = root / "other.yaml"
    other.write_text(CARD.replace("drawn", "nuclei"))
    ran = medseg("check", other, "--json")
    assert ran.code == 1
    assert "images without labels/nuclei: disc_0, disc_1" in ran.output
