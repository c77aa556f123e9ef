"""What goes through MLflow must come out the same."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Packed
from mlflow.utils.file_utils import local_file_uri_to_path
from random_models import images, make_model

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.inference import Model
from medseg.tracking.registry import log_model, promote, register, resolve, rollback
from medseg.tracking.run import TrackedRun
from medseg.tracking.store import open_client


@pytest.fixture
def slices(tmp_path):
    structures = {"background": 0, "cell": 1, "border": 2}
    return make_model(
        tmp_path / "slices", 2, spacing=(0.5, 0.5), unit=Unit.UM, structures=structures
    )


@pytest.fixture
def volumes(tmp_path):
    structures = {"background": 0, "liver": 7, "tumour": 300}
    return make_model(
        tmp_path / "volumes", 3, spacing=(2.0, 1.0, 1.0), unit=Unit.MM, structures=structures
    )


@pytest.fixture
def run(store, tmp_path):
    with TrackedRun.start(
        tmp_path / "run", experiment="cells", name="a", tracking_uri=store.uri
    ) as begun:
        yield begun


def load(uri, monkeypatch, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return mlflow.pyfunc.load_model(uri)


IN_A_FRESH_PROCESS = """
import sys
import mlflow
import numpy as np

loaded = mlflow.pyfunc.load_model("models:/cells@champion")
np.save(sys.argv[2], loaded.predict(np.load(sys.argv[1])))
"""


def test_the_champion_predicts_in_a_fresh_process_what_the_model_predicts_here(
    store, run, slices, tmp_path
):
    uri = log_model(run, slices, input_example=images(2))
    first = register(uri, "cells", tags={"split": "abc"}, tracking_uri=store.uri)
    promote("cells", first.version, tracking_uri=store.uri)
    np.save(tmp_path / "in.npy", images(2))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, tmp_path / "in.npy", tmp_path / "out.npy"],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": store.uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        },
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    model = Model.load(slices)
    expected = [model.predict(one, Grid((20, 20), (0.5, 0.5), Unit.UM)) for one in images(2)]
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == expected[0].dtype
    assert np.array_equal(found, np.stack(expected))
    assert len(np.unique(found)) > 1


def test_spacing_and_direction_reach_the_model(store, run, volumes, monkeypatch):
    uri = log_model(run, volumes, input_example=images(3, side=6))
    loaded = load(uri, monkeypatch, store)
    model, given = Model.load(volumes), images(3, side=9)
    # Axes z, y, x pointing to the feet, the back and the left.
    turned = ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
    flat = [number for row in turned for number in row]
    fine, own = (1.0, 1.0, 1.0), (2.0, 1.0, 1.0)

    plain = loaded.predict(given)
    respaced = loaded.predict(given, params={"spacing": list(fine)})
    other = loaded.predict(given, params={"direction": flat})

    shape = (9, 9, 9)
    for i, image in enumerate(given):
        np.testing.assert_array_equal(plain[i], model.predict(image, Grid(shape, own, Unit.MM)))
        np.testing.assert_array_equal(respaced[i], model.predict(image, Grid(shape, fine, Unit.MM)))
        np.testing.assert_array_equal(
            other[i], model.predict(image, Grid(shape, own, Unit.MM, direction=turned))
        )
    assert plain.dtype == np.uint16
    assert set(np.unique(plain)) <= {0, 7, 300}
    assert not np.array_equal(plain, other)


CRF = {"sigma_position": 2.0, "sigma_intensity": 0.5, "sigma_smooth": 0.5, "unit": "um"}
CELLS = {"background": 0, "cell": 1}


def test_a_crf_measures_arrays_by_the_pixels_of_the_training_images(
    store, run, tmp_path, monkeypatch
):
    usual = {"spacing": [500.0, 500.0], "unit": "nm"}
    folder = make_model(
        tmp_path / "native", 2, spacing=None, unit=Unit.PX, structures=CELLS, crf=CRF,
        usual_grid=usual,
    )  # fmt: skip
    loaded = load(log_model(run, folder, input_example=images(2)), monkeypatch, store)
    model, given = Model.load(folder), images(2)

    plain = loaded.predict(given)
    fine = loaded.predict(given, params={"spacing": [100.0, 100.0]})

    for found, side in ((plain, 0.5), (fine, 0.1)):
        grid = Grid((20, 20), (side, side), Unit.UM)
        np.testing.assert_array_equal(found, [model.predict(one, grid) for one in given])
    assert not np.array_equal(plain, fine), "a case in which the pixel size matters"


def test_a_crf_in_um_without_any_pixel_size_is_not_logged(store, run, tmp_path):
    folder = make_model(
        tmp_path / "native", 2, spacing=None, unit=Unit.PX, structures=CELLS, crf=CRF
    )

    with pytest.raises(MedsegError, match="its CRF measures in um, but the model does not say"):
        log_model(run, folder, input_example=images(2))


def test_the_signature_says_what_goes_in_and_out(store, run, volumes):
    uri = log_model(run, volumes, input_example=images(3, side=6), metadata={"job": "f00"})
    packed = Packed.load(str(_folder(store, uri)))

    (image,), (labels,) = packed.signature.inputs.inputs, packed.signature.outputs.inputs
    assert (image.type, image.shape) == (np.dtype("float32"), (-1, 2, -1, -1, -1))
    assert (labels.type, labels.shape) == (np.dtype("uint16"), (-1, -1, -1, -1))
    spacing, direction = packed.signature.params.params
    assert (spacing.name, spacing.default) == ("spacing", [2.0, 1.0, 1.0])
    assert (direction.name, direction.default) == ("direction", [])
    assert packed.metadata["job"] == "f00"
    assert packed.metadata["medseg_version"]


def test_a_logged_model_holds_no_pickle_and_its_requirements_are_pinned(store, run, slices):
    uri = log_model(run, slices, input_example=images(2))
    files = {path.name: path for path in _folder(store, uri).rglob("*") if path.is_file()}

    assert {"weights.safetensors", "model.json", "pyfunc_model.py"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pt", ".pth", ".bin"))]
    assert all("==" in line for line in files["requirements.txt"].read_text().split())
    assert not [line for line in files["requirements.txt"].read_text().split() if "+" in line]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 2, 8), np.float32), "does not match expected shape"),
        (np.zeros((1, 3, 8, 8), np.float32), "does not match expected shape"),
        (np.zeros((1, 2, 8, 8), np.int16), "does not match expected dtype"),
    ],
)
def test_mlflow_refuses_what_the_signature_does_not_say(
    store, run, slices, monkeypatch, given, message
):
    loaded = load(log_model(run, slices, input_example=images(2)), monkeypatch, store)

    with pytest.raises(MlflowException, match=message):
        loaded.predict(given)


def test_without_mlflows_check_any_real_type_is_taken_and_wrong_axes_are_named(
    store, run, slices, monkeypatch
):
    loaded = load(log_model(run, slices, input_example=images(2)), monkeypatch, store)
    inner = loaded.unwrap_python_model()
    counts = (images(2) * 1000).astype(np.int16)

    assert np.array_equal(inner.predict(None, counts), loaded.predict(counts.astype(np.float32)))
    with pytest.raises(ValueError, match=r"expected \(batch, channels, y, x\) with 2 channel"):
        inner.predict(None, counts[0])
    with pytest.raises(ValueError, match=r"spacing has 3 number\(s\); expected 2, in um"):
        inner.predict(None, counts, {"spacing": [1.0, 1.0, 1.0]})
    with pytest.raises(ValueError, match=r"direction has 9 number\(s\); expected 4"):
        inner.predict(None, counts, {"direction": np.eye(3).ravel()})


def test_versions_count_up_and_carry_their_tags(store, run, slices):
    uri = log_model(run, slices, input_example=images(2))
    tags = {"split": "abc", "dice": {"cell (left)": 0.91}}
    one = register(uri, "cells", tags=tags, tracking_uri=store.uri)
    two = register(uri, "cells", tracking_uri=store.uri)

    assert (one.uri, two.uri) == ("models:/cells/1", "models:/cells/2")
    found = open_client(store).get_model_version("cells", "1")
    assert found.tags == {"split": "abc", "dice.cell_left": "0.91"}
    assert found.run_id == run.run_id


def test_a_promotion_keeps_the_way_back(store, run, slices):
    uri = log_model(run, slices, input_example=images(2))
    given = {"tracking_uri": store.uri}
    for _ in range(2):
        register(uri, "cells", **given)

    assert promote("cells", 1, **given).previous is None
    assert promote("cells", 2, **given).previous == "1"
    assert promote("cells", 2, **given).previous is None
    assert _aliases(store) == {"champion": "2", "rollback": "1"}

    assert rollback("cells", **given).version == "1"
    assert _aliases(store) == {"champion": "1", "rollback": "2"}


def test_a_promotion_of_what_does_not_exist_changes_nothing(store, run, slices):
    register(log_model(run, slices, input_example=images(2)), "cells", tracking_uri=store.uri)
    promote("cells", 1, tracking_uri=store.uri)

    with pytest.raises(MedsegError, match="models:/cells/9: no such model"):
        promote("cells", 9, tracking_uri=store.uri)
    with pytest.raises(MedsegError, match="none to go back to"):
        rollback("cells", tracking_uri=store.uri)
    assert _aliases(store) == {"champion": "1"}


def test_going_back_with_an_unknown_model_is_one_clear_message(store):
    with pytest.raises(MedsegError, match="models:/cells: no such model"):
        rollback("cells", tracking_uri=store.uri)


def test_an_example_that_does_not_fit_is_refused_and_the_model_marked_as_failed(store, run, slices):
    with pytest.raises(MedsegError, match="does not match the model signature"):
        log_model(run, slices, input_example=images(3, side=6))

    found = open_client(store).search_logged_models([run.experiment_id])
    assert [str(model.status) for model in found] == ["FAILED"]


def test_every_way_of_naming_a_model_leads_to_its_folder(store, run, slices):
    uri = log_model(run, slices, input_example=images(2))
    register(uri, "cells", tracking_uri=store.uri)
    promote("cells", 1, tracking_uri=store.uri)
    ways = ["models:/cells@champion", "models:/cells/1", uri, f"runs:/{run.run_id}/model"]

    for way in [*ways, run.run_id, str(slices), slices]:
        folder = resolve(way, tracking_uri=store.uri)
        for name in ("model.json", "weights.safetensors"):
            assert (folder / name).read_bytes() == (slices / name).read_bytes()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("models:/cells@champion", "no such model"),
        ("models:/cells/1", "no such model"),
        ("models:/cells", r"name a version \(models:/cells/1\)"),
        ("runs:/0123/model", "no such model"),
        ("f" * 32, "no such model"),
        ("nowhere", "not a model folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_message(store, where, message):
    with pytest.raises(MedsegError, match=message):
        resolve(where, tracking_uri=store.uri)


def test_a_pickle_beside_the_weights_is_refused_unopened(store, run, slices, tmp_path):
    marker = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return marker.touch, ()

    (slices / "extra.pkl").write_bytes(pickle.dumps(Trap()))

    with pytest.raises(MedsegError, match=r"extra\.pkl"):
        resolve(slices)
    with pytest.raises(MedsegError, match=r"extra\.pkl"):
        log_model(run, slices, input_example=images(2))
    assert not marker.exists()


def test_a_link_out_of_the_model_folder_is_refused(slices):
    (slices / "notes.txt").symlink_to("/etc/hostname")

    with pytest.raises(MedsegError, match="no links"):
        resolve(slices)


def test_a_run_without_a_server_says_where_the_model_is(slices, tmp_path):
    uri = "http://127.0.0.1:9"
    with (
        TrackedRun.start(tmp_path / "run", experiment="a", name="a", tracking_uri=uri) as away,
        pytest.raises(MedsegError, match="has not answered"),
    ):
        log_model(away, slices, input_example=images(2))


def test_a_name_that_mlflow_refuses_is_refused_first(store):
    with pytest.raises(MedsegError, match="no / and no :"):
        register("models:/m-0", "cells/2d", tracking_uri=store.uri)


def _aliases(store):
    aliases = open_client(store).get_registered_model("cells").aliases
    return {alias: str(version) for alias, version in aliases.items()}


def _folder(store, uri):
    location = open_client(store).get_logged_model(uri.removeprefix("models:/")).artifact_location
    return Path(local_file_uri_to_path(location))
