"""The whole way once, on images that medseg makes: check, train, evaluate, register, predict."""

from pathlib import Path

from rich.console import Console

from medseg.data.demo import make_cells, make_organs
from medseg.errors import MedsegError
from medseg.jobs.check import check
from medseg.jobs.predict import predict
from medseg.jobs.promote import promote
from medseg.jobs.setup import read_setup
from medseg.jobs.show import show_check, show_predicted, show_promoted, show_trained
from medseg.jobs.train import train

# Eight dishes or persons each: three of them to test, so that there is an interval to show.
IMAGES = {"cells": 32, "organs": 16}

CELLS_CARD = """\
# Touching, textured cells under uneven light, made by `medseg demo`: the borders are known.
name: demo_cells
description: Made images of touching cells
licence: CC0-1.0
layout: {name: paired_folders, images: images, labels: labels}
spatial_dims: 2
channels: [cytoplasm]
labels: {background: 0, cell: 1, border: 2}   # border: the rim between touching cells
groups: {pattern: '(dish[A-Z]+)'}             # images of one dish look alike
split: {name: group, test: 0.375, validation: 0.125, seed: 1}
"""

CELLS_JOB = """\
# U-Net on the made cells: two minutes on two cores.
data:
  dataset: cells.yaml
  patch_voxels: [96, 96]
  normalisation: percentile
network: {name: unet, channels: [16, 32, 64]}
augmentation: {name: light, elastic: 0.2}
train: {batch: 4, learning_rate: 3.0e-3, seed: 7}
predict: {window_voxels: [192, 192]}
metrics: [dice, iou, hd95, assd, {name: nsd, tolerance: 0.5 um}]
"""

ORGANS_CARD = """\
# Two touching organs in volumes of different contrast, made by `medseg demo --organs`.
name: demo_organs
description: Made volumes of two touching organs
licence: CC0-1.0
layout: {name: paired_folders, images: images, labels: labels}
spatial_dims: 3
channels: [T1]
labels: {background: 0, core: 1, cap: 2}
groups: {pattern: '(person\\d+)'}             # two scans of one person look alike
split: {name: group, test: 0.375, validation: 0.125, seed: 1}
"""

ORGANS_JOB = """\
# U-Net 3D on the made organs: two minutes on two cores.
data:
  dataset: organs.yaml
  spacing: [1 mm, 1 mm, 1.5 mm]
  patch_voxels: [40, 40, 32]
network: {name: unet, channels: [16, 32, 64]}
augmentation: light
train: {batch: 2, learning_rate: 3.0e-3, seed: 7}
metrics: [dice, iou, hd95, assd, {name: nsd, tolerance: 1 mm}]
"""


def demo(
    folder: Path, *, organs: bool, minutes: float, tracking_uri: str | None, console: Console
) -> None:
    """Run the demo.

    Args:
        folder: A new folder for images, card, job and results.
        organs: 3D organs as NIfTI instead of 2D cells as OME-TIFF.
        minutes: Time for training.
        tracking_uri: The MLflow store; one inside of the folder if None.
        console: Where everything is shown.

    Raises:
        MedsegError: The folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise MedsegError(f"{folder}: is not empty; name another folder for the demo")
    name, make, card_text, job_text = (
        ("organs", make_organs, ORGANS_CARD, ORGANS_JOB)
        if organs
        else ("cells", make_cells, CELLS_CARD, CELLS_JOB)
    )
    store = tracking_uri or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    console.rule("1. images with known borders")
    make(folder, images=IMAGES[name])
    card, job = folder / f"{name}.yaml", folder / f"{name}_job.yaml"
    card.write_text(card_text)
    job.write_text(job_text)
    console.print(f"images, labels, card {card} and job {job}", highlight=False)

    console.rule("2. check")
    checked = check(card, report=folder / "check.html", console=console)
    show_check(checked, console)

    console.rule("3. train, evaluate, register")
    setup = read_setup(
        job,
        runs=folder / "runs",
        time_budget=60 * minutes,
        tracking_uri=store,
        console=console,
    )
    trained = train(setup)
    show_trained(trained, console)

    model = str(trained.folder)
    if trained.registered:
        console.rule("4. promote")
        promoted = promote(model, name=None, alias="champion", tracking_uri=store)
        show_promoted(promoted, console)
        model = f"models:/{promoted.name}@champion"

    console.rule("5. predict with the registered model")
    output = folder / "predicted"
    predicted = predict(model, [folder / "images"], output, tracking_uri=store, console=console)
    show_predicted(predicted, output, console)

    console.rule("Look at it")
    console.print(
        f"the report, worst cases first    open {trained.evaluated.report}\n"
        f"runs, curves and the model       mlflow ui --backend-store-uri {store}\n"
        f"label your own images            medseg predict {model} IMAGES -o OUT "
        f"--tracking-uri {store}\n"
        f"train on your own                copy {card} and {job}, name your folder, and run "
        f"medseg train",
        highlight=False,
        soft_wrap=True,
    )
