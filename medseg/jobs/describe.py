"""What a dataset card says of the images and their labels, each with where it is known from."""

from collections.abc import Sequence
from typing import Any

from medseg.config import array_order
from medseg.data import Case
from medseg.data.recognise import Recognised
from medseg.data.survey import Surveyed
from medseg.errors import MedsegError
from medseg.geometry import Length, Unit
from medseg.jobs.questions import UNKNOWN, Interview, Question

# Path, plain value, reason.
Setting = tuple[str, Any, str]
_KINDS = ("semantic", "instance")
_STATED = "as stated"


def describe(
    cases: Sequence[Case], found: Recognised, surveyed: Surveyed, interview: Interview
) -> list[Setting]:
    """Return the card's settings from ``spatial_dims`` to ``labels``.

    Args:
        cases: All cases.
        found: The layout, with what a list beside the images states.
        surveyed: What the files say.
        interview: What the command line states, and whom to ask.

    Raises:
        MedsegError: Something has to be stated, or what is stated does not fit the files.
    """
    labelled = sum(case.labels is not None for case in cases)
    of = f"{len(cases)} images, {labelled} with labels, e.g. {surveyed.grids[0].describe()}"
    kind = _kind(found, surveyed, interview)
    labels = _objects if kind[1] == "instance" else _classes
    return [
        ("spatial_dims", surveyed.spatial_dims, of),
        kind,
        _channels(found, surveyed, interview),
        *_axes(found, interview),
        *_pixel_size(surveyed, interview),
        *labels(found, surveyed, interview),
    ]


def spacing_of(text: str | None) -> tuple[tuple[float, ...] | None, Unit | None]:
    """Return the pixel size that ``--pixel-size`` states in array order, and its unit.

    Raises:
        MedsegError: It is no list of lengths in one unit.
    """
    if text is None or text == UNKNOWN:
        return None, None
    lengths = _lengths(text)
    return array_order([length.value for length in lengths]), lengths[0].unit


def _kind(found: Recognised, surveyed: Surveyed, interview: Interview) -> Setting:
    stated, most = interview.answers.kind, max(surveyed.distinct)
    if stated is None and "=" in (interview.answers.labels or ""):
        return ("kind", "semantic", "classes are named")
    if stated is None and "kind" in found.stated:
        return ("kind", found.stated["kind"], f"as data sets of the layout {found.layout} are")
    if stated is None and surveyed.numbered is not None:
        if surveyed.numbered:
            why = f"a number for each object: up to {most} in an image, other ones in each"
            return ("kind", "instance", why)
        return ("kind", "semantic", "one value beside 0")
    question = Question(
        f"the labels hold up to {most} values beside 0: {surveyed.describe_values()}\n"
        f"  are these classes (semantic), or does each object have a number of its own (instance)?",
        "--kind",
        "semantic",
    )
    kind = interview.answer(stated, question)
    if kind not in _KINDS:
        raise MedsegError(f"--kind {kind}: is none of {', '.join(_KINDS)}")
    return ("kind", kind, _STATED)


def _channels(found: Recognised, surveyed: Surveyed, interview: Interview) -> Setting:
    count, stated = surveyed.channels, interview.answers.channels
    if stated is not None:
        names, why = [name.strip() for name in stated.split(",")], _STATED
        if set(names) <= set(surveyed.named):
            return ("channels", names, why)  # some of those that the files name
    elif "channels" in found.stated:
        names, why = list(found.stated["channels"]), found.source
    elif surveyed.named:
        names, why = list(surveyed.named), "from the files"
    else:
        names = ["image"] if count == 1 else [f"channel {i + 1}" for i in range(count)]
        why = "the files name none; --channels names them"
    if len(names) != count:
        raise MedsegError(
            f"the images have {count} channel(s), {len(names)} are named: {', '.join(names)}\n"
            f"  say it: --channels {','.join(f'name{i + 1}' for i in range(count))}"
        )
    return ("channels", names, why)


