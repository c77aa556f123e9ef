"""The only reader of YAML: text to checked values, with errors that name the setting's path."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import MedsegError, nearest


class Section(BaseModel):
    """A part of a file: frozen, and without settings that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Section)


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key written twice, of which YAML would keep the last.

    It takes ``1e-3`` for a number, as YAML 1.2 does and people mean it.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f'"{key}" is set twice', node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file.

    Raises:
        MedsegError: The file is missing, is no YAML, or holds no mapping.
    """
    if not path.is_file():
        raise MedsegError(f"{path}: there is no such file")
    try:
        content = read_value(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise MedsegError(f"{path}: not readable as YAML\n  {error}") from None
    if not isinstance(content, dict):
        raise MedsegError(f"{path}: holds no settings; write them as key: value")
    return content


def read_value(text: str) -> Any:
    """Return the plain value that a piece of YAML stands for.

    Raises:
        ValueError: It is no YAML.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def to_yaml(section: Section) -> str:
    """Return a section as YAML, every setting written out."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def override(content: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the content with ``key=value`` settings of the command line, e.g. ``train.epochs=3``.

    Raises:
        MedsegError: One has no ``=``, or leads through something that is no section.
    """
    content = deepcopy(content)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise MedsegError(f"{setting}: write overrides as key=value, e.g. train.epochs=3")
        section = content
        *parents, last = path.strip().split(".")
        for parent in parents:
            if isinstance(section.get(parent), str):  # a part named without settings
                section[parent] = {"name": section[parent]}
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise MedsegError(
                    f"{path}: {parent} is {section!r}, not a section with settings of its own"
                )
        try:
            section[last] = read_value(text)
        except ValueError as error:
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
        lines = _lines(model, content, error.errors())
        raise MedsegError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _lines(model: type[BaseModel], content: Any, issues: Sequence[Any]) -> list[str]:
    """Return one line an issue, but none for a path inside of which something is wrong."""
    found = [(_path(content, issue), issue) for issue in issues]
    paths = {path for path, _ in found}
    return [
        _line(model, path, issue)
        for path, issue in found
        if not any(other.startswith((f"{path}.", f"{path}[")) for other in paths if path)
    ]


def _path(content: Any, issue: Any) -> str:
    """Return where an issue is, e.g. ``metrics[0].tolerance``.

    pydantic's own location also names the branch of a union; what is not in the content is one.
    """
    path, here = "", content
    steps = issue["loc"]
    for number, step in enumerate(steps):
        if isinstance(here, Mapping) and step in here:
            path, here = f"{path}.{step}", here[step]
        elif isinstance(here, list | tuple) and isinstance(step, int):
            path, here = f"{path}[{step}]", here[step]
        elif issue["type"] == "missing" and number == len(steps) - 1:
            path = f"{path}.{step}"
    return path.lstrip(".")


def _line(model: type[BaseModel], path: str, issue: Any) -> str:
    if issue["type"] == "extra_forbidden":
        known = _fields(model, issue["loc"][:-1])
        return f"{path}: there is no such setting{nearest(str(issue['loc'][-1]), known)}"
    if issue["type"] == "missing":
        return f"{path}: is missing"
    message: str = issue["msg"].removeprefix("Value error, ")
    if issue["type"] != "value_error":
        return f"{path}: {message}; got {issue['input']!r}"
    # The registry starts with the rest of the path, a section with the path itself.
    if message.startswith("."):
        return path + message
    return message if not path or message.startswith(path) else f"{path}: {message}"


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
