"""What must not be split: groups that the names tell and the card does not."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.doctor.checks.base import CHECKS, listed, plural
from medseg.doctor.facts import DataFacts
from medseg.doctor.findings import Finding


@CHECKS.register("undeclared groups")
def undeclared_groups(data: DataFacts) -> Iterator[Finding]:
    """Names such as ``dishA_03`` of a card without groups, so that a dish may be on both sides."""
    names = [case.name for case in data.cases]
    alone = all(case.group == case.name for case in data.cases)
    pattern = None if data.grouped or not alone else guess_pattern(names)
    if pattern is None:
        return
    groups = Counter(match[1] for name in names if (match := re.search(pattern, name)))
    both = _on_both_sides(data, pattern)
    yield Finding(
        "warning",
        "undeclared groups",
        "",
        f"the names look like {plural(len(groups), 'group')} ({listed(groups, 4)}) of up to "
        f"{max(groups.values())} cases, and the card has no groups"
        + (f"; the split has {listed(both, 4)} on both sides" if both else ""),
        "what is alike (patient, embryo, slide) on one side of the split",
        f"add to the card, if it is true: groups: {{pattern: '{pattern}'}}",
    )


def _on_both_sides(data: DataFacts, pattern: str) -> list[str]:
    parts: dict[str, set[str]] = {}
    for name, part in data.part_of.items():
        if match := re.search(pattern, name):
            parts.setdefault(match[1], set()).add(part)
    return [group for group, found in parts.items() if len(found) > 1]


def guess_pattern(names: Sequence[str]) -> str | None:
    """Return a pattern whose bracket is what groups of names have in common; None if they don't.

    The names must be built alike, from words and numbers of which at least two vary; all but the
    last that varies is the group.
    """
    split = [re.findall(r"\d+|[A-Za-z]+|[^A-Za-z\d]+", name) for name in names]
    shapes = {tuple(_kind(piece) for piece in pieces) for pieces in split}
    if len(names) < 4 or len(shapes) != 1:
        return None
    varying = [i for i, column in enumerate(zip(*split, strict=True)) if len(set(column)) > 1]
    if len(varying) < 2:
        return None
    end = varying[-2] + 1
    groups = Counter(tuple(pieces[:end]) for pieces in split)
    if len(groups) < 2 or len(groups) > 0.7 * len(names):
        return None
    head = enumerate(split[0][:end])
    return "^(" + "".join(_pattern(i, piece, varying) for i, piece in head) + ")"


def _kind(piece: str) -> str:
    return "0" if piece.isdecimal() else "a" if piece.isalpha() else "-"


def _pattern(position: int, piece: str, varying: Sequence[int]) -> str:
    if position not in varying:
        return re.escape(piece)
    return {"0": r"\d+", "a": "[A-Za-z]+", "-": r"[^A-Za-z\d]+"}[_kind(piece)]
