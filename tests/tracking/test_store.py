import os
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.tracking.store import find_experiment, find_store, open_client, patience


def test_without_a_word_the_store_is_a_database_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = find_store()

    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.artifacts == tmp_path / "mlartifacts"


def test_the_argument_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://one:5000")

    assert find_store().uri == "http://one:5000"
    assert find_store("http://two:5000/").uri == "http://two:5000"


@pytest.mark.parametrize("uri", ["mlruns", "file:./mlruns", "ftp://host", "sqlite://"])
def test_an_address_that_mlflow_cannot_use_is_refused(uri):
    with pytest.raises(MedsegError, match="is no tracking store"):
        find_store(uri)


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("bought 24 slices")

    with pytest.raises(MedsegError, match="not a SQLite database"):
        find_store(f"sqlite:///{file}")


def test_a_password_is_not_shown():
    assert find_store("http://anna:secret@host:5000").shown == "http://host:5000"


def test_artifacts_lie_beside_the_database_wherever_the_command_is_called(
    store, tmp_path, monkeypatch
):
    client = open_client(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    experiment = client.get_experiment(find_experiment(client, store, "cells: day 1"))

    assert experiment.artifact_location == (tmp_path / "mlartifacts/cells_day_1").as_uri()


def test_an_experiment_is_made_once(store):
    client = open_client(store)

    assert find_experiment(client, store, "cells") == find_experiment(client, store, "cells")


def test_a_deleted_experiment_is_named_with_the_remedy(store):
    client = open_client(store)
    client.delete_experiment(find_experiment(client, store, "cells"))

    with pytest.raises(MedsegError, match="mlflow experiments restore"):
        find_experiment(client, store, "cells")


def test_patience_ends_where_it_began_and_leaves_what_the_user_has_set(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    with patience(7):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"

    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_importing_the_room_imports_neither_mlflow_nor_torch():
    code = "import sys, medseg.tracking; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


def test_only_this_room_imports_mlflow():
    room = Path(find_store.__code__.co_filename).parent
    importing = [
        path
        for path in room.parent.rglob("*.py")
        if path.parent != room and "import mlflow" in path.read_text(encoding="utf-8")
    ]

    assert importing == []
