"""A model folder: what is saved is what predicts, and it is safe to open."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.inference import Model, ModelSpec
from medseg.networks import NETWORKS, DeepLabV3, UNetClassic
from medseg.transforms import NORMALISATIONS, Preparation


def spec(spatial_dims: int = 2, **changed) -> ModelSpec:
    preparation = Preparation(
        spatial_dims=spatial_dims,
        spacing=changed.pop("spacing", None),
        unit=changed.pop("unit", Unit.PX),
        normalisation=NORMALISATIONS.build(changed.pop("normalisation", "zscore")),
    )
    settings = {
        "name": "cells",
        "spatial_dims": spatial_dims,
        "channels": ("image",),
        "structures": {"background": 255, "cell": 0, "border": 7},
        "network": "unet",
        "network_settings": {"channels": [4, 8]},
        "preparation": preparation.to_dict(),
        "window_voxels": (16,) * spatial_dims,
    }
    return ModelSpec(**settings | changed)


def model(made: ModelSpec | None = None) -> Model:
    torch.manual_seed(0)
    made = made or spec()
    return Model(made, made.build_network())


class Above(torch.nn.Module):
    """Class 1 where the image is above a value, else class 0; class 2 nowhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image):
        inside = (image - self.value) * 50
        return torch.cat([-inside, inside, torch.full_like(inside, -1e4)], dim=1)


def above(made: ModelSpec, value: float = 0.0) -> Model:
    return Model(made, Above(value))


