"""Records and images made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from medseg.evaluation import Record
from medseg.geometry import Unit


def make_record(case: str, value: float | None, **other: Any) -> Record:
    facts: dict[str, Any] = {
        "group": case,
        "structure": "liver",
        "metric": "dice",
        "unit": "1",
        "status": "ok" if value is not None else "both_empty",
        "definition": "dice/voxel/v1",
        "spacing": (2.5, 0.8, 0.8),
        "spacing_unit": Unit.MM,
        "version": "0.1.0",
    }
    return Record(case=case, value=value, **{**facts, **other})


@pytest.fixture
def record() -> Callable[..., Record]:
    """Make a record of a case and a value; everything else has a default."""
    return make_record
