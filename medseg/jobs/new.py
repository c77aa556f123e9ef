"""From a folder of images and labels to a dataset card and a job."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medseg.config import Card, array_order, cases_of, commented_yaml, parsed, read_value, write_new
from medseg.data import Case, find_cases
from medseg.data.layouts import LAYOUTS, PARTS
from medseg.data.recognise import Recognised, recognise
from medseg.data.suggest import count_on, suggest_groups
from medseg.data.survey import Surveyed, survey
from medseg.errors import MedsegError
from medseg.geometry import Length, Unit
from medseg.images import AxesError
from medseg.jobs.plan import job_text, planned, show_settings
from medseg.jobs.questions import Ask, Question, answer
from medseg.planning import Choice

UNKNOWN = "unknown"
NO_GROUPS = "none"
# So many validation cases tell two checkpoints apart, and more take time at every validation.
_VALIDATION_CASES = 16
Setting = tuple[str, Any, str]


@dataclass(frozen=True)
class Answers:
    """What the command line states; None for what is to be found out or asked.

    Args:
        name: Of the data set.
        layout: ``name:setting=value,...``; a part of one that was recognised chooses it.
        kind: ``semantic`` or ``instance``.
        channels: Names, separated by commas.
        labels: ``background=0,vessel=255``; for objects their name.
        pixel_size: ``0.25 um,0.25 um``, in the order x, y, z, or ``unknown``.
        axes: Of the image files, e.g. ``ZYX``.
        groups: ``PATTERN`` or ``PATTERN/2`` for pairs of consecutive numbers, or ``none``.
        yes: Whether proposals are taken without asking.
    """

    name: str | None = None
    layout: str | None = None
    kind: str | None = None
    channels: str | None = None
    labels: str | None = None
    pixel_size: str | None = None
    axes: str | None = None
    groups: str | None = None
    yes: bool = False


@dataclass(frozen=True)
class New:
    """What was understood and written.

    Args:
        card_file: The dataset card.
        job_file: The job.
        card: The card's settings with their reasons.
        choices: The job's settings with theirs.
    """

    card_file: Path
    job_file: Path
    card: Sequence[Setting]
    choices: Sequence[Choice] = field(default_factory=tuple)

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "card": str(self.card_file),
            "job": str(self.job_file),
            "understood": [{"path": p, "value": v, "reason": why} for p, v, why in self.card],
            "choices": [
                {"path": c.path, "value": c.value, "reason": c.reason} for c in self.choices
            ],
        }

    def show(self, console: Console) -> None:
        """Show what was understood and chosen, and what comes next."""
        show_settings(self.card, console)
        show_settings([(c.path, c.value, c.reason) for c in self.choices], console)
        console.print(
            f"card  {self.card_file}\njob   {self.job_file}\n"
            f"next  medseg check {self.card_file}\n"
            f"      medseg train {self.job_file}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def new(
    folder: Path,
    answers: Answers,
    *,
    out: Path = Path(),
    network: str | None = None,
    memory_gb: float | None = None,
    ask: Ask | None = None,
    console: Console,
) -> New:
    """Write a card and a job for a folder of images with labels.

    Args:
        folder: The data set.
        answers: What the command line states.
        out: Folder of the card and the job.
        network: The job's network; that which learnt best if None.
        memory_gb: Memory of the GPU, 0 for none; that of this machine's if None.
        ask: Asks a person what no file says; None where nobody sits.
        console: Where progress is shown.

    Raises:
        MedsegError: Nothing is recognised, something has to be stated, a file is damaged, or card
            or job are there already.
    """
    found = _layout(folder, answers, ask)
    cases = _cases(found)
    axes, surveyed = _surveyed(cases, found, answers, ask)
    name = answers.name or str(found.stated.get("name") or _name(folder))
    card_file, job_file = out / f"{name}.yaml", out / f"{name}_job.yaml"
    settings = [
        ("name", name, ""),
        *_stated(found, "description", "licence"),
        ("root", _root(found.root, out), ""),
        ("layout", {"name": found.layout, **found.settings}, found.seen),
        ("spatial_dims", surveyed.spatial_dims, _images(cases, surveyed)),
        *_kind(found, surveyed, answers, ask),
        _channels(found, surveyed, answers),
        *axes,
        *_pixel_size(surveyed, answers, ask),
    ]
    kind = next(value for path, value, _ in settings if path == "kind")
    settings += [*_labels(kind, found, surveyed, answers, ask), *_parts(cases, found, answers, ask)]
    heading = [
        f"{name}: written by medseg new. Say here what the images show, and add the licence."
    ]
    text = commented_yaml(settings, heading=heading)
    card = parsed(Card, text, card_file)
    choices = planned(
        card,
        cases_of(card, card_file, None),
        source=card_file,
        network=network,
        memory_gb=memory_gb,
        console=console,
    )
    write_new({card_file: text, job_file: job_text(card, card_file, job_file, choices)})
    return New(card_file, job_file, settings, choices)


def _layout(folder: Path, answers: Answers, ask: Ask | None) -> Recognised:
    """Return the layout: the only one recognised, or that which a person chooses."""
    found = recognise(folder)
    if answers.layout is None and len(found) == 1:
        return found[0]
    if not found and answers.layout is None:
        inside = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:12])
        raise MedsegError(
            f"{folder}: no layout is recognised in it; it holds {inside or 'nothing'}\n"
            f"  known layouts: {', '.join(LAYOUTS)}; name one: --layout "
            f"paired_folders:images=photos,labels=drawn\n"
            f"  or list the files in a table cases.csv with the columns case, image, label"
        )
    listed = "".join(f"\n  {one.text}\n    {one.seen}" for one in found)
    question = Question(
        f"{folder}: several layouts fit; which one is it?{listed}",
        "--layout",
        f'"{found[0].text}"' if found else "",
    )
    text = answer(answers.layout, question, ask, accept=False)
    name, _, rest = text.partition(":")
    wanted = {
        key: read_value(value) for key, value in re.findall(r"(\w+)=([^=]*?)(?:,(?=\w+=)|$)", rest)
    }
    fits = [
        one for one in found if one.layout == name and wanted.items() <= {**one.settings}.items()
    ]
    if len(fits) == 1:
        return fits[0]
    return Recognised(folder, name, wanted, "as stated with --layout")


def _cases(found: Recognised) -> list[Case]:
    try:
        return find_cases(found.root, found.layout, found.settings)
    except ValueError as error:
        raise MedsegError(f"--layout {found.text}: {error}") from None


def _surveyed(
    cases: Sequence[Case], found: Recognised, answers: Answers, ask: Ask | None
) -> tuple[list[Setting], Surveyed]:
    """Return the axes that somebody had to state, and what the files say."""
    stated = answers.axes or found.stated.get("axes")
    why = "as stated" if answers.axes else "several channels in one file"
    spacing, unit = _spacing(answers.pixel_size)
    try:
        result = survey(
            cases,
            axes=stated,
            label_axes=stated and stated.replace("C", ""),
            spacing=spacing,
            unit=unit,
        )
    except AxesError as error:
        question = Question(f"{error}", "--axes", "ZYX")
        if answers.axes:
            raise
        chosen = answer(None, question, ask, accept=False)
        return _surveyed(cases, found, replace(answers, axes=chosen.strip().upper()), ask)
    if stated is None:
        return [], result
    settings: list[Setting] = [("axes", stated, why)]
    if "C" in stated:
        settings.append(("label_axes", stated.replace("C", ""), ""))
    return settings, result


def _spacing(text: str | None) -> tuple[tuple[float, ...] | None, Unit | None]:
    if text is None or text == UNKNOWN:
        return None, None
    lengths = _lengths(text)
    return array_order([length.value for length in lengths]), lengths[0].unit


def _lengths(text: str) -> list[Length]:
    try:
        lengths = [Length.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise MedsegError(f"--pixel-size {text}: {error}") from None
    if len({length.unit for length in lengths}) > 1:
        raise MedsegError(f"--pixel-size {text}: all lengths in one unit, please")
    return lengths


def _name(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "_", folder.resolve().name) or "images"


def _root(folder: Path, out: Path) -> str:
    """Return the folder as the card names it: relative if it lies below the card."""
    folder, out = folder.resolve(), out.resolve()
    below = folder.is_relative_to(out)
    return Path(os.path.relpath(folder, out)).as_posix() if below else str(folder)


def _stated(found: Recognised, *keys: str) -> list[Setting]:
    return [(key, found.stated[key], "") for key in keys if key in found.stated]


def _images(cases: Sequence[Case], surveyed: Surveyed) -> str:
    example = surveyed.grids[0].describe()
    labelled = sum(case.labels is not None for case in cases)
    return f"{len(cases)} images, {labelled} with labels, e.g. {example}"


def _kind(
    found: Recognised, surveyed: Surveyed, answers: Answers, ask: Ask | None
) -> list[Setting]:
    most = max(surveyed.distinct)
    if answers.kind is None and "=" in (answers.labels or ""):
        return [("kind", "semantic", "classes are named")]
    if answers.kind is None and "kind" in found.stated:
        return [("kind", found.stated["kind"], f"as data sets of the layout {found.layout} are")]
    if answers.kind is None and surveyed.numbered is not None:
        kind = "instance" if surveyed.numbered else "semantic"
        why = (
            f"a number for each object: up to {most} in an image, other ones in each"
            if surveyed.numbered
            else "one value beside 0"
        )
        return [("kind", kind, why)]
    question = Question(
        f"the labels hold up to {most} values beside 0: {surveyed.describe_values()}\n"
        f"  are these classes (semantic), or does each object have a number of its own (instance)?",
        "--kind",
        "semantic",
    )
    kind = answer(answers.kind, question, ask, accept=False).strip()
    if kind not in ("semantic", "instance"):
        raise MedsegError(f"--kind {kind}: is none of semantic, instance")
    return [("kind", kind, "as stated")]


def _channels(found: Recognised, surveyed: Surveyed, answers: Answers) -> Setting:
    count = surveyed.channels
    if answers.channels is not None:
        names, why = [name.strip() for name in answers.channels.split(",")], "as stated"
    elif "channels" in found.stated:
        names, why = list(found.stated["channels"]), "from dataset.json"
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


def _pixel_size(surveyed: Surveyed, answers: Answers, ask: Ask | None) -> list[Setting]:
    calibrated = surveyed.calibrated and answers.pixel_size is None
    if calibrated:
        return []
    axes = "x,y,z" if surveyed.spatial_dims == 3 else "x,y"
    question = Question(
        f"the files state no pixel size; how large is a pixel along {axes}? ({UNKNOWN}: lengths "
        f"are counted in pixels)",
        "--pixel-size",
        f'"{",".join(["0.5 um"] * surveyed.spatial_dims)}"',
        proposal=UNKNOWN,
    )
    text = answer(answers.pixel_size, question, ask, accept=answers.yes).strip()
    if text == UNKNOWN:
        return []
    sizes = [str(length) for length in _lengths(text)]
    if len(sizes) != surveyed.spatial_dims:
        raise MedsegError(f"--pixel-size {text}: the images have {surveyed.spatial_dims} axes")
    return [("pixel_size", sizes, "as stated; the files carry none")]


def _labels(
    kind: str, found: Recognised, surveyed: Surveyed, answers: Answers, ask: Ask | None
) -> list[Setting]:
    if kind == "instance":
        name = (answers.labels or "object").strip()
        if "=" in name:
            raise MedsegError(f"--labels {name}: name what the objects are, e.g. --labels nucleus")
        why = "1 stands for every number but 0"
        return [("labels", {"background": 0, name: 1}, why)]
    if answers.labels is None and "labels" in found.stated:
        stated: list[Setting] = [("labels", found.stated["labels"], "from dataset.json")]
        return [*stated, *_stated(found, "ignore")]
    values = sorted(surveyed.values)
    example = ",".join(
        f"{'background' if not i else f'name{i}'}={value}" for i, value in enumerate(values[:4])
    )
    question = Question(
        f"the labels hold the values {surveyed.describe_values()}; what do they mean?",
        "--labels",
        example,
    )
    text = answer(answers.labels, question, ask, accept=False)
    return _parse_labels(text)


def _parse_labels(text: str) -> list[Setting]:
    """Return the labels of ``background=0,tumour=1+4,ignore=255``."""
    named: dict[str, int | list[int]] = {}
    for part in text.split(","):
        name, equals, numbers = part.partition("=")
        values = numbers.strip().split("+")
        if not equals or not all(value.strip().isdecimal() for value in values):
            raise MedsegError(f"--labels {text}: write name=value, e.g. background=0,vessel=255")
        ids = [int(value) for value in values]
        named[name.strip()] = ids[0] if len(ids) == 1 else ids
    ignore = named.pop("ignore", None)
    settings: list[Setting] = [("labels", named, "as stated")]
    return settings if ignore is None else [*settings, ("ignore", ignore, "")]


def _parts(
    cases: Sequence[Case], found: Recognised, answers: Answers, ask: Ask | None
) -> list[Setting]:
    """Return how cases are grouped, and how they are split."""
    ready = _ready_split(cases, found)
    if ready is not None and answers.groups is None:
        return [ready]
    names = [case.name for case in cases]
    grouped = len({case.group for case in cases}) < len(cases)
    pattern, consecutive = _groups(names, grouped, answers, ask)
    settings: list[Setting] = []
    groups = len({case.group for case in cases})
    if pattern is not None:
        rule: dict[str, Any] = {"pattern": pattern}
        if consecutive > 1:
            rule["consecutive"] = consecutive
        settings.append(("groups", rule, "what is alike is never divided between the parts"))
        matched = {m[1] for m in (re.search(pattern, name) for name in names) if m}
        groups = len(matched) if consecutive == 1 else max(1, len(matched) // consecutive)
    if pattern is None and not grouped and count_on(names):
        why = "the names count on, as slices and frames do: neighbours look alike"
        return [*settings, ("split", {"name": "blocks", "test": 0.25, "validation": 0.15}, why)]
    validation = float(np.clip(round(_VALIDATION_CASES / len(cases), 2), 0.02, 0.15))
    split = {"name": "group", "test": 0.25, "validation": validation, "seed": 0}
    why = "at random; a quarter is only ever reported on"
    if groups == 2:
        split, why = (
            {"name": "group", "test": 0.0, "validation": 0.5},
            "two groups: none for a test",
        )
    if groups < 2:
        raise MedsegError(
            f"{found.root}: {groups} case or group cannot be split into training and validation\n"
            f"  label at least one more image, better three"
        )
    return [*settings, ("split", split, why)]


def _groups(
    names: Sequence[str], grouped: bool, answers: Answers, ask: Ask | None
) -> tuple[str | None, int]:
    """Return the pattern of the groups, None for none, and how many numbers are one group."""
    text = answers.groups
    if text is None:
        pattern = None if grouped else suggest_groups(names)
        if pattern is None:
            return None, 1
        first = next(name for name in names)
        match = re.search(pattern, first)
        example = match[1] if match else ""
        question = Question(
            f'the names look as if some images belong together: "{first}" would be one of the '
            f'group "{example}" (patient, dish, slide), which is never divided; is that so?\n'
            f"  answer with a pattern whose bracket is the group, or {NO_GROUPS}",
            "--groups",
            f"'{pattern}'",
            proposal=pattern,
        )
        text = answer(None, question, ask, accept=answers.yes)
    if text == NO_GROUPS:
        return None, 1
    pattern, slash, number = text.rpartition("/")
    return (pattern, int(number)) if slash and number.isdecimal() else (text, 1)


def _ready_split(cases: Sequence[Case], found: Recognised) -> Setting | None:
    """Return the split that the folders of a layout with parts state."""
    if found.layout != "parts":
        return None
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for folder in found.settings["parts"]:
        parts[PARTS[folder.lower()]].append(f"{folder}_*")
    why = "the folders' own"
    if not parts["validation"]:
        # Every seventh of the training cases.
        trained = sorted(
            c.name for c in cases if any(c.name.startswith(p[:-1]) for p in parts["train"])
        )
        parts["validation"] = trained[::7]
        parts["train"] = [name for name in trained if name not in set(trained[::7])]
        why += "; every seventh training case validates"
    return ("split", {"name": "as stated", **parts}, why)
