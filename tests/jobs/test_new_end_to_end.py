"""From a folder of images to a card and a job that train unedited, by the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as Picture
from rich.console import Console

from medseg.config import cases_of, read_card, read_job
from medseg.data import SPLITS
from medseg.jobs.new import new
from medseg.jobs.questions import Answers, Interview

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
    short = ("train.epochs=1", "train.iterations_per_epoch=1", "train.batch=2")
    where = ("--runs", tmp_path / "runs", "--tracking-uri", f"sqlite:///{tmp_path / 'm.db'}")
    trained = medseg("train", ran.json["job"], *short, *where, "--device", "cpu", "--json")
    assert trained.code == 0, trained.errors


def test_a_plan_is_a_job_for_a_card_that_is_there(folder, medseg, tmp_path):
    assert medseg("new", folder, *ANSWERS, "--out", tmp_path / "out").code == 0
    card, job = tmp_path / "out" / "discs.yaml", tmp_path / "out" / "jobs" / "msd.yaml"

    ran = medseg("plan", card, "--network", "msd", "--memory", "0", "--out", job, "--json")
    assert ran.code == 0, ran.errors
    planned, planned_card, _ = read_job(job)
    assert planned.network.name == "msd"
    assert planned_card.name == "discs"
    values = {one["path"]: one["value"] for one in ran.json["choices"]}
    assert values["train.batch"] == planned.train.batch

    wrong = medseg("plan", card, "--network", "unett", "--out", tmp_path / "x.yaml")
    assert wrong.code == 1
    assert 'did you mean "unet"' in wrong.errors
    assert not (tmp_path / "x.yaml").exists()


def test_a_person_is_asked_what_no_file_says(folder, tmp_path):
    asked = []

    def ask(question):
        asked.append(question)
        return {"--labels": "background=255, disc=0", "--pixel-size": "0.5 um, 0.5 um"}[
            question.option
        ]

    console = Console(stderr=True)
    made = new(
        folder, Interview(Answers(), ask), out=tmp_path / "out", memory_gb=0, console=console
    )
    assert [question.option for question in asked] == ["--pixel-size", "--labels"]
    assert asked[0].proposal == "unknown"
    assert asked[1].proposal is None
    card = read_card(made.card_file)
    assert card.labels == {"background": 255, "disc": 0}
    assert [str(length) for length in card.pixel_size] == ["0.5 um", "0.5 um"]


def test_two_observers_are_two_layouts_and_one_is_chosen_by_a_setting(folder, medseg, tmp_path):
    shutil.copytree(folder / "labels", folder / "labels_of_ben")
    words = ("new", folder, *ANSWERS, "--out", tmp_path / "out")

    ran = medseg(*words)
    assert ran.code == 1
    assert "several layouts fit" in ran.errors
    assert "labels=labels_of_ben" in ran.errors
    chosen = medseg(*words, "--layout", "paired_folders:labels=labels_of_ben", "--json")
    assert chosen.code == 0, chosen.errors
    assert read_card(Path(chosen.json["card"])).layout.settings["labels"] == "labels_of_ben"


def test_ready_made_parts_stay_parts(folder, medseg, tmp_path):
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        part = ("train", "val", "test")[min(number // 2, 2)]
        for kind, there in (("images", "images"), ("labels", "masks")):
            (tmp_path / "parts" / part / there).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / kind / file.name, tmp_path / "parts" / part / there)
    ran = medseg("new", tmp_path / "parts", *ANSWERS, "--out", tmp_path / "out", "--json")

    assert ran.code == 0, ran.errors
    card_file = Path(ran.json["card"])
    card = read_card(card_file)
    split = SPLITS.build(card.split.name, cases_of(card, card_file, None), **card.split.settings)
    assert {name.split("_")[0] for name in split.names["test"]} == {"test"}
    assert {name.split("_")[0] for name in split.names["validation"]} == {"val"}
    assert len(split.names["train"]) == 2


def test_one_case_cannot_be_split(folder, medseg, tmp_path):
    for file in sorted(folder.glob("*/*"))[:]:
        if file.stem != "disc_0":
            file.unlink()
    ran = medseg("new", folder, *ANSWERS, "--out", tmp_path / "out")

    assert ran.code == 1
    assert "cannot be split" in ran.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "disc"), "--labels disc: write name=value"),
        (("--pixel-size", "0.5,0.5"), "--pixel-size 0.5,0.5"),
        (("--pixel-size", "0.5 um"), "a pixel size of 1 numbers"),
        (("--channels", "red,green"), "the images have 1 channel(s), 2 are named"),
        (("--groups", "nothing"), "--groups"),
        (("--kind", "panoptic"), "--kind panoptic"),
        (("--layout", "cellpos"), 'did you mean "cellpose"'),
    ],
)
def test_a_slip_is_told_with_its_option(folder, medseg, tmp_path, words, message):
    given = dict(zip(ANSWERS[::2], ANSWERS[1::2], strict=True))
    given |= dict([words])
    if "--kind" in given:
        del given["--labels"]
    ran = medseg("new", folder, *(w for pair in given.items() for w in pair), "--out", tmp_path)

    assert ran.code == 1
    assert message in ran.errors
    assert list(tmp_path.glob("*.yaml")) == []
