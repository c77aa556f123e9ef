"""What the names of the cases suggest about groups and splits."""

import re
from collections.abc import Sequence

# The first bracket is the group; what follows tells the members of a group apart.
_PATTERNS = (
    r"^(.*?)[-_ .]*(?:slice|frame|tile|patch|crop|view|fov|roi|sl|z|t)[-_ ]?\d+$",
    r"^(.*\d)[-_ ]?(?:[LR]|OD|OS|left|right)$",
    r"^(.*?\d+)[-_]\D*\d+$",
)
_FEWEST_GROUPS = 3


def suggest_groups(names: Sequence[str]) -> str | None:
    """Return a pattern by which several cases have one group, if the names have such a form.

    Args:
        names: Of all cases.

    Returns:
        A regular expression whose first bracket is the group; None if none gives at least three
        groups, fewer than there are cases.
    """
    for pattern in _PATTERNS:
        matches = [re.search(pattern, name) for name in names]
        groups = {match[1] for match in matches if match and match[1]}
        if all(m and m[1] for m in matches) and _FEWEST_GROUPS <= len(groups) < len(names):
            return pattern
    return None


def count_on(names: Sequence[str]) -> bool:
    """Tell whether the names count on without a gap, as slices of a stack or frames do."""
    matches = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if len(names) < 2 or not all(matches):
        return False
    numbers = sorted(int(match[2]) for match in matches if match)
    prefixes = {match[1] for match in matches if match}
    return len(prefixes) == 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
