"""The page about images runs and names every format."""

import re
import subprocess
import sys
from pathlib import Path

from medseg.images import READERS

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), {})
    assert (tmp_path / "cells_labels.ome.tif").exists()


def test_every_kind_of_file_is_on_the_page():
    text = PAGE.read_text().lower()
    aliases = {".tiff": ".tif", ".ome.tiff": ".ome.tif", ".jpg": "jpeg", ".jpeg": "jpeg"}
    for suffix in READERS:
        name = aliases.get(suffix, suffix)
        assert name in text or name.lstrip(".") in text, suffix


def test_naming_the_room_loads_no_image_library():
    code = (
        "import sys, medseg.images;"
        "heavy = {'torch', 'monai', 'nibabel', 'SimpleITK', 'tifffile', 'PIL', 'imagecodecs'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
