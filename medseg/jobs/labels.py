"""Read a case with its prediction: to be judged, and to be shown in a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config import Card
from medseg.data import Case
from medseg.evaluation import ReportCase, check_same_grid, report_case
from medseg.geometry import Grid
from medseg.images import Image, read_labels

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class JudgedLabels:
    """The labels of one case, as drawn and as predicted (None without a prediction)."""

    reference: Labels
    prediction: Labels | None
    grid: Grid


def judged_labels(case: Case, file: Path | None, card: Card) -> JudgedLabels:
    """Return the classes, or the numbers of objects, of a case.

    Raises:
        MedsegError: A file is unreadable, holds a label that the card does not name, or the
            prediction lies on another grid.
    """
    reference = card.reading().labels(case)
    drawn = card.label_map().classes(reference.array, case.name)
    return JudgedLabels(drawn, _prediction(case, file, card, reference), reference.grid)


def pictured(case: Case, file: Path | None, card: Card, other: Path | None = None) -> ReportCase:
    """Return a case with its image, for the report.

    Args:
        case: The case.
        file: Label file of the prediction.
        card: The data set.
        other: Label file of a second prediction, in a comparison.

    Raises:
        MedsegError: As :func:`judged_labels`; or image and reference lie on different grids.
    """
    labels = card.label_map()
    image, reference = card.reading().pair(case)
    return report_case(
        case.name,
        image.channels_first,
        labels.classes(reference.array, case.name),
        _prediction(case, file, card, reference),
        reference.grid,
        channels=card.channels,
        kind=card.kind,
        ignore=labels.ignored,
        other=_prediction(case, other, card, reference),
    )


def _prediction(case: Case, file: Path | None, card: Card, reference: Image) -> Labels | None:
    if file is None:
        return None
    reading = card.reading()
    predicted = read_labels(file, axes=card.label_axes, spacing=reading.spacing, unit=reading.unit)
    check_same_grid(case.name, reference, predicted)
    return card.label_map().classes(predicted.array, f"{case.name} (prediction)")
