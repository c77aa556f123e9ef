"""The manual's examples run, and print what they say."""

import re
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "docs" / "networks.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_manual_prints_what_it_says(
    example: str, capsys: pytest.CaptureFixture[str]
):
    exec(compile(example, str(MANUAL), "exec"), {})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(.*\)  # (.+)", example):
        assert said.split(" = ")[0] in printed


def test_every_network_has_its_section():
    from medseg.networks import NETWORKS

    sections = re.findall(r"^## (\w+)$", MANUAL.read_text(), flags=re.MULTILINE)
    assert set(NETWORKS) <= set(sections)