def _axes(found: Recognised, interview: Interview) -> list[Setting]:
    stated = interview.answers.axes or found.stated.get("axes")
    if stated is None:
        return []
    why = _STATED if interview.answers.axes else f"{found.source}: several channels in one file"
    settings: list[Setting] = [("axes", stated, why)]
    if "C" in stated:
        settings.append(("label_axes", stated.replace("C", ""), ""))
    return settings


def _pixel_size(surveyed: Surveyed, interview: Interview) -> list[Setting]:
    stated = interview.answers.pixel_size
    if surveyed.calibrated and stated is None:
        return []
    axes = "x,y,z" if surveyed.spatial_dims == 3 else "x,y"
    question = Question(
        f"the files state no pixel size; how large is a pixel along {axes}? ({UNKNOWN}: lengths "
        f"are counted in pixels)",
        "--pixel-size",
        f'"{",".join(["0.5 um"] * surveyed.spatial_dims)}"',
        proposal=UNKNOWN,
    )
    text = interview.answer(stated, question)
    if text == UNKNOWN:
        return []
    sizes = [str(length) for length in _lengths(text)]
    if len(sizes) != surveyed.spatial_dims:
        raise MedsegError(f"--pixel-size {text}: the images have {surveyed.spatial_dims} axes")
    return [("pixel_size", sizes, f"{_STATED}; the files carry none")]


def _lengths(text: str) -> list[Length]:
    try:
        lengths = [Length.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise MedsegError(f"--pixel-size {text}: {error}") from None
    if len({length.unit for length in lengths}) > 1:
        raise MedsegError(f"--pixel-size {text}: all lengths in one unit, please")
    return lengths


def _objects(found: Recognised, surveyed: Surveyed, interview: Interview) -> list[Setting]:
    name = (interview.answers.labels or "object").strip()
    if "=" in name:
        raise MedsegError(f"--labels {name}: name what the objects are, e.g. --labels nucleus")
    return [("labels", {"background": 0, name: 1}, "1 stands for every number but 0")]


def _classes(found: Recognised, surveyed: Surveyed, interview: Interview) -> list[Setting]:
    stated = interview.answers.labels
    if stated is None and "labels" in found.stated:
        settings: list[Setting] = [("labels", found.stated["labels"], found.source)]
        ignored = found.stated.get("ignore")
        return settings if ignored is None else [*settings, ("ignore", ignored, found.source)]
    values = sorted(surveyed.values)
    example = ",".join(
        f"{f'name{i}' if i else 'background'}={value}" for i, value in enumerate(values[:4])
    )
    question = Question(
        f"the labels hold the values {surveyed.describe_values()}; what do they mean?",
        "--labels",
        example,
    )
    return _parse_labels(interview.answer(stated, question))


def numbers_of(found: Recognised, interview: Interview) -> dict[str, int] | None:
    """Return the number of each structure, for files that name them; None where nothing does."""
    stated = interview.answers.labels
    if stated is not None and "=" in stated:
        labels = dict(_parse_labels(stated)[0][1])
    else:
        labels = dict(found.stated.get("labels", {}))
    labels.pop("background", None)
    return {name: v for name, v in labels.items() if isinstance(v, int)} or None


def _parse_labels(text: str) -> list[Setting]:
    """Return the labels of ``background=0,tumour=1+4,ignore=255``."""
    named: dict[str, int | list[int]] = {}
    for part in text.split(","):
        name, equals, numbers = part.partition("=")
        values = [value.strip() for value in numbers.split("+")]
        if not equals or not all(value.isdecimal() for value in values):
            raise MedsegError(f"--labels {text}: write name=value, e.g. background=0,vessel=255")
        ids = [int(value) for value in values]
        named[name.strip()] = ids[0] if len(ids) == 1 else ids
    ignored = named.pop("ignore", None)
    settings: list[Setting] = [("labels", named, _STATED)]
    return settings if ignored is None else [*settings, ("ignore", ignored, _STATED)]
