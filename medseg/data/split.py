"""Which cases train, which choose the checkpoint, and which are only ever reported.

A group is never divided. The same cases and the same seed give the same split on every machine, and
the split's hash goes into the run, so that two runs can be told apart or compared.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from medseg.data.cases import Case
from medseg.errors import MedsegError
from medseg.registry import Registry


@dataclass(frozen=True)
class Split:
    """The cases of each part, by name."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]

    @property
    def names(self) -> dict[str, list[str]]:
        """Case names of each part."""
        return {
            part: [case.name for case in getattr(self, part)]
            for part in ("train", "validation", "test")
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the parts' case names, 64 hex digits."""
        return hashlib.sha256(json.dumps(self.names, sort_keys=True).encode()).hexdigest()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All cases of the three parts."""
        return (*self.train, *self.validation, *self.test)

    def refuse_copies(self, files: Mapping[str, Mapping[str, str]]) -> None:
        """Refuse an image that is in two parts of the split under two names.

        Args:
            files: From :func:`~medseg.data.digests.file_digests`.

        Raises:
            MedsegError: Names both cases.
        """
        seen: dict[tuple[str, ...], tuple[str, str]] = {}
        for part in ("train", "validation", "test"):
            for case in getattr(self, part):
                image = tuple(files[case.name].values())[: len(case.images)]
                before, name = seen.setdefault(image, (part, case.name))
                if before != part:
                    raise MedsegError(
                        f"{case.name} ({part}) is the same image as {name} ({before}): the files "
                        f"are equal\n  remove one of them, or put both into one group"
                    )


# Fact ``in_order``: whether neighbours by name may look alike, so that folds of it are blocks, too.
SPLITS: Registry[Split] = Registry("split", given=("cases",))


@SPLITS.register("group", in_order=False)
def by_group(
    cases: Sequence[Case], *, test: float = 0.25, validation: float = 0.15, seed: int = 0
) -> Split:
    """Draw whole groups at random.

    Args:
        cases: All cases.
        test: Share of the groups to report on; 0 for none.
        validation: Share of the groups that choose the checkpoint.
        seed: The same seed gives the same split.
    """
    groups = sorted({case.group for case in cases})
    order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    return _cut(cases, order, test=test, validation=validation)


@SPLITS.register("blocks", in_order=True)
def by_blocks(cases: Sequence[Case], *, test: float = 0.25, validation: float = 0.15) -> Split:
    """Cut the cases, in the order of their names, into contiguous blocks.

    For slices of one stack: neighbours look alike, so they must not face each other. Training
    takes the first block, validation the next, test the last.
    """
    groups = list(dict.fromkeys(case.group for case in sorted(cases, key=natural_order)))
    return _cut(cases, groups[::-1], test=test, validation=validation)


@SPLITS.register("stated", in_order=True)
def as_stated(
    cases: Sequence[Case],
    *,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str] = (),
) -> Split:
    """Take the parts as they are written down.

    Args:
        cases: All cases; those that no part names are left out.
        train: Case names, patterns (``dish_a*``) or ranges of names that end in a number
            (``00-15``).
        validation: Likewise.
        test: Likewise.
    """
    parts = {"train": train, "validation": validation, "test": test}
    chosen = {name: _select(cases, wanted, name) for name, wanted in parts.items()}
    return checked(Split(**chosen))


def _cut(cases: Sequence[Case], order: Sequence[str], *, test: float, validation: float) -> Split:
    for name, share in (("test", test), ("validation", validation)):
        if not 0 <= share < 1:
            raise ValueError(f"split.{name}: is a share of the groups, 0 to below 1, got {share}")
    total = len(order)
    n_test = max(1, round(total * test)) if test else 0
    n_validation = max(1, round(total * validation)) if validation else 0
    if total - n_test - n_validation < 1:
        raise MedsegError(
            f"{total} group(s) cannot be split into {n_test} for test, {n_validation} for "
            f"validation and at least one for training; label more cases, or lower the shares"
        )
    part_of = dict.fromkeys(order[:n_test], "test")
    part_of |= dict.fromkeys(order[n_test : n_test + n_validation], "validation")
    parts: dict[str, list[Case]] = {"train": [], "validation": [], "test": []}
    for case in sorted(cases, key=natural_order):
        parts[part_of.get(case.group, "train")].append(case)
    return checked(Split(**{name: tuple(part) for name, part in parts.items()}))


def checked(split: Split) -> Split:
    """Return the split, if it divides no group and leaves cases to train and to validate.

    Raises:
        MedsegError: It divides a group, or a part has no case.
    """
    seen: dict[str, str] = {}
    for part in ("train", "validation", "test"):
        for case in getattr(split, part):
            if seen.setdefault(case.group, part) != part:
                raise MedsegError(
                    f"group {case.group} is both in {seen[case.group]} and in {part} (case "
                    f"{case.name}); what is alike must not be on both sides"
                )
    for part in ("train", "validation"):
        if not getattr(split, part):
            raise MedsegError(f"the split leaves no case for {part}")
    return split


def _select(cases: Sequence[Case], wanted: Sequence[str], part: str) -> tuple[Case, ...]:
    chosen: list[Case] = []
    for item in wanted:
        span = re.fullmatch(r"(.*?)(\d+)-(?:\1)?(\d+)", item)
        named = [case for case in cases if case.name == item]
        if named:
            fits = named
        elif span:
            low, high = int(span[2]), int(span[3])
            fits = [c for c in cases if low <= _number(c.name, span[1]) <= high]
        else:
            fits = [case for case in cases if fnmatchcase(case.name, item)]
        if not fits:
            raise MedsegError(f'split.{part}: "{item}" fits no case')
        chosen += [case for case in fits if case not in chosen]
    return tuple(sorted(chosen, key=natural_order))


def _number(name: str, prefix: str) -> int:
    rest = name.removeprefix(prefix) if name.startswith(prefix) else ""
    return int(rest) if rest.isdecimal() else -1


def natural_order(case: Case) -> list[tuple[int, str]]:
    """Sort key in which slice 9 comes before slice 10."""
    pieces = re.split(r"(\d+)", case.name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
