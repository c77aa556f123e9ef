"""Intervals by resampling groups: patients, not slices.

Slices of one patient resemble each other, so a hundred of them say little more than one. Whole
groups are drawn with replacement, each with all its cases; the spread of the resampled means tells
how far the mean would move with other patients.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

RESAMPLES = 10_000
FEWEST_GROUPS = 3
_CHUNK = 1_000

Floats = NDArray[np.float64]


def group_totals(groups: Sequence[str], values: Floats) -> tuple[list[str], Floats, Floats]:
    """Return the groups, and the sum and the number of the values in each.

    Args:
        groups: The group of each value.
        values: Values, (cases,) or (cases, columns).
    """
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, index, values)
    return [str(name) for name in names], sums, np.bincount(index).astype(float)


def resampled_means(
    groups: Sequence[str], values: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Return the mean over cases in each resampling of the groups, (resamples, ...).

    Args:
        groups: The group of each case.
        values: One value for each case, (cases,), or several, (cases, columns); columns see the
            same resamples, so that their differences are paired.
        resamples: How many resamples.
        seed: The same seed gives the same resamples.
    """
    _, sums, counts = group_totals(groups, values)
    draws = _draws(len(counts), resamples, seed)
    means = [(w @ sums) / np.expand_dims(w @ counts, tuple(range(1, sums.ndim))) for w in draws]
    return np.concatenate(means)


def _draws(groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each group was drawn, (chunk, groups): chunks keep the memory small."""
    random = np.random.default_rng(seed)
    for first in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - first)
        yield random.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(float)


def interval(
    groups: Sequence[str],
    values: Floats,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the interval of the mean over cases, or None with fewer than three groups.

    Args:
        groups: The group of each case.
        values: One value for each case.
        level: How often such an interval should hold the true mean.
        resamples: How many resamples of the groups.
        seed: The same seed gives the same interval.

    Source:
        Cluster bootstrap with the expanded percentiles of Hesterberg, The American Statistician
        69 (2015) 371-386, doi:10.1080/00031305.2015.1089789: the plain percentiles are too narrow
        for few groups, by the same factor as a normal instead of a t interval.
    """
    number = len(set(groups))
    if number < FEWEST_GROUPS:
        return None
    means = resampled_means(groups, values, resamples=resamples, seed=seed)
    reach = math.sqrt(number / (number - 1)) * t.ppf((1 + level) / 2, number - 1)
    tail = float(norm.cdf(-reach))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
