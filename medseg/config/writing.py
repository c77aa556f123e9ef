"""Cards and jobs as text, each setting with the reason for it as a comment."""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from medseg.config.reading import Model, checked, read_value
from medseg.errors import MedsegError
from medseg.files import written_whole

_WIDTH = 100


def commented_yaml(settings: Sequence[tuple[str, Any, str]], *, heading: Sequence[str] = ()) -> str:
    """Return settings as YAML, in their order, each below the reason for it.

    Args:
        settings: (path, plain value, reason) of each; ``data.spacing`` stands in the section
            ``data``, whose settings follow each other.
        heading: Lines of the first comment.
    """
    lines = [line for text in heading for line in _comment(text, 0)]
    section = ""
    for path, value, reason in settings:
        *parents, key = path.split(".")
        if parents and parents[0] != section:
            lines.append(f"{parents[0]}:")
        section = parents[0] if parents else ""
        indent = 2 * len(parents)
        lines += _comment(reason, indent)
        lines.append(" " * indent + _setting(key, value))
    return "\n".join(lines) + "\n"


def _setting(key: str, value: Any) -> str:
    text = yaml.safe_dump(
        {key: value}, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
    )
    return text.strip().removeprefix("{").removesuffix("}")


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False
    )


def parsed(model: type[Model], text: str, source: Path) -> Model:
    """Return the card or job that a text stands for.

    Raises:
        MedsegError: A setting is wrong; names its path.
    """
    return checked(model, read_value(text), source)


def write_new(texts: Mapping[Path, str]) -> None:
    """Write text files that are not there yet: all of them whole, or none.

    Raises:
        MedsegError: One is there already.
    """
    for path in texts:
        if path.exists():
            raise MedsegError(
                f"{path}: is there already, and nothing is written over\n"
                f"  move it away, or write somewhere else with --out"
            )
    with ExitStack() as stack:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(written_whole(path)).write_text(text, encoding="utf-8")
