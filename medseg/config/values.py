"""Values that cards and jobs share: lengths, sizes along x, y, z, and parts with settings."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, PlainSerializer, model_validator

from medseg.config.reading import Section
from medseg.geometry import Length
from medseg.registry import Registry


def _length(value: Any) -> Length:
    return value if isinstance(value, Length) else Length.parse(value)


def _positive(length: Length) -> Length:
    if length.value <= 0:
        raise ValueError(f"a size is positive, got {length}")
    return length


LengthText = Annotated[Length, BeforeValidator(_length), PlainSerializer(str)]
SizeText = Annotated[LengthText, AfterValidator(_positive)]


def array_order(values: Sequence[Any]) -> tuple[Any, ...]:
    """Turn x, y, z, as people write it, into z, y, x, as arrays are indexed."""
    return tuple(reversed(values))


class PartSettings(Section):
    """A registered part by name, with its settings beside the name.

    A name alone stands for the part with its defaults.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without the name."""
        return dict(self.__pydantic_extra__ or {})


def known_to(registry: Callable[[], Registry[Any]], *, lengths: bool = False) -> AfterValidator:
    """Return a check of a part's settings against the registry's signatures.

    Args:
        registry: Gives the registry; called when a file is checked, so that importing this
            module imports no part.
        lengths: A setting may be a length, which stands for a number on a grid that is not known
            yet.
    """

    def check(part: PartSettings) -> PartSettings:
        settings = part.settings
        if lengths:
            settings = {key: _plain(value) for key, value in settings.items()}
        # Whoever knows where the part stands puts that in front of the message.
        registry().check(part.name, settings, path="")
        return part

    return AfterValidator(check)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return Length.parse(value).value
        except ValueError:
            return value
    return value
