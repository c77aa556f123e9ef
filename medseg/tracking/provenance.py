"""Where a result comes from: the code, and the libraries that ran it."""

import platform
import re
import shutil
import subprocess
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from medseg.errors import MedsegError

_WATCHED = ("medseg", "torch", "monai", "pytorch-lightning", "mlflow", "numpy", "scipy")


def git_state(folder: Path) -> dict[str, str]:
    """Return the state of the git checkout that ``folder`` is in.

    Returns:
        ``commit``; ``dirty``, ``true`` or ``false``; and if dirty ``diff_sha256``, the hash of the
        uncommitted changes and of the names of untracked files. Empty where there is no git, no
        checkout, or no commit yet.
    """
    git = shutil.which("git")
    if git is None:
        return {}
    commit = _git(git, folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    status = _git(git, folder, "status", "--porcelain")
    diff = _git(git, folder, "diff", "HEAD", "--binary")
    if status is None or diff is None:
        return {}
    state = {"commit": commit.decode().strip(), "dirty": "true" if status else "false"}
    if status:
        state["diff_sha256"] = sha256(status + diff).hexdigest()
    return state


def _git(git: str, folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours, the folder follows -C
            [git, "-C", str(folder), *arguments], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # As if there were no git: a run without its commit is better than none.
    return done.stdout if done.returncode == 0 else None


def environment() -> dict[str, str]:
    """Return the versions that decide a result: Python, the platform, and the main libraries."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _WATCHED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def pinned_requirements() -> list[str]:
    """Return medseg's own dependencies at their installed versions, as pip requirements.

    A local label such as ``+cpu`` is left out: no index has it. medseg itself is left out as well,
    as it need not be on an index.

    Raises:
        MedsegError: medseg runs from a folder without being installed.
    """
    try:
        declared = metadata.requires("medseg") or []
    except metadata.PackageNotFoundError:
        raise MedsegError(
            "medseg is not installed, so its requirements are not known\n"
            "  install it: pip install -e ."
        ) from None
    names = [
        match[0]
        for line in declared
        if "extra ==" not in line and (match := re.match(r"[\w.\-]+", line))
    ]
    pinned = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
    return sorted(pinned, key=str.casefold)
