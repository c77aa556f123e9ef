"""Read every case of a data set before a night of training does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from medseg.config import Card, cases_of, read_card
from medseg.data import SPLITS, Case
from medseg.errors import MedsegError


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        name: The data set.
        facts: Numbers of cases and groups, sizes, share of each structure.
        faults: What must be mended, one message each.
        warnings: What should be looked at.
    """

    name: str
    facts: dict[str, str]
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self)


def check(card_file: Path, *, data_root: Path | None = None, console: Console) -> Checked:
    """Read every image and label of a data set and list what is wrong.

    Args:
        card_file: The dataset card.
        data_root: Folder below which the card's root lies.
        console: Where progress is shown.

    Raises:
        MedsegError: The card itself is wrong, or the files do not pair.
    """
    card = read_card(card_file)
    cases = cases_of(card, card_file, data_root)
    faults: list[str] = []
    warnings: list[str] = []
    voxels: Counter[str] = Counter()
    grids: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for case in track(cases, "reading", console=console, disable=not console.is_terminal):
        try:
            counts, grid = _read(case, card)
        except (MedsegError, ValueError, OSError) as error:
            faults.append(str(error))
            continue
        voxels.update(counts)
        grids[grid] += 1
        present.update(name for name, count in counts.items() if count)
        if counts and not any(count for name, count in counts.items() if name != "background"):
            warnings.append(f"{case.name}: holds no structure, only background")
    total = sum(voxels.values())
    facts = {
        "cases": str(len(cases)),
        "groups": str(len({case.group for case in cases})),
        "images": "; ".join(f"{n} of {grid}" for grid, n in grids.most_common(3))
        + (f"; {len(grids) - 3} other sizes" if len(grids) > 3 else ""),
    }
    for name in card.label_map().names:
        share = voxels[name] / total if total else 0.0
        facts[name] = f"{share:.2%} of the voxels, in {present[name]} cases"
        if not present[name] and not faults:
            faults.append(f"{name}: no case has it; the card names a label that is never drawn")
    faults += _split_faults(card, cases)
    return Checked(card.name, facts, faults, warnings)


def _read(case: Case, card: Card) -> tuple[dict[str, int], str]:
    """Return the voxels of each class and the grid."""
    reading, labels = card.reading(), card.label_map()
    if case.labels is None:
        return {}, reading.image(case).grid.describe()
    image, reference = reading.pair(case)
    return labels.voxels(reference.array, case.name), image.grid.describe()


def _split_faults(card: Card, cases: Sequence[Case]) -> list[str]:
    """Return why the card's own split cannot be made, if it cannot."""
    if card.split is None:
        return []
    try:
        SPLITS.build(card.split.name, cases, **card.split.settings)
    except (MedsegError, ValueError) as error:
        return [f"split: {error}"]
    return []
