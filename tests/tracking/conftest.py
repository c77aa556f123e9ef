"""A tracking database that is laid out once, and copied for each test."""

import shutil
from pathlib import Path

import pytest

from medseg.tracking.store import Store, find_store, open_client


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    open_client(find_store(f"sqlite:///{path}"))
    return path


@pytest.fixture
def store(empty_database, tmp_path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return find_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(autouse=True)
def _no_store_of_the_user(monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
