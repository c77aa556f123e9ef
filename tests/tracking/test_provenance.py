import shutil
import subprocess

import pytest

from medseg.tracking.provenance import environment, git_state, pinned_requirements


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_a_commit_and_no_diff(checkout):
    state = git_state(checkout)

    assert len(state["commit"]) == 40
    assert state["dirty"] == "false"
    assert "diff_sha256" not in state


def test_another_change_is_another_diff(checkout):
    (checkout / "code.py").write_text("a = 2\n")
    two = git_state(checkout)
    (checkout / "code.py").write_text("a = 3\n")
    three = git_state(checkout)

    assert two["dirty"] == three["dirty"] == "true"
    assert two["commit"] == three["commit"]
    assert two["diff_sha256"] != three["diff_sha256"]


def test_a_folder_outside_of_a_checkout_has_no_state(tmp_path):
    assert git_state(tmp_path) == {}


def test_without_git_there_is_no_state(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert git_state(checkout) == {}


def test_the_environment_names_what_decides_a_result():
    assert {"python", "platform", "medseg", "torch", "monai", "mlflow"} <= set(environment())


def test_requirements_are_pinned_to_versions_that_an_index_has():
    pinned = pinned_requirements()

    assert any(line.startswith("torch==") for line in pinned)
    assert all("==" in line and "+" not in line for line in pinned)
    assert not any(line.startswith(("medseg", "pytest")) for line in pinned)
