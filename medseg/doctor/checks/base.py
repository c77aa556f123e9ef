"""The registry of checks, and the words that they share.

A check is a function from the facts of a data set to findings. It reads no file.
"""

from collections.abc import Iterable, Sequence

from medseg.doctor.findings import Finding
from medseg.registry import Registry

CHECKS: Registry[Iterable[Finding]] = Registry("check", given=("data",))

FEW = 0.1  # share of the cases that may differ from the rest and still be called outliers
_LISTED = 6


def listed(items: Iterable[object], limit: int = _LISTED) -> str:
    """Return ``a, b, c and 4 more``."""
    all_ = [str(item) for item in items]
    more = f" and {len(all_) - limit} more" if len(all_) > limit else ""
    return ", ".join(all_[:limit]) + more


def few(flagged: Sequence[object], total: int) -> bool:
    """Tell whether the flagged are so few among all that the rest says what is usual."""
    return total >= 4 and 0 < len(flagged) <= max(1, FEW * total)


def plural(number: int, what: str) -> str:
    """Return ``1 case`` or ``1,200 cases``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
