"""What a user can mend, told without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class MedsegError(Exception):
    """Something that the user can mend in a file or on the command line.

    The message says whose case it is, what was found (with units), what was expected and what to
    do. The command line prints it as it stands and exits with 1. Parts raise ``ValueError``
    instead; whoever knows the file or the case turns that into a ``MedsegError``.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean "x"?'`` for the closest known name, else the list of names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known are: {', '.join(names)}" if names else ""
