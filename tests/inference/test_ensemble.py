"""An ensemble is the mean of its members, and is opened only whole."""

import json
import shutil

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.inference import (
    DenseCRF,
    Ensemble,
    Model,
    ModelSpec,
    ObjectFinder,
    open_model,
    save_ensemble,
)
from medseg.transforms import NORMALISATIONS, Preparation

CRF = DenseCRF(sigma_position=4, sigma_intensity=1, sigma_smooth=2).to_dict() | {"unit": "px"}


def member(seed: int, *, low: float = 0.0, spacing: tuple[float, ...] | None = None, **changed):
    """A small network of random weights; ``low`` moves what its normalisation takes as zero."""
    torch.manual_seed(seed)
    normalisation = NORMALISATIONS.build(
        "ct", lower=low, upper=low + 255, mean=low + 100, std=50.0 + seed
    )
    preparation = Preparation(
        spatial_dims=2,
        spacing=spacing,
        unit=Unit.PX if spacing is None else Unit.UM,
        normalisation=normalisation,
    )
    settings = {
        "name": "cells",
        "spatial_dims": 2,
        "channels": ("image",),
        "structures": {"background": 0, "cell": 7, "border": 9},
        "network": "unet",
        "network_settings": {"channels": [4, 8]},
        "preparation": preparation.to_dict(),
        "window_voxels": (16, 16),
    }
    spec = ModelSpec(**settings | changed)
    return Model(spec, spec.build_network())


def saved(tmp_path, members):
    folders = {}
    for number, one in enumerate(members, 1):
        folders[f"fold_{number}"] = tmp_path / str(number)
        folders[f"fold_{number}"].mkdir()
        one.save(folders[f"fold_{number}"])
    (tmp_path / "ensemble").mkdir()
    save_ensemble(folders, tmp_path / "ensemble", provenance={"folds": len(folders)})
    return tmp_path / "ensemble"


MEMBERS = {
    "on the image's own voxels": lambda: [member(n, low=n) for n in range(3)],
    "resampled": lambda: [member(n, spacing=(0.7, 0.9)) for n in range(2)],
    "one with a CRF": lambda: [member(0), member(1, crf=CRF)],
    "of one": lambda: [member(0)],
}


@pytest.mark.parametrize("which", MEMBERS)
def test_its_probabilities_are_the_mean_of_its_members_on_the_image_s_grid(which, tmp_path):
    members = MEMBERS[which]()
    grid = Grid((40, 30), (1.0, 1.0), Unit.UM)
    image = np.random.default_rng(0).uniform(0, 255, (1, *grid.shape)).astype(np.float32)
    single = [one.probabilities(image, grid) for one in members]

    ensemble = open_model(saved(tmp_path, members))

    assert isinstance(ensemble, Ensemble)
    assert ensemble.spec.provenance == {"folds": len(members)}
    expected = np.mean(single, axis=0)
    np.testing.assert_allclose(ensemble.probabilities(image, grid), expected, atol=1e-5)
    labels = ensemble.predict(image, grid)
    sure = np.sort(expected, 0)[-1] - np.sort(expected, 0)[-2] > 1e-4
    np.testing.assert_array_equal(labels[sure], ensemble.labels_of(expected)[sure])
    assert set(np.unique(labels)) <= {0, 7, 9}


def test_without_the_crf_it_is_the_mean_without():
    members = [member(0, crf=CRF), member(1, crf=CRF)]
    grid = Grid((20, 20), (1.0, 1.0))
    image = np.random.default_rng(0).uniform(0, 255, (1, 20, 20)).astype(np.float32)
    plain = [one.probabilities(image, grid, crf=False) for one in members]

    found = Ensemble(members, {}).probabilities(image, grid, crf=False)

    np.testing.assert_allclose(found, np.mean(plain, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"structures": {"background": 0, "cell": 7, "rim": 9}},
        {"channels": ("membrane",)},
        {"window_voxels": (32, 32)},
        {"spacing": (1.0, 1.0)},
    ],
)
def test_members_that_differ_in_what_they_take_or_give_make_no_ensemble(other):
    with pytest.raises(ValueError, match="with the same channels, labels, spacing and windows"):
        Ensemble([member(0), member(1, **other)], {})


def test_objects_are_found_with_the_mean_of_the_members_thresholds():
    finders = [
        ObjectFinder(2, "border", {}, Unit.PX).with_thresholds({"core": value})
        for value in (0.3, 0.4, 0.8)
    ]
    members = [
        member(n, objects=finder.to_dict(), structures={"background": 0, "cell": 1})
        for n, finder in enumerate(finders)
    ]
    grid = Grid((40, 30), (1.0, 1.0))
    image = np.random.default_rng(0).uniform(0, 255, (1, *grid.shape)).astype(np.float32)

    ensemble = Ensemble(members, {})

    assert ensemble.finder.thresholds["core"] == pytest.approx(0.5)
    scores = np.mean([one.probabilities(image, grid) for one in members], axis=0)
    np.testing.assert_allclose(ensemble.probabilities(image, grid), scores, atol=1e-5)
    half = finders[0].with_thresholds({"core": 0.5})
    expected = half.find(ensemble.probabilities(image, grid), (1.0, 1.0))
    np.testing.assert_array_equal(ensemble.predict(image, grid), expected)


def test_nobody_is_no_ensemble():
    with pytest.raises(ValueError, match="one or more members"):
        Ensemble([], {})


def test_an_ensemble_that_lacks_a_member_is_not_opened(tmp_path):
    folder = saved(tmp_path, [member(0), member(1)])
    shutil.rmtree(folder / "fold_2")

    with pytest.raises(MedsegError, match=r"fold_2: not a model folder, there is no model\.json"):
        open_model(folder)


@pytest.mark.parametrize("change", [{"format": "medseg-ensemble/9"}, {"members": 3}])
def test_an_ensemble_that_is_not_understood_is_not_opened(change, tmp_path):
    folder = saved(tmp_path, [member(0)])
    stored = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(stored | change))

    with pytest.raises(MedsegError, match="makes no ensemble"):
        open_model(folder)


def test_a_single_model_is_opened_as_itself(tmp_path):
    member(0).save(tmp_path)

    assert type(open_model(tmp_path)) is Model
