"""One short training of each kind, that all tests look at."""

import pytest
from small_studies import Study, make_balls, make_discs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """Work in a folder of the test's own: commands leave files where they are called."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def discs(tmp_path_factory, medseg) -> Study:
    """Discs in 2D, trained once by the command; look, do not touch."""
    root = tmp_path_factory.mktemp("discs")
    job, store = make_discs(root), f"sqlite:///{root / 'mlflow.db'}"
    ran = medseg(
        "train", job, "--runs", root / "runs", "--tracking-uri", store, "--device", "cpu", "--json"
    )
    assert ran.code == 0, ran.errors
    return Study(root, job, store, ran.json)


@pytest.fixture(scope="session")
def balls(tmp_path_factory, medseg) -> Study:
    """Balls in turned volumes with thick slices, trained once; look, do not touch."""
    root = tmp_path_factory.mktemp("balls")
    job, store = make_balls(root), f"sqlite:///{root / 'mlflow.db'}"
    ran = medseg(
        "train", job, "--runs", root / "runs", "--tracking-uri", store, "--device", "cpu", "--json"
    )
    assert ran.code == 0, ran.errors
    return Study(root, job, store, ran.json)
