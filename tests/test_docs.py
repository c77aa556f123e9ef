"""The manual: its Python runs, its commands are ones that medseg has."""

import re
import shlex
from pathlib import Path

import mlflow
import numpy as np
import pytest
import typer

from medseg.cli import app
from medseg.geometry import Unit
from medseg.inference import Model, ModelSpec
from medseg.tracking import TrackedRun, log_model, promote, register
from medseg.transforms import NORMALISATIONS, Preparation

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, block) for page in PAGES for block in fence.findall(page.read_text())]


def commands() -> list[tuple[str, str]]:
    found = []
    for page, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("#")[0].strip().removeprefix(".venv/bin/")
            if command.startswith("medseg "):
                found.append((page, command))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_of_the_manual_has_the_options_that_medseg_has(page, command):
    name, *arguments = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    subcommand = group.get_command(group.make_context("medseg", [], resilient_parsing=True), name)
    assert subcommand is not None, f"{page}: medseg {name}"
    context = subcommand.make_context(name, arguments)
    assert context.info_name == name


# Their own rooms run these, and check what they print.
RUN_BY_THEIR_ROOM = {"crf.md", "images.md", "metrics.md", "networks.md"}
PYTHON = {
    page: "\n".join(code for where, code in blocks("python") if where == page)
    for page, _ in blocks("python")
    if page not in RUN_BY_THEIR_ROOM
}


def register_membranes() -> None:
    """Make three versions of the model that the page about tracking speaks of."""
    preparation = Preparation(
        spatial_dims=2, spacing=None, unit=Unit.PX, normalisation=NORMALISATIONS.build("zscore")
    )
    spec = ModelSpec(
        name="membranes",
        spatial_dims=2,
        channels=("em",),
        structures={"background": 0, "membrane": 1},
        network="msd",
        network_settings={"depth": 2, "dilations": [1, 2]},
        preparation=preparation.to_dict(),
        window_voxels=(64, 64),
    )
    folder = Path("model")
    folder.mkdir()
    Model(spec, spec.build_network()).save(folder)
    store = "sqlite:///mlflow.db"
    with TrackedRun.start(Path("run"), experiment="em", name="1", tracking_uri=store) as run:
        example = np.zeros((2, 1, 32, 32), np.float32)
        for _ in range(3):
            uri = log_model(run, folder, input_example=example)
            version = register(uri, "membranes", tracking_uri=store).version
            if version == "2":
                promote("membranes", version, tracking_uri=store)


@pytest.mark.parametrize("page", sorted(PYTHON))
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if page == "tracking.md":
        register_membranes()
    try:
        exec(compile(PYTHON[page], page, "exec"), {"__name__": "__main__"})
    finally:
        mlflow.set_tracking_uri(None)  # the page sets it for the whole process
    assert PYTHON[page].strip()


def test_every_page_of_the_manual_is_reachable_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        for link in re.findall(r"\]\(([^)#:]+\.md)\)", page.read_text()):
            target = (page.parent / link).resolve()
            assert target.is_file(), f"{page.name} links to {link}"
            if target not in reached:
                reached.add(target)
                todo.append(target)
    assert set(PAGES[2:]) <= reached
