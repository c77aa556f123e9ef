"""Small data sets of each kind, made on the spot, and what a training of one leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from medseg.geometry import Grid, Unit
from medseg.images import Image, write_image, write_labels

CARD = """\
name: discs
licence: CC0-1.0
citation: made here
layout: paired_folders
spatial_dims: 2
pixel_size: [0.5 um, 0.5 um]
labels: {background: 255, disc: 0}
"""
JOB = """\
data: {dataset: discs.yaml, patch_voxels: [32, 32]}
network: {name: unet, channels: [4, 8]}
augmentation: light
train: {epochs: 3, iterations_per_epoch: 12, validate_every: 2, learning_rate: 1e-2, ema: 0.9}
predict: {window_voxels: [48, 48]}
metrics: [dice, hd95, {name: nsd, tolerance: 1 um}]
"""


def disc(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image of a bright disc or ball and where it is."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    centre = [rng.uniform(0.4, 0.6) * side for side in shape]
    inside = np.linalg.norm(places - centre, axis=-1) < 0.25 * min(shape)
    image = 60 + 90 * inside + rng.normal(0, 20, shape)
    return image.clip(0, 255).astype(np.uint8), inside


def make_discs(folder: Path, count: int = 6) -> Path:
    """Write PNG images and masks, card and job; return the job."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, inside = disc(rng, (64, 64))
        Picture.fromarray(image).save(folder / "images" / f"disc_{number}.png")
        mask = np.where(inside, 0, 255).astype(np.uint8)
        Picture.fromarray(mask).save(folder / "labels" / f"disc_{number}.png")
    (folder / "discs.yaml").write_text(CARD)
    (folder / "job.yaml").write_text(JOB)
    return folder / "job.yaml"


def make_balls(folder: Path) -> Path:
    """Write turned NIfTI volumes with thick slices, card and job; return the job."""
    rng = np.random.default_rng(1)
    # Array axes z, y, x point to the feet, the front and the left.
    direction = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
    for number in range(5):
        image, inside = disc(rng, (16, 30, 28 + number))
        grid = Grid(image.shape, (2.0, 1.0, 1.0), Unit.MM, (5.0, -7.0, 11.0), direction)
        volume = Image(image, grid, "ZYX")
        for name in ("images", "labels"):
            (folder / name).mkdir(exist_ok=True)
        write_image(folder / "images" / f"ball_{number}.nii.gz", volume)
        write_labels(folder / "labels" / f"ball_{number}.nii.gz", inside.astype(np.uint8), volume)
    card = "name: balls\nlayout: paired_folders\nspatial_dims: 3\nchannels: [T1]\n"
    (folder / "balls.yaml").write_text(card + "labels: {background: 0, ball: 1}\n")
    (folder / "job.yaml").write_text(
        "data:\n  dataset: balls.yaml\n  patch_voxels: [16, 16, 16]\n"
        "  spacing: [1.5 mm, 1.5 mm, 1.5 mm]\n"
        "network: {name: unet, channels: [4, 8]}\n"
        "augmentation: light\n"
        "train: {epochs: 2, iterations_per_epoch: 15, learning_rate: 1e-2, ema: 0.9}\n"
        "metrics: [dice, hd95]\n"
    )
    return folder / "job.yaml"


@dataclass(frozen=True)
class Study:
    """A data set with one finished training."""

    root: Path
    job: Path
    store: str
    trained: Any

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.trained["folder"])


def runs_of(store: str) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])
