"""The manual's snippet runs, and its tables name what there is."""

import re
from pathlib import Path

from medseg.metrics import METRICS

MANUAL = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def test_the_snippet_of_the_manual_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", MANUAL, re.DOTALL)
    exec(compile(snippet, "docs/metrics.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "95 % of the border within 1.00 um"
    assert len(printed) == 7


def test_the_manual_names_every_metric_and_its_definition():
    for name in METRICS:
        assert f"`{name}`" in MANUAL
        if METRICS.facts(name)["kind"] == "mask":
            assert f"`{METRICS.facts(name)['definition']}`" in MANUAL
