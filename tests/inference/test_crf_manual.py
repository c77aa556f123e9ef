"""The page about the CRF: its Python runs from top to bottom, and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "crf.md"


def test_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))

    exec(compile(code, str(PAGE), "exec"), {})

    printed = capsys.readouterr().out.splitlines()
    said = re.findall(r"print\(.*\)  # (.+)", code)
    assert printed == said
    assert said
