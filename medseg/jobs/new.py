"""From a folder of images and labels to a dataset card and a job."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg.config import Card, cases_of, commented_yaml, parsed, read_value, write_new
from medseg.data import Case, find_cases
from medseg.data.dicom import DICOM_LABELS, NOT_IMAGES
from medseg.data.layouts import LAYOUTS
from medseg.data.recognise import Recognised, recognise
from medseg.data.survey import Surveyed, survey
from medseg.errors import MedsegError
from medseg.images import AxesError, dicom_files
from medseg.jobs.describe import Setting, describe, numbers_of, spacing_of
from medseg.jobs.divide import divide
from medseg.jobs.plan import job_text, planned, show_settings
from medseg.jobs.questions import Interview, Question
from medseg.planning import Choice


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
    choices: Sequence[Choice]

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "card": str(self.card_file),
            "job": str(self.job_file),
            "understood": [{"path": p, "value": v, "reason": why} for p, v, why in self.card],
            "choices": [choice.as_json for choice in self.choices],
        }

    def show(self, console: Console) -> None:
        """Show what was understood and chosen, and what comes next."""
        show_settings(self.card, console)
        show_settings([(c.path, c.value, c.reason) for c in self.choices], console)
        console.print(
            f"card  {self.card_file}\njob   {self.job_file}\n"
            f"next  medseg check {self.card_file} --job {self.job_file}\n"
            f"      medseg train {self.job_file}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def new(
    folder: Path,
    interview: Interview,
    *,
    out: Path = Path(),
    network: str | None = None,
    memory_gb: float | None = None,
    console: Console,
) -> New:
    """Write a card and a job for a folder of images with labels.

    Args:
        folder: The data set.
        interview: What the command line states, and whom to ask for what no file says.
        out: Folder of the card and the job.
        network: The job's network; that which learnt best if None.
        memory_gb: Memory of the GPU, 0 for none; that of this machine's if None.
        console: Where progress is shown.

    Raises:
        MedsegError: Nothing is recognised, something has to be stated, a file is damaged, or card
            or job are there already.
    """
    found = _layout(folder, interview)
    cases = _cases(found)
    interview, surveyed = _surveyed(cases, found, interview)
    name = interview.answers.name or str(found.stated.get("name") or _name(folder))
    card_file, job_file = out / f"{name}.yaml", out / f"{name}_job.yaml"
    settings: list[Setting] = [
        ("name", name, ""),
        *(
            (key, found.stated[key], "")
            for key in ("description", "licence")
            if key in found.stated
        ),
        ("root", _root(found.root, out), ""),
        ("layout", {"name": found.layout, **found.settings}, found.seen),
        *describe(cases, found, surveyed, interview),
        *divide(cases, found, interview),
    ]
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


def _layout(folder: Path, interview: Interview) -> Recognised:
    """Return the layout: the only one recognised, or that which a person chooses."""
    found = recognise(folder)
    stated = interview.answers.layout
    if stated is None and len(found) == 1:
        return found[0]
    if not found and stated is None:
        inside = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:12])
        raise MedsegError(
            f"{folder}: no layout is recognised in it; it holds {inside or 'nothing'}\n"
            f"  known layouts: {', '.join(LAYOUTS)}; name one: --layout "
            f"paired_folders:images=photos,labels=drawn\n"
            f"  or list the files in a table cases.csv with the columns case, image, label"
            f"{_dicom_hint(folder)}"
        )
    listed = "".join(f"\n  {one.text}\n    {one.seen}" for one in found)
    question = Question(
        f"{folder}: several layouts fit; which one is it?{listed}",
        "--layout",
        f'"{found[0].text}"' if found else "",
    )
    name, _, rest = interview.answer(stated, question).partition(":")
    pairs = re.findall(r"(\w+)=([^=]*?)(?:,(?=\w+=)|$)", rest)
    wanted = {key: read_value(value) for key, value in pairs}
    fits = [one for one in found if one.layout == name and wanted.items() <= one.settings.items()]
    return fits[0] if len(fits) == 1 else Recognised(folder, name, wanted, "as stated")


def _dicom_hint(folder: Path) -> str:
    files = dicom_files(folder)
    if not files:
        return ""
    series = len({file.path.parent for file in files if file.kind not in NOT_IMAGES})
    drawn = sum(file.kind in DICOM_LABELS for file in files)
    return (
        f"\n  there are {len(files)} DICOM files in it: {series} folders of images, {drawn} "
        f"RTSTRUCT or SEG; the dicom layout takes a folder for each case, with one series and its "
        f"RTSTRUCT or SEG somewhere in it"
    )


def _cases(found: Recognised) -> list[Case]:
    try:
        return find_cases(found.root, found.layout, found.settings)
    except ValueError as error:
        raise MedsegError(f"--layout {found.text}: {error}") from None


def _surveyed(
    cases: Sequence[Case], found: Recognised, interview: Interview
) -> tuple[Interview, Surveyed]:
    """Return what the files say, and the interview with the axes that somebody had to state."""
    answers = interview.answers
    axes = answers.axes or found.stated.get("axes")
    spacing, unit = spacing_of(answers.pixel_size)
    try:
        surveyed = survey(
            cases,
            axes=axes,
            label_axes=axes and axes.replace("C", ""),
            spacing=spacing,
            unit=unit,
            numbers=numbers_of(found, interview),
        )
    except AxesError as error:
        if axes:
            raise
        chosen = interview.answer(None, Question(str(error), "--axes", "ZYX")).upper()
        stated = replace(interview, answers=replace(answers, axes=chosen))
        return _surveyed(cases, found, stated)
    return interview, surveyed


def _name(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "_", folder.resolve().name) or "images"


def _root(folder: Path, out: Path) -> str:
    """Return the folder as the card names it: relative if it lies below the card."""
    folder, out = folder.resolve(), out.resolve()
    below = folder.is_relative_to(out)
    return Path(os.path.relpath(folder, out)).as_posix() if below else str(folder)
