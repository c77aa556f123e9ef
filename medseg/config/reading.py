"""The only reader of YAML: text to checked values, with errors that name the line's path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import MedsegError, nearest


class Section(BaseModel):
    """A part of a file: frozen, and without settings that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Section)


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key written twice, of which YAML would keep the last."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f'"{key}" is set twice', node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file.

    Raises:
        MedsegError: The file is missing, is no YAML, or holds no mapping.
    """
    if not path.is_file():
        raise MedsegError(f"{path}: there is no such file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MedsegError(f"{path}: not readable as YAML\n  {error}") from None
    if not isinstance(content, dict):
        raise MedsegError(f"{path}: holds no settings")
    return content


def to_yaml(section: Section) -> str:
    """Return a section as YAML, every setting written out."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def override(content: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` settings of the command line, e.g. ``train.epochs=3``.

    Raises:
        MedsegError: One has no ``=``, or leads through something that is no section.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise MedsegError(f"{setting}: write overrides as key=value, e.g. train.epochs=3")
        section = content
        *parents, last = path.strip().split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise MedsegError(f"{path}: {parent} is a value, not a section")
        try:
            section[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MedsegError(f"{setting}: the value is not readable\n  {error}") from None
    return content


def checked(model: type[Model], content: dict[str, Any], source: Path) -> Model:
    """Return the content as a checked section.

    Raises:
        MedsegError: Lists each wrong setting with its path and, if misspelt, the nearest name.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_line(model, issue) for issue in error.errors()]
        raise MedsegError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _line(model: type[BaseModel], issue: Any) -> str:
    path = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in issue["loc"]
    ).lstrip(".")
    if issue["type"] == "extra_forbidden":
        known = _fields(model, issue["loc"][:-1])
        return f"{path}: there is no such setting{nearest(str(issue['loc'][-1]), known)}"
    message = issue["msg"].removeprefix("Value error, ")
    if issue["type"] == "missing":
        message = "is missing"
    if issue["type"] == "value_error":
        return message if not path or message.startswith(path) else f"{path}: {message}"
    return (
        f"{path}: {message}; got {issue['input']!r}"
        if issue["type"] != "missing"
        else (f"{path}: {message}")
    )


def _fields(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    current: Any = model
    for step in path:
        fields = getattr(current, "model_fields", {})
        if step not in fields:
            break
        annotation = fields[step].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        current = next((o for o in options if hasattr(o, "model_fields")), None)
    return list(getattr(current, "model_fields", {}))
