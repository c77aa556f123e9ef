"""Write the cases of a job as the other tools want them; runs in medseg's environment.

    python benchmarks/peers/export.py configs/train/hippocampus_dynunet_3d.yaml nnunet DATA
    python benchmarks/peers/export.py configs/train/dsb2018_nuclei_2d.yaml folders DATA

``nnunet`` writes ``nnUNet_raw/Dataset001_NAME`` with ``splits_final.json`` beside it; ``folders``
writes ``train``, ``validation`` and ``test``, each with ``images`` and ``labels`` as TIFF. The test
labels are not written: nobody can learn from them. ``cases.json`` says what the cases are called.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg.config import Card, cases_of, read_job
from medseg.data import Case, Split
from medseg.images import Image, write_image, write_labels
from medseg.jobs.parts import split_of

PARTS = ("train", "validation", "test")


def export(job_file: Path, layout: str, data: Path, *, data_root: Path | None = None) -> None:
    """Write the cases of a job's split.

    Args:
        job_file: The job; its split is taken as it resolves it.
        layout: ``nnunet`` or ``folders``.
        data: Folder that is made.
        data_root: Folder below which the card's root lies.

    Raises:
        MedsegError: The job, the card or a file is wrong.
        FileExistsError: The folder is there already.
    """
    job, card, card_file = read_job(job_file)
    split = split_of(job, card, cases_of(card, card_file, data_root), job_file)
    data.mkdir(parents=True)
    {"nnunet": _nnunet, "folders": _folders}[layout](card, split, data)
    facts = {
        "data_set": card.name,
        "spatial_dims": card.spatial_dims,
        "split": split.names,
        "split_hash": split.hash,
        "file_values": list(card.label_map().written.values()),
    }
    (data / "cases.json").write_text(json.dumps(facts, indent=2) + "\n")


def _nnunet(card: Card, split: Split, data: Path) -> None:
    """Write classes as 0, 1, ..., and one file a channel, as nnU-Net asks for.

    Volumes are NIfTI files, which keep their spacing and orientation; 2D images are PNG files,
    which nnU-Net reads as such.
    """
    reading, labels = card.reading(), card.label_map()
    suffix = ".nii.gz" if card.spatial_dims == 3 else ".png"
    folder = data / "nnUNet_raw" / f"Dataset001_{card.name}"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for part in PARTS:
        images = folder / ("imagesTs" if part == "test" else "imagesTr")
        for case in getattr(split, part):
            image, reference = reading.pair(case)
            for number, channel in enumerate(image.channels_first):
                file = images / f"{case.name}_{number:04d}{suffix}"
                write_image(file, Image(channel, image.grid, image.axes.removeprefix("C")))
            if part != "test":
                classes = labels.classes(reference.array, case.name)
                write_labels(folder / "labelsTr" / f"{case.name}{suffix}", classes, image.grid)
    described = {
        "channel_names": {str(number): name for number, name in enumerate(card.channels)},
        "labels": {name: number for number, name in enumerate(labels.names)},
        "numTraining": len(split.train) + len(split.validation),
        "file_ending": suffix,
    }
    (folder / "dataset.json").write_text(json.dumps(described, indent=2) + "\n")
    folds = [{"train": split.names["train"], "val": split.names["validation"]}]
    (data / "splits_final.json").write_text(json.dumps(folds, indent=2) + "\n")


def _folders(card: Card, split: Split, data: Path) -> None:
    """Write images with the channels last, and label images as they are."""
    reading = card.reading()
    for part in PARTS:
        for case in getattr(split, part):
            image, reference = reading.pair(case)
            array = np.moveaxis(image.channels_first, 0, -1)
            _tiff(data / part / "images", case, array[..., 0] if array.shape[-1] == 1 else array)
            if part != "test":
                _tiff(data / part / "labels", case, reference.array.astype(np.uint16))


def _tiff(folder: Path, case: Case, array: NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    colours = array.ndim == 3 and array.shape[-1] == 3
    file = folder / f"{case.name}.tif"
    tifffile.imwrite(file, array, photometric="rgb" if colours else "minisblack")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("layout", choices=("nnunet", "folders"))
    parser.add_argument("data", type=Path, help="folder that is made")
    parser.add_argument("--data-root", type=Path)
    given = parser.parse_args()
    export(given.job, given.layout, given.data, data_root=given.data_root)


if __name__ == "__main__":
    main()
