"""The command: help at once, one message for a mistake, exit codes."""

import subprocess
import sys
import time

import pytest
import typer

from medseg.cli import parse_duration, parse_lengths
from medseg.geometry import Length, Unit

COMMANDS = ("demo", "check", "train", "predict", "evaluate", "compare", "promote")


def test_help_needs_none_of_the_heavy_libraries():
    code = (
        "import sys, medseg.cli\n"
        "heavy = {'torch', 'monai', 'mlflow', 'pytorch_lightning', 'pandas', 'matplotlib', "
        "'skimage', 'scipy', 'nibabel', 'SimpleITK'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def test_help_answers_at_once():
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "medseg.cli", "--help"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - began)

    assert min(times) < 2, "under a second on a quiet machine"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(medseg, command):
    ran = medseg(command, "--help")

    assert ran.code == 0
    assert "Usage: medseg" in ran.output


def test_the_version_is_told(medseg):
    assert medseg("--version").output.startswith("medseg 0.")


@pytest.mark.parametrize(
    "words",
    [
        ("trian",),
        ("train",),
        ("train", "job.yaml", "--nosuch"),
        ("train", "job.yaml", "--device", "tpu"),
        ("train", "job.yaml", "--precision", "fp8"),
        ("train", "job.yaml", "--time-budget", "soon"),
        ("train", "job.yaml", "--time-budget", ""),
        ("predict", "model", "a.png", "-o", "out", "--pixel-size", "0.5"),
        ("evaluate", "masks"),
    ],
)
def test_a_command_written_wrongly_ends_with_2(medseg, words):
    ran = medseg(*words)

    assert ran.code == 2
    assert "Traceback" not in ran.errors


def test_a_mistake_in_a_file_is_one_message_without_a_traceback_and_ends_with_1(medseg, tmp_path):
    (tmp_path / "job.yaml").write_text("network: [")

    missing, broken = medseg("train", tmp_path / "no.yaml"), medseg("train", tmp_path / "job.yaml")

    assert missing.code == broken.code == 1
    assert missing.errors.strip() == f"error: {tmp_path / 'no.yaml'}: there is no such file"
    assert broken.errors.startswith(f"error: {tmp_path / 'job.yaml'}: not readable as YAML")
    assert "Traceback" not in broken.errors


def test_an_output_folder_that_is_a_file_is_one_message(medseg, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    from PIL import Image as Picture

    for folder in ("images", "labels"):
        Picture.new("L", (8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "card.yaml").write_text(
        "name: a\nlayout: paired_folders\nspatial_dims: 2\nlabels: {background: 0, cell: 1}\n"
    )
    (tmp_path / "out").write_text("a file")

    ran = medseg(
        "evaluate", tmp_path / "labels", "--card", tmp_path / "card.yaml", "-o", tmp_path / "out"
    )

    assert ran.code == 1
    assert ran.errors.strip() == f"error: {tmp_path / 'out'}: File exists"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("1.5h", 5400), ("1h1m1s", 3661), (" 5m ", 300)],
)
def test_a_duration_is_hours_minutes_and_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "1..5h", "5m1h", "-5m", "0m", "soon"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(typer.BadParameter, match="write 90s, 20m or 1h30m"):
        parse_duration(text)


def test_a_clock_without_a_budget_is_refused(medseg, tmp_path):
    ran = medseg("train", tmp_path / "job.yaml", "--budget-clock", "cpu")
    assert ran.code == 2
    assert "it counts a --time-budget" in ran.errors


def test_pixel_sizes_are_lengths_in_a_row():
    assert parse_lengths("0.25 um, 0.5 um") == [Length(0.25, Unit.UM), Length(0.5, Unit.UM)]
