"""Which cases belong together, and how a data set is split: what a card says of it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.data import Case, group_of
from medseg.data.layouts import PARTS
from medseg.data.recognise import Recognised
from medseg.data.suggest import count_on, suggest_groups
from medseg.errors import MedsegError
from medseg.jobs.describe import Setting
from medseg.jobs.questions import NONE, Interview, Question

# So many validation cases tell two checkpoints apart, and more take time at every validation.
_VALIDATION_CASES = 16
_EVERY = 7


def divide(cases: Sequence[Case], found: Recognised, interview: Interview) -> list[Setting]:
    """Return the card's settings ``groups`` and ``split``.

    Args:
        cases: All cases, with the groups that their layout knows.
        found: The layout: its folders may be a ready-made split.
        interview: What the command line states, and whom to ask.

    Raises:
        MedsegError: There are too few groups to split, or a pattern does not fit the names.
    """
    cases = [case for case in cases if case.labels is not None]
    if found.layout == "parts" and interview.answers.groups is None:
        return [_ready_split(cases, found.settings["parts"])]
    names = [case.name for case in cases]
    known = {case.group for case in cases}
    rule = _rule(names, interview, ask=len(known) == len(cases))
    if rule is not None:
        try:
            known = {group_of(name, **rule) for name in names}
        except (ValueError, re.error) as error:
            raise MedsegError(f"--groups: {error}") from None
        why = "what is alike is never divided between the parts"
        return [("groups", rule, why), _drawn(len(known), len(cases), found)]
    if len(known) == len(cases) and count_on(names) and len(names) > 3:
        why = "the names count on, as slices and frames do: neighbours look alike"
        return [("split", {"name": "blocks", "test": 0.25, "validation": 0.15}, why)]
    return [_drawn(len(known), len(cases), found)]


def _rule(names: Sequence[str], interview: Interview, *, ask: bool) -> dict[str, Any] | None:
    """Return how a name tells its group; None if each case is its own, or the layout knows."""
    stated = interview.answers.groups
    pattern = suggest_groups(names) if ask else None
    if stated is None and pattern is None:
        return None
    example = group_of(names[0], pattern=pattern) if pattern else ""
    question = Question(
        f'the names look as if some images belong together: "{names[0]}" would be one of the group '
        f'"{example}" (patient, dish, slide), which is never divided; is that so?\n'
        f"  answer with a pattern whose bracket is the group, or {NONE}",
        "--groups",
        f"'{pattern}'",
        proposal=pattern,
    )
    text = interview.answer(stated, question)
    if text == NONE:
        return None
    before, slash, number = text.rpartition("/")
    if slash and number.isdecimal():
        return {"pattern": before, "consecutive": int(number)}
    return {"pattern": text}


def _drawn(groups: int, cases: int, found: Recognised) -> Setting:
    """Return a split that draws groups at random."""
    if groups < 2:
        raise MedsegError(
            f"{found.root}: {cases} labelled case(s) in {groups} group(s) cannot be split into "
            f"training and validation\n  label one more image at least, better three"
        )
    if groups == 2:
        split = {"name": "group", "test": 0.0, "validation": 0.5, "seed": 0}
        return ("split", split, "two groups: none is left for a test")
    validation = float(np.clip(round(_VALIDATION_CASES / cases, 2), 0.02, 0.15))
    split = {"name": "group", "test": 0.25, "validation": validation, "seed": 0}
    return ("split", split, "at random; a quarter is only ever reported on")


def _ready_split(cases: Sequence[Case], folders: Sequence[str]) -> Setting:
    """Return the split that the folders of a data set are."""
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for folder in folders:
        parts[PARTS[folder.lower()]].append(f"{folder}_*")
    why = "the folders' own"
    if not parts["validation"]:
        starts = tuple(pattern[:-1] for pattern in parts["train"])
        trained = [case.name for case in cases if case.name.startswith(starts)]
        parts["validation"] = trained[::_EVERY]
        parts["train"] = [name for name in trained if name not in parts["validation"]]
        why += f"; every {_EVERY}th training case validates"
    return ("split", {"name": "stated", **parts}, why)
