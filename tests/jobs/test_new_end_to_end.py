"""From a folder of images to a card and a job that train unedited, by the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as Picture

ANSWERS = ("--labels", "background=255,disc=0", "--pixel-size", "0.5 um,0.5 um", "--memory", "0")


@pytest.fixture
def folder(discs, tmp_path):
    """Images and labels alone, without a card."""
    for name in ("images", "labels"):
        shutil.copytree(discs.root / name, tmp_path / "discs" / name)
    return tmp_path / "discs"


def test_a_folder_becomes_a_card_and_a_job_that_trains(folder, medseg, tmp_path):
    ran = medseg("new", folder, *ANSWERS, "--out", tmp_path / "out", "--yes", "--json")
    assert ran.code == 0, ran.errors
    card, job = ran.json["card"], ran.json["job"]

    described = yaml.safe_load(Path(card).read_text())
    assert described["labels"] == {"background": 255, "disc": 0}
    assert described["layout"]["name"] == "paired_folders"
    text = Path(job).read_text()
    reasons = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert len(reasons) >= 8
    assert medseg("check", card).code == 0

    short = ("train.epochs=1", "train.iterations_per_epoch=2")
    store = f"sqlite:///{tmp_path / 'm.db'}"
    where = ("--runs", tmp_path / "runs", "--tracking-uri", store, "--device", "cpu", "--json")
    trained = medseg("train", job, *short, *where)
    assert trained.code == 0, trained.errors
    assert trained.json["registered"]


def test_what_no_file_says_is_asked_and_never_guessed(folder, medseg, tmp_path):
    out = ("--out", tmp_path / "out")
    for known, flag in (
        ((), "--pixel-size"),
        (("--pixel-size", "unknown"), "--labels"),
        (("--yes",), "--labels"),  # what labels mean is never proposed
    ):
        ran = medseg("new", folder, *known, *out)
        assert ran.code == 1
        assert f"say it: {flag}" in ran.errors
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(folder, medseg, tmp_path):
    words = ("new", folder, *ANSWERS, "--out", tmp_path / "out", "--yes")
    assert medseg(*words).code == 0
    before = {file: file.read_text() for file in (tmp_path / "out").iterdir()}
    again = medseg(*words)

    assert again.code == 1
    assert {file: file.read_text() for file in (tmp_path / "out").iterdir()} == before


def test_one_mask_a_nucleus_as_in_the_data_science_bowl(medseg, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        image = rng.integers(0, 60, (48, 48), dtype=np.uint8)
        for nucleus in range(3):
            mask = np.zeros((48, 48), np.uint8)
            mask[4 + 14 * nucleus : 14 + 14 * nucleus, 8:30] = 255
            image[mask > 0] = 200
            file = tmp_path / "dsb" / f"a{number}" / "masks" / f"m{nucleus}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Picture.fromarray(mask).save(file)
        (tmp_path / "dsb" / f"a{number}" / "images").mkdir()
        Picture.fromarray(image).save(tmp_path / "dsb" / f"a{number}" / "images" / f"a{number}.png")
    ran = medseg(
        "new", tmp_path / "dsb", "--pixel-size", "unknown", "--memory", "0", "--labels", "nucleus",
        "--out", tmp_path / "out", "--yes", "--json",
    )  # fmt: skip

    assert ran.code == 0, ran.errors
    card = yaml.safe_load(Path(ran.json["card"]).read_text())
    assert card["kind"] == "instance"
    assert card["labels"] == {"background": 0, "nucleus": 1}
    assert medseg("check", ran.json["card"]).code == 0
