"""``check.html``: what was found, and pictures of the cases with their borders, in one file."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from medseg import __version__
from medseg.doctor.facts import CaseFacts
from medseg.doctor.findings import SEVERITIES, Finding
from medseg.doctor.thumbnail import RED
from medseg.evaluation.overlay import YELLOW
from medseg.files import written_whole

FLAGGED = 96  # pictures of cases with findings, the gravest first
SOUND = 24  # pictures of others, spread over the data set


@dataclass(frozen=True)
class Tile:
    """One case with its picture.

    Args:
        case: Its name.
        group: What must not be split.
        part: Part of the split; empty if it is in none.
        picture: A ``data:`` address; empty if there is no picture.
        grid: Its size.
        findings: What was found in it, the gravest first.
    """

    case: str
    group: str
    part: str
    picture: str
    grid: str
    findings: tuple[Finding, ...]


def write_report(
    path: Path,
    *,
    name: str,
    facts: Mapping[str, str],
    findings: Sequence[Finding],
    cases: Sequence[CaseFacts] = (),
    part_of: Mapping[str, str] | None = None,
) -> None:
    """Write the report as one HTML file that asks no server for anything.

    Args:
        path: The file to write; an existing one is replaced whole.
        name: The data set.
        facts: Numbers of cases and groups, sizes, shares.
        findings: All findings, the gravest first.
        cases: All cases.
        part_of: Part of the split by case.
    """
    environment = Environment(
        loader=PackageLoader("medseg.doctor", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    flagged, sound = _tiles(cases, findings, part_of or {})
    html = environment.get_template("check.html.j2").render(
        name=name,
        facts=facts,
        findings=findings,
        counts=Counter(finding.severity for finding in findings),
        severities=SEVERITIES,
        flagged=flagged,
        not_shown=len({f.case for f in findings if f.case}) - len(flagged),
        sound=sound,
        yellow=YELLOW,
        red=RED,
        version=__version__,
    )
    with written_whole(path) as aside:
        aside.write_text(html, encoding="utf-8")


def _tiles(
    cases: Sequence[CaseFacts], findings: Sequence[Finding], part_of: Mapping[str, str]
) -> tuple[list[Tile], list[Tile]]:
    """Return the cases with findings, the gravest first, and some of the others."""
    known = {case.name: case for case in cases}
    of: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.case in known:
            of.setdefault(finding.case, []).append(finding)
    others = [name for name in known if name not in of]
    spread = np.linspace(0, len(others) - 1, min(SOUND, len(others))).round().astype(int)

    def tile(name: str) -> Tile:
        case = known[name]
        encoded = base64.b64encode(case.thumbnail).decode()
        return Tile(
            case=name,
            group=case.group,
            part=part_of.get(name, ""),
            picture=f"data:image/jpeg;base64,{encoded}" if encoded else "",
            grid=case.image.grid.describe() if case.image else "",
            findings=tuple(of.get(name, ())),
        )

    return [tile(name) for name in list(of)[:FLAGGED]], [tile(others[i]) for i in spread]