def test_a_model_that_was_saved_and_opened_predicts_the_same(tmp_path):
    made, grid = model(spec(provenance={"job_hash": "1" * 64})), Grid((20, 30), (1.0, 1.0))
    image = np.random.default_rng(0).normal(size=(1, 20, 30)).astype(np.float32)

    made.save(tmp_path)
    opened = Model.load(tmp_path)

    assert opened.spec == made.spec
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    np.testing.assert_array_equal(opened.predict(image, grid), made.predict(image, grid))
    # The last digit depends on where in memory the arrays happen to lie.
    np.testing.assert_allclose(
        opened.probabilities(image, grid, mirror=True),
        made.probabilities(image, grid, mirror=True),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_can_be_saved(tmp_path, name):
    made = model(spec(network=name, network_settings={}))
    made.save(tmp_path)

    weights = Model.load(tmp_path).network.state_dict()

    for key, value in made.network.state_dict().items():
        torch.testing.assert_close(weights[key], value)


def test_labels_are_the_file_values_in_the_narrowest_type():
    bright = np.zeros((1, 9, 9), np.float32)
    bright[0, 2:5] = 10

    labels = above(spec()).predict(bright, Grid((9, 9), (1.0, 1.0)))

    assert labels.dtype == np.uint8
    assert np.unique(labels[2:5]).tolist() == [0]
    assert np.unique(np.delete(labels, [2, 3, 4], 0)).tolist() == [255]
    wide = above(spec(structures={"background": 0, "cell": 300, "border": 1}))
    assert wide.predict(bright, Grid((9, 9), (1.0, 1.0))).dtype == np.uint16


def test_probabilities_and_labels_agree():
    image = np.random.default_rng(1).normal(size=(1, 17, 23)).astype(np.float32)
    made, grid = model(), Grid((17, 23), (1.0, 1.0))

    probabilities = made.probabilities(image, grid)

    assert probabilities.shape == (3, 17, 23)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(made.labels_of(probabilities), made.predict(image, grid))


def ball(grid: Grid, centre: tuple[float, ...], radius: float) -> np.ndarray:
    """Return a bright ball in world coordinates, as voxels of the grid."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return np.linalg.norm(world - centre, axis=-1) <= radius


@pytest.mark.parametrize("spacing", [None, (1.5, 1.5, 1.5)])
def test_labels_lie_on_the_own_grid_of_a_volume_however_it_is_turned_and_sampled(spacing):
    # Array axes z, y, x point to the left, the feet and the back; voxels are 1 x 2 x 1 mm.
    direction = ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, -1.0, 0.0))
    grid = Grid((40, 15, 26), (1.0, 2.0, 1.0), Unit.MM, (20.0, 12.0, 14.0), direction)
    drawn = ball(grid, (0.0, 1.0, 2.0), 8.0)
    made = above(spec(3, spacing=spacing, unit=Unit.MM, normalisation="none"), value=0.5)

    labels = made.predict(drawn[None].astype(np.float32), grid)

    assert labels.shape == grid.shape
    wrong = np.count_nonzero((labels == 0) != drawn)
    if spacing is None:
        assert wrong == 0, "voxels are only turned, and turned back"
    else:
        assert 1 - wrong / (2 * drawn.sum()) > 0.9, "half a voxel of the shell may differ"


def test_mirroring_is_what_the_model_was_made_for_unless_somebody_asks():
    image = np.random.default_rng(2).normal(size=(1, 16, 16)).astype(np.float32)
    grid = Grid((16, 16), (1.0, 1.0))
    mirrored = model(spec(mirror=True, mirror_axes=(0, 1)))

    by_default, asked_off, asked_on = (
        mirrored.probabilities(image, grid, mirror=mirror) for mirror in (None, False, True)
    )

    np.testing.assert_allclose(by_default, asked_on, atol=1e-5)
    assert not np.allclose(by_default, asked_off, atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 9, 9), (1, 9, 9, 9), (9, 9)])
def test_an_image_of_other_channels_or_axes_is_refused(shape):
    grid = Grid(shape[1:], (1.0,) * (len(shape) - 1))
    with pytest.raises(ValueError, match=r"takes 1 channel\(s\) \(image\) in 2D"):
        model().predict(np.zeros(shape, np.float32), grid)


@pytest.fixture
def saved(tmp_path):
    model().save(tmp_path)
    return tmp_path


def rewrite(folder: Path, weights: bytes | None = None, **changed) -> None:
    """Change a model folder so that its checksum is right again."""
    if weights is not None:
        (folder / "weights.safetensors").write_bytes(weights)
    content = json.loads((folder / "model.json").read_text()) | changed
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(content | {"weights_sha256": digest}))


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_damaged_weights_are_refused(saved, damage):
    file = saved / "weights.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[-5] ^= 1
    file.write_bytes(content)

    with pytest.raises(MedsegError, match=r"weights\.safetensors: damaged, its checksum differs"):
        Model.load(saved)


def test_truncated_weights_are_refused_even_with_a_fitting_checksum(saved):
    rewrite(saved, (saved / "weights.safetensors").read_bytes()[:1000])

    with pytest.raises(MedsegError, match="make no model"):
        Model.load(saved)


class Marker:
    """When unpickled, writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("as_checkpoint", [False, True])
def test_a_pickle_that_poses_as_weights_is_never_executed(saved, tmp_path, as_checkpoint):
    marker, evil = tmp_path / "was_executed", tmp_path / "evil"
    if as_checkpoint:
        torch.save({"state_dict": Marker(marker)}, evil)
    else:
        evil.write_bytes(pickle.dumps(Marker(marker)))
    rewrite(saved, evil.read_bytes())

    with pytest.raises(MedsegError, match="make no model"):
        Model.load(saved)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Marker(marker)))
    assert marker.exists(), "the pickle would have done it"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "medseg-model/9"}, "written as medseg-model/9, this medseg reads"),
        ({"network": "nuet"}, 'network.name: "nuet" is no network; did you mean "unet"'),
        ({"network_settings": {"depht": 3}}, r"network\.depht: not a setting"),
        ({"network_settings": {"channels": [4, 8, 16]}}, "make no model"),
        ({"colour": "red"}, "make no model .*colour"),
        ({"window_voxels": None}, "make no model"),
    ],
)
def test_a_model_that_another_medseg_or_nobody_made_is_refused(saved, changed, message):
    rewrite(saved, **changed)

    with pytest.raises(MedsegError, match=message):
        Model.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]"])
def test_a_damaged_description_is_refused(saved, text):
    (saved / "model.json").write_text(text)

    with pytest.raises(MedsegError, match=r"model\.json: damaged"):
        Model.load(saved)


@pytest.mark.parametrize("gone", ["model.json", "weights.safetensors"])
def test_a_folder_without_a_model_is_refused(saved, gone):
    (saved / gone).unlink()

    with pytest.raises(MedsegError, match=f"not a model folder, there is no {gone}"):
        Model.load(saved)


