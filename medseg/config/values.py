"""Values that cards and jobs share: lengths, sizes along x, y, z, and parts with settings."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from medseg.config.reading import Section
from medseg.geometry import Length
from medseg.registry import Registry


def _length(value: Any) -> Length:
    return value if isinstance(value, Length) else Length.parse(value)


LengthText = Annotated[Length, BeforeValidator(_length), PlainSerializer(str)]


def array_order(values: Sequence[Any]) -> tuple[Any, ...]:
    """Turn x, y, z, as people write it, into z, y, x, as arrays are indexed."""
    return tuple(reversed(values))


class PartSettings(Section):
    """A registered part by name, with its settings beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without the name."""
        return dict(self.__pydantic_extra__ or {})


def part_of(registry: Callable[[], Registry[Any]], path: str) -> Any:
    """Return the type of a part whose settings are checked against the registry's signatures.

    Args:
        registry: Gives the registry; called when a file is checked, so that importing this
            module imports no part.
        path: Where the part stands in the file, for messages.
    """

    class Part(PartSettings):
        @model_validator(mode="after")
        def _known(self) -> "Part":
            # A length stands for a number on a grid that is not known yet.
            plain = {k: _plain(v) for k, v in self.settings.items()}
            registry().check(self.name, plain, path)
            return self

    def named(value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    return Annotated[Part, BeforeValidator(named), Field()]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return Length.parse(value).value
        except ValueError:
            return value
    return value
