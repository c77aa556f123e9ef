"""Parts found by name; the constructor's signature is the schema of their settings.

Nothing else lists the settings of a part: a job file is checked against the signature, so a new
argument is a new setting, and a mistyped one is refused with its path and the nearest name.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medseg.errors import nearest

Part = TypeVar("Part", bound=Callable[..., Any])
Made = TypeVar("Made")


class Registry(Generic[Made]):
    """Parts of one kind, by name.

    Args:
        kind: What the parts are, for messages and as the path of their settings, e.g. ``network``.
        given: Names of the arguments that the caller supplies (e.g. ``spatial_dims``); they are
            not settings, and a job may not set them.
    """

    def __init__(self, kind: str, given: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.given = frozenset(given)
        self._parts: dict[str, Callable[..., Made]] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Part], Part]:
        """Return a decorator that adds a class or function under ``name`` with constant facts."""

        def add(part: Part) -> Part:
            if name in self._parts:
                raise ValueError(f'{self.kind} "{name}" is registered twice')
            self._parts[name] = part
            self._facts[name] = facts
            return part

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __getitem__(self, name: str) -> Callable[..., Made]:
        if name not in self._parts:
            known = nearest(name, self._parts)
            raise ValueError(f'{self.kind}.name: "{name}" is no {self.kind}{known}')
        return self._parts[name]

    def facts(self, name: str) -> Mapping[str, Any]:
        """Return what was stated at registration, e.g. the best value of a metric."""
        _ = self[name]
        return self._facts[name]

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """Return the settings of a part: its signature without the given arguments."""
        parameters = inspect.signature(self[name]).parameters
        return {key: p for key, p in parameters.items() if key not in self.given}

    def check(self, name: str, settings: Mapping[str, Any], path: str | None = None) -> None:
        """Check settings against the signature without building the part.

        Args:
            name: The part.
            settings: What a job sets.
            path: Where the part stands in the job, for messages; the kind by default.

        Raises:
            ValueError: No such part, or an unknown, missing or mistyped setting; the message has
                its path.
        """
        path = self.kind if path is None else path
        if name not in self:
            raise ValueError(f'{path}.name: "{name}" is no {self.kind}{nearest(name, self)}')
        known = self.settings(name)
        for key in settings:
            if key not in known:
                raise ValueError(f'{path}.{key}: not a setting of "{name}"{nearest(key, known)}')
        hints = get_type_hints(_function(self[name]))
        for key, parameter in known.items():
            if key not in settings:
                if parameter.default is inspect.Parameter.empty:
                    raise ValueError(f'{path}.{key}: "{name}" needs this setting')
                continue
            if key in hints:
                _check_type(f"{path}.{key}", hints[key], settings[key])

    def build(self, name: str, *given: Any, **settings: Any) -> Made:
        """Build a part from the given arguments and checked settings."""
        self.check(name, settings)
        return self[name](*given, **settings)


def _function(part: Callable[..., Any]) -> Callable[..., Any]:
    return part.__init__ if inspect.isclass(part) else part


def _check_type(path: str, hint: Any, value: Any) -> None:
    schema: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        if _is_plain(value):
            # Strict as JSON is: no text passes for a number, but a list does for a tuple.
            schema.validate_json(json.dumps(value), strict=True)
        else:
            schema.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        inner = "".join(f"[{step}]" for step in first["loc"] if isinstance(step, int))
        raise ValueError(f"{path}{inner}: {first['msg']}; got {value!r}") from None


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)
