"""Each real data set goes through new, check and a short train, or is refused with the reason."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from medseg.config import cases_of, read_card
from medseg.data import Case
from medseg.images import read_labels

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

SHORT = (
    *("train.epochs=1", "train.iterations_per_epoch=1", "train.batch=1", "train.validate_every=1"),
    *("network={name: unet, channels: [4, 8]}", "augmentation=light", "predict={}"),
)


@dataclass(frozen=True)
class Told:
    """What the README of a set says of it, and what has to be said to ``medseg new``."""

    folder: str
    said: tuple[str, ...]
    cases: int
    groups: int
    kind: str
    labels: dict[str, int]
    patch: str
    spatial_dims: int = 2


SETS = {
    "nuclei, TIFF": Told(
        "dsb2018_nuclei", ("--labels", "nucleus"), 144, 144, "instance",
        {"background": 0, "nucleus": 1}, "[64,64]",
    ),
    "nuclei, a mask file each": Told(
        "dsb2018_nuclei/kaggle_layout", (), 6, 6, "instance",
        {"background": 0, "object": 1}, "[64,64]",
    ),
    "membranes": Told(
        "isbi2012_em",
        ("--labels", "background=255,membrane=0", "--pixel-size", "4 nm,4 nm"),
        24, 24, "semantic", {"background": 255, "membrane": 0}, "[64,64]",
    ),
    "vessels of 10 children": Told(
        "chase_db1",
        (
            *("--layout", "paired_folders:labels=labels_1stHO", "--groups", r"Image_(\d+)"),
            *("--labels", "background=0,vessel=1"),
        ),
        20, 10, "semantic", {"background": 0, "vessel": 1}, "[64,64]",
    ),
    "lobes": Told(
        "lung_mri_lobes",
        (
            *("--layout", "paired_folders:labels=labels_lobes", "--kind", "semantic"),
            *("--labels", "background=0,a=1,b=2,c=3,d=4,e=5"),
        ),
        4, 4, "semantic", {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
        "[16,16,16]", 3,
    ),
    "hippocampi of pairs": Told(
        "msd_task04_hippocampus",
        (
            *("--kind", "semantic", "--labels", "background=0,anterior=1,posterior=2"),
            *("--groups", r"hippocampus_(\d+)/2"),
        ),
        199, 131, "semantic", {"background": 0, "anterior": 1, "posterior": 2}, "[16,16,16]", 3,
    ),
    "tumours, two cases only": Told(
        "pyradiomics_nrrd", ("--labels", "background=0,tumour=1"), 2, 2, "semantic",
        {"background": 0, "tumour": 1}, "[16,16,16]", 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("told", SETS.values(), ids=SETS)
def test_a_set_as_it_lies_there(told, medseg, data_root, tmp_path, monkeypatch):
    goes_through(told, data_root / told.folder, medseg, tmp_path, monkeypatch)


def test_cells_between_the_membranes_as_objects(medseg, data_root, tmp_path, monkeypatch):
    source, root = data_root / "isbi2012_em", tmp_path / "cells"
    (root / "masks").mkdir(parents=True)
    shutil.copytree(source / "images", root / "images")
    for file in sorted((source / "labels").iterdir()):
        cells = ndimage.label(read_labels(file).array == 255)[0]
        tifffile.imwrite(root / "masks" / f"{file.stem}.tif", cells.astype(np.uint16))
    told = Told(
        "", ("--labels", "cell", "--pixel-size", "4 nm,4 nm"), 24, 24, "instance",
        {"background": 0, "cell": 1}, "[64,64]",
    )  # fmt: skip
    goes_through(told, root, medseg, tmp_path, monkeypatch)


def test_a_stack_of_nuclei_cut_into_blocks(medseg, data_root, tmp_path, monkeypatch):
    source, root = data_root / "stardist_nuclei_fixtures", tmp_path / "blocks"
    for kind, folder in (("images", "images"), ("labels", "masks")):
        (root / folder).mkdir(parents=True)
        stack = tifffile.imread(source / kind / "3d.tif")
        for i in range(2):
            for j in range(2):
                block = stack[:, 30 * i : 30 * (i + 1), 28 * j : 28 * (j + 1)]
                if kind == "labels":  # the cut leaves crumbs of nuclei at its faces
                    block = block * (np.bincount(block.ravel())[block] > 60)
                file = root / folder / f"block{2 * i + j}.tif"
                tifffile.imwrite(
                    file, block.astype(stack.dtype), metadata={"axes": "ZYX"}, imagej=True
                )
    told = Told(
        "", ("--labels", "nucleus", "--pixel-size", "unknown", "--kind", "instance"), 4, 4,
        "instance", {"background": 0, "nucleus": 1}, "[16,16,16]", 3,
    )  # fmt: skip
    goes_through(told, root, medseg, tmp_path, monkeypatch)


def goes_through(told: Told, folder: Path, medseg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = medseg("new", folder, "--name", "set", "--yes", "--memory", 0, *told.said)
    assert made.code == 0, made.errors
    card_file = tmp_path / "set.yaml"
    card = read_card(card_file)
    cases = cases_of(card, card_file, None)
    assert (len(cases), len({case.group for case in cases})) == (told.cases, told.groups)
    assert (card.kind, card.spatial_dims) == (told.kind, told.spatial_dims)
    assert {k: v if isinstance(v, int) else list(v) for k, v in card.labels.items()} == told.labels

    checked = medseg("check", "set.yaml", "--job", "set_job.yaml", "--json")
    assert [one for one in checked.json["findings"] if one["severity"] == "error"] == []

    trained = medseg(
        *("train", "set_job.yaml", *SHORT, f"data.patch_voxels={told.patch}", *few(cases)),
        *("--register", "", "--device", "cpu", "--json"),
    )
    assert trained.code == 0, trained.errors
    assert (Path(trained.json["folder"]) / "model" / "model.json").is_file()


def few(cases: Sequence[Case]) -> list[str]:
    """Return the override that trains on, validates and tests one small case of three groups."""
    small = sorted({case.group: case for case in cases}.values(), key=size_of)
    if len(small) < 3:
        return []
    parts = zip(("train", "validation", "test"), small, strict=False)
    listed = ", ".join(f"{part}: ['{case.name}']" for part, case in parts)
    return [f"data.split={{name: stated, {listed}}}"]


def size_of(case: Case) -> int:
    return case.images[0].stat().st_size


REFUSED = {
    "sct_spinalcord_fixtures": ((), "no layout is recognised in it; it holds"),
    "itksnap_fixtures": ((), "images without a label file: MRIcrop-orig"),
    "stardist_nuclei_fixtures": (
        ("--axes", "ZYX"),
        "2d_512.tif: the file has the axes 512 Y x 512 X, not ZYX",
    ),
    "dicom_seg_fixtures": ((), "23x38x3: holds 2 DICOM image series, not one image multiframe"),
    "ct_gtv_rtstruct": ((), "1 labelled case(s) in 1 group(s) cannot be split"),
}


@pytest.mark.parametrize("folder", REFUSED)
def test_what_cannot_be_learnt_from_is_refused_with_the_reason(folder, medseg, data_root, tmp_path):
    said, reason = REFUSED[folder]
    ran = medseg("new", data_root / folder, "--out", tmp_path, "--yes", "--memory", 0, *said)

    assert ran.code == 1
    assert reason in " ".join(ran.errors.split())
    assert list(tmp_path.iterdir()) == []
