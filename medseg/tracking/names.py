"""Names that every tracking store accepts, no two alike.

MLflow refuses some characters, other tools drop them silently, and then ``dice/kidney(left)`` and
``dice/kidneyleft`` are one curve. Here every name keeps a curve of its own.
"""

import re
import unicodedata
from collections.abc import Mapping
from hashlib import sha256

LONGEST = 200  # MLflow takes 250; the rest is for our prefixes and for the hash of a collision.
_REFUSED = re.compile(r"[^\w.\-/]+")


def slug(name: str) -> str:
    """Return ``name`` in letters (of any script), digits, ``_``, ``-``, ``.`` and ``/``.

    Everything else becomes ``_``; empty folders, ``..`` and a leading ``/`` vanish. Different names
    may share a slug; :class:`Slugs` keeps them apart.
    """
    cleaned = _REFUSED.sub("_", unicodedata.normalize("NFC", name))
    folders = [folder.strip("_.") for folder in cleaned.split("/")]
    return "/".join(folder for folder in folders if folder)[:LONGEST].rstrip("/_.") or "unnamed"


class Slugs:
    """Slugs of one run: the same name gets the same slug, another name another.

    The first name has the plain slug; one that would collide gets a short hash of itself. Case
    makes no difference between slugs, as some databases and file systems see none.

    Args:
        known: Names and their slugs from an earlier part of the run.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._names: dict[str, str] = {}
        for name, given in (known or {}).items():
            self._names[given.casefold()] = name

    def __call__(self, name: str) -> str:
        """Return the slug of ``name``."""
        plain, digest = slug(name), sha256(name.encode()).hexdigest()
        for candidate in (plain, f"{plain}-{digest[:6]}", f"{plain[:130]}-{digest}"):
            if self._names.setdefault(candidate.casefold(), name) == name:
                return candidate
        raise ValueError(f"{name!r} cannot be told from another name of this run; rename it")
