"""Splits of a split: folds for cross-validation, and smaller and smaller training sets.

In all of them a group is never divided, and the test cases of the split that they come from are in
none: these are for the end.
"""

from collections.abc import Sequence

import numpy as np

from medseg.data.cases import Case
from medseg.data.split import Split, checked, natural_order
from medseg.errors import MedsegError


def folds(split: Split, count: int, *, seed: int | None) -> list[Split]:
    """Divide what is not for testing into folds, each held out once.

    The held-out cases of a fold are the ``test`` part of its split. They choose nothing: the
    checkpoint is chosen on groups beside them, as large a share of the rest as the validation
    cases are of the split's own.

    Args:
        split: Its training and validation cases are divided.
        count: Number of folds; as many as groups if there are fewer, so that each is left out once.
        seed: Of the order in which groups are dealt out; None for the order of the names, in
            contiguous blocks, where neighbours look alike.

    Raises:
        MedsegError: There are fewer than three groups: one each to train, to validate and to hold
            out.
        ValueError: Fewer than two folds are asked for.
    """
    if count < 2:
        raise ValueError(f"cross-validation needs two folds or more, got {count}")
    cases = (*split.train, *split.validation)
    order = _groups(cases, seed)
    if len(order) < 3:
        raise MedsegError(
            f"{len(order)} group(s) beside the test cases cannot be cross-validated: each fold "
            f"needs one to train, one to validate and one to hold out\n  label more cases, or give "
            f"fewer of them to the test (data.split)"
        )
    share = len({case.group for case in split.validation}) / len(order)
    parts: list[Split] = []
    for held_out in np.array_split(order, min(count, len(order))):
        # The groups after the held-out ones, round the end: each validates about equally often.
        start = order.index(held_out[0])
        rest = (order[start:] + order[:start])[len(held_out) :]
        validating = min(max(1, round(share * len(rest))), len(rest) - 1)
        parts.append(
            checked(
                Split(
                    train=_of(cases, rest[validating:]),
                    validation=_of(cases, rest[:validating]),
                    test=_of(cases, held_out.tolist()),
                )
            )
        )
    return parts


def thinned(split: Split, shares: Sequence[float], *, seed: int) -> list[Split]:
    """Return the split with smaller training sets, each a part of the next.

    Validation and test cases stay the same. Shares that come to the same groups are one split.

    Args:
        split: Its training cases are thinned out.
        shares: Shares of the training groups, above 0 to 1; at least one group is kept.
        seed: Of the order in which groups are taken.

    Raises:
        ValueError: A share is not above 0 and at most 1.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"shares of the training groups are above 0 to 1, got {share}")
    order = _groups(split.train, seed)
    counts = sorted({max(1, round(share * len(order))) for share in shares})
    return [
        Split(_of(split.train, order[:count]), split.validation, split.test) for count in counts
    ]


def _groups(cases: Sequence[Case], seed: int | None) -> list[str]:
    if seed is None:
        return list(dict.fromkeys(case.group for case in sorted(cases, key=natural_order)))
    groups = sorted({case.group for case in cases})
    return [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]


def _of(cases: Sequence[Case], groups: Sequence[str]) -> tuple[Case, ...]:
    return tuple(sorted((c for c in cases if c.group in set(groups)), key=natural_order))
