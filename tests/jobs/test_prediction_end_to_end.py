"""Labels for images, from whatever names the model."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.images import read_image, read_labels


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {file.stem: np.array(Picture.open(file)) for file in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def champion(discs, medseg) -> str:
    ran = medseg("promote", discs.folder, "--tracking-uri", discs.store, "--json")
    assert ran.code == 0, ran.errors
    assert ran.json == {"name": "discs", "version": "1", "alias": "champion", "previous": None}
    return "models:/discs@champion"


@pytest.fixture
def predict(discs, medseg, tmp_path):
    """Predict with a model; return what the command did and the label maps."""

    def run(model, *words, inputs=(discs.root / "images",)):
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)
        ran = medseg(
            "predict", model, *inputs, "-o", output, "--tracking-uri", discs.store, "--json", *words
        )
        return ran, arrays(output) if output.exists() else {}

    return run


def test_one_model_predicts_the_same_by_whatever_name(discs, predict, champion):
    names = (
        discs.folder / "model",
        discs.folder,
        discs.trained["mlflow_run"],
        "models:/discs/1",
        champion,
    )
    ran, first = predict(names[0])

    assert ran.code == 0, ran.errors
    assert len(ran.json["written"]) == len(first) == 6
    assert {value for array in first.values() for value in np.unique(array)} == {0, 255}
    for name in names[1:]:
        for case, labels in predict(name)[1].items():
            np.testing.assert_array_equal(labels, first[case])


@pytest.mark.slow
def test_the_champion_predicts_the_same_in_a_fresh_process_that_knows_mlflow_only(
    discs, predict, champion, tmp_path
):
    _, ours = predict(champion)
    images = np.stack(list(arrays(discs.root / "images").values()))[:, None].astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, mlflow, numpy as np\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        f"model = mlflow.pyfunc.load_model({champion!r})\n"
        "np.save(sys.argv[3], model.predict(np.load(sys.argv[2])))\n"
    )

    subprocess.run(
        [sys.executable, "-c", code, discs.store, tmp_path / "images.npy", tmp_path / "theirs.npy"],
        check=True,
        cwd=tmp_path,
    )

    np.testing.assert_array_equal(np.load(tmp_path / "theirs.npy"), np.stack(list(ours.values())))


def test_a_broken_image_is_left_out_and_said_so_and_the_others_go_on(discs, predict, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(discs.root / "images", images)
    (images / "disc_2.png").write_bytes(b"this is no picture")

    ran, labels = predict(discs.folder, inputs=(images,))

    assert ran.code == 1
    assert list(ran.json["failed"]) == ["disc_2"]
    assert "left out: " in ran.errors
    assert "disc_2.png" in ran.errors.replace("\n", "")
    assert len(labels) == 5


def test_strict_stops_at_the_first_broken_image(discs, predict, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(discs.root / "images", images)
    (images / "disc_2.png").write_bytes(b"this is no picture")

    ran, labels = predict(discs.folder, "--strict", inputs=(images,))

    assert ran.code == 1
    assert len(labels) == 2


def test_an_image_of_other_channels_is_told_apart(discs, predict, tmp_path):
    Picture.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "colour.png")

    ran, _ = predict(discs.folder, inputs=(tmp_path / "colour.png",))

    assert ran.code == 1
    assert "3 channel(s)" in ran.json["failed"]["colour"]


def test_probabilities_are_written_beside_the_labels(discs, predict, tmp_path):
    ran, labels = predict(discs.folder, "--probabilities", "--mirror")

    assert ran.code == 0, ran.errors
    found = tmp_path / "out" / "probabilities"
    disc, background = (
        read_image(found / f"disc_0_{name}.tif").array for name in ("disc", "background")
    )
    np.testing.assert_allclose(disc + background, 1, atol=1e-5)
    np.testing.assert_array_equal(labels["disc_0"] == 0, disc > background)


def test_an_image_is_never_replaced_by_its_labels(discs, medseg, tmp_path):
    shutil.copytree(discs.root / "images", tmp_path / "images")
    before = (tmp_path / "images" / "disc_0.png").read_bytes()

    ran = medseg("predict", discs.folder, tmp_path / "images", "-o", tmp_path / "images")

    assert ran.code == 1
    assert "the label map would replace the image" in ran.errors
    assert (tmp_path / "images" / "disc_0.png").read_bytes() == before


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["none.png"], "there is no such file or folder"),
        (["empty"], "no image in it that medseg can read"),
        (["a/disc.png", "b/disc.png"], "two inputs would both be written as disc"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(discs, predict, tmp_path, inputs, message):
    (tmp_path / "empty").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(discs.root / "images" / "disc_0.png", tmp_path / folder / "disc.png")

    ran, _ = predict(discs.folder, inputs=[tmp_path / name for name in inputs])

    assert ran.code == 1
    assert message in ran.errors


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "not a model folder"),
        ("models:/discs@nobody", "no such model"),
        ("models:/discs/99", "no such model"),
        ("0" * 32, "no such model"),
    ],
)
def test_a_model_that_is_not_there_is_one_message(predict, model, message):
    ran, _ = predict(model)

    assert ran.code == 1
    assert message in ran.errors
    assert "Traceback" not in ran.errors


def test_pixel_sizes_may_be_given_in_different_units(discs, predict):
    assert predict(discs.folder, "--pixel-size", "0.5 um,500 nm")[0].code == 0
    mixed = predict(discs.folder, "--pixel-size", "0.5 um,1 px")[0]
    assert mixed.code == 1
    assert "--pixel-size: 1 px cannot be expressed in um" in mixed.errors


def test_a_version_that_is_promoted_keeps_the_one_before_for_the_way_back(discs, medseg, champion):
    store = ("--tracking-uri", discs.store)

    again = medseg("promote", "models:/discs/1", *store, "--json")
    missing = medseg("promote", "models:/discs/99", *store)
    unknown = medseg("promote", discs.trained["mlflow_run"], "--name", "liver", *store)
    nowhere = medseg("promote", discs.root, *store)

    assert (again.code, again.json["previous"]) == (0, None)
    assert missing.code == unknown.code == nowhere.code == 1
    assert "no such model" in missing.errors
    assert "registered under none named liver" in unknown.errors
    assert "no finished run" in nowhere.errors


@pytest.mark.slow
def test_a_volume_is_labelled_on_its_own_grid(balls, medseg, tmp_path):
    ran = medseg(
        "predict", balls.folder, balls.root / "images" / "ball_0.nii.gz", "-o", tmp_path, "--json"
    )

    assert ran.code == 0, ran.errors
    labels = read_labels(tmp_path / "ball_0.nii.gz")
    drawn = read_labels(balls.root / "labels" / "ball_0.nii.gz")
    assert labels.grid.matches(drawn.grid)
    both = (labels.array == 1) & (drawn.array == 1)
    assert 2 * both.sum() / ((labels.array == 1).sum() + drawn.array.sum()) > 0.5