def test_the_network_is_built_from_the_description_alone():
    assert isinstance(spec().build_network(), UNetClassic)


def test_opening_a_model_downloads_no_pretrained_weights():
    settings = {"encoder": "resnet10", "encoder_width": 2, "aspp_channels": 2}
    asks = spec(network="deeplabv3", network_settings={**settings, "pretrained": True})

    with pytest.raises(ValueError, match="pretrained"):
        asks.build_network()  # this encoder has none
    assert isinstance(asks.build_network(pretrained=False), DeepLabV3)


CRF = {"sigma_position": 3.0, "sigma_intensity": 0.5, "sigma_smooth": 1.0}


def square(noise: float = 0.0) -> np.ndarray:
    image = np.zeros((1, 40, 44), np.float32)
    image[0, 10:30, 10:30] = 1.0
    return image + np.random.default_rng(0).normal(0, noise, image.shape).astype(np.float32)


def soft(made: ModelSpec) -> Model:
    """A model that says what it sees, so noisy scores of a noisy image."""
    network = Above(0.5)
    network.forward = lambda image: torch.cat(
        [0.5 - image, image - 0.5, torch.full_like(image, -20)], dim=1
    )
    return Model(made, network)


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0)])
def test_a_crf_cleans_what_the_network_says_on_the_prepared_grid(spacing):
    grid, drawn = Grid((40, 44), (1.0, 1.0), Unit.UM), square()[0] > 0
    plain = spec(normalisation="none", spacing=spacing, unit=Unit.UM)
    refined = spec(normalisation="none", spacing=spacing, unit=Unit.UM, crf={**CRF, "unit": "um"})

    wrong = [
        np.count_nonzero((soft(made).predict(square(0.4), grid) == 0) != drawn)
        for made in (plain, refined)
    ]

    assert wrong[1] < 0.5 * wrong[0]
    probabilities = soft(refined).probabilities(square(0.4), grid)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_the_lengths_of_a_crf_are_physical_or_voxels():
    image = square(0.4)
    in_um, in_mm, fine = (
        Grid((40, 44), (side, side), unit)
        for side, unit in ((2.0, Unit.UM), (0.002, Unit.MM), (0.5, Unit.UM))
    )

    def probabilities(grid, unit, scale=1.0):
        lengths = {key: CRF[key] * scale for key in ("sigma_position", "sigma_smooth")}
        return soft(spec(normalisation="none", crf={**CRF, **lengths, "unit": unit})).probabilities(
            image, grid
        )

    two = probabilities(in_um, "um", 2.0)
    np.testing.assert_allclose(two, probabilities(in_mm, "um", 2.0), atol=1e-4)
    np.testing.assert_allclose(two, probabilities(fine, "px"), atol=1e-4)
    assert np.abs(two - probabilities(fine, "um", 2.0)).max() > 0.1
    with pytest.raises(ValueError, match="pixel size is not known"):
        probabilities(Grid((40, 44), (1.0, 1.0)), "um")


def test_the_crf_of_a_model_can_be_left_out():
    grid, image = Grid((40, 44), (1.0, 1.0)), square(0.4)
    plain = soft(spec(normalisation="none"))
    refined = soft(spec(normalisation="none", crf={**CRF, "unit": "um"}))

    np.testing.assert_array_equal(
        refined.predict(image, grid, crf=False), plain.predict(image, grid)
    )
    np.testing.assert_allclose(
        refined.probabilities(image, grid, crf=False), plain.probabilities(image, grid), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"the model's CRF cannot be applied: .*\n.*--no-crf"):
        refined.predict(image, grid)


def test_a_crf_is_saved_with_the_model_and_old_models_have_none(tmp_path):
    made = model(spec(crf={**CRF, "unit": "px"}))
    made.save(tmp_path)
    assert Model.load(tmp_path).spec == made.spec

    content = json.loads((tmp_path / "model.json").read_text())
    del content["crf"]
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert Model.load(tmp_path).spec.crf is None


def test_a_crf_with_unknown_settings_is_no_model(saved):
    rewrite(saved, crf={**CRF, "unit": "px", "sigma": 1})

    with pytest.raises(MedsegError, match=r"make no model .*a CRF has no sigma"):
        Model.load(saved)
