"""The house: imports point downwards, and some libraries have one room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "medseg"
FLOORS = {
    "errors": -1,  # what everybody may raise
    "registry": 0, "geometry": 0, "files": 0, "signals": 0,
    "images": 1, "transforms": 1, "networks": 1, "losses": 1, "metrics": 1, "instances": 1,
    "data": 2, "inference": 2, "evaluation": 2, "exports": 2, "planning": 2,
    "training": 3, "tracking": 3, "doctor": 3,
    "config": 4, "jobs": 5, "cli": 6,
}  # fmt: skip
SOLE = {"mlflow": "tracking", "yaml": "config"}
FILES = sorted(HOUSE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_a_room_imports_itself_and_floors_below(file):
    mine = room_of(file)
    rooms = {name.split(".")[1] for name in imports(file) if name.startswith("medseg.")}
    below = {room for room, floor in FLOORS.items() if floor < FLOORS.get(mine, 99)}

    # __version__ is a plain constant of the package.
    assert rooms - {mine, "__version__"} <= below


@pytest.mark.parametrize("library", SOLE)
def test_a_library_is_known_to_its_room_only(library):
    users = {room_of(f) for f in FILES for name in imports(f) if name.split(".")[0] == library}

    assert users == {SOLE[library]}


def test_what_is_shipped_asserts_nothing_about_what_a_user_gave():
    nodes = ((f, n) for f in FILES for n in ast.walk(ast.parse(f.read_text(encoding="utf-8"))))

    assert [f"{f}:{n.lineno}" for f, n in nodes if isinstance(n, ast.Assert)] == []
