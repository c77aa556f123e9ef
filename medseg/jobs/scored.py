"""A validation case as the trained network sees it: what is chosen last is chosen on these."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.data import Case
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.inference import Model
from medseg.jobs.fitting import Work


@dataclass(frozen=True, eq=False)
class ScoredCase:
    """A case on the network's grid.

    Args:
        image: (channels, *spatial), as the network sees it.
        scores: (outputs, *spatial), the network's.
        reference: (*spatial), what it was to learn; negative where nobody judged.
        spacing: Of the voxels, in the unit that was asked for.
    """

    image: NDArray[Any]
    scores: NDArray[np.float32]
    reference: NDArray[Any]
    spacing: tuple[float, ...]


def scored_case(work: Work, model: Model, case: Case, unit: Unit) -> ScoredCase:
    """Read, prepare and predict a case.

    Raises:
        MedsegError: It cannot be, or it has no pixel size and the unit is physical; names the case.
    """
    image, labels = work.card.reading().pair(case)
    learnt = work.card.label_map().learnt(labels.array, case.name)
    try:
        prepared, scores = model.prepared_probabilities(image.channels_first, image.grid)
        reference = model.preparation.prepare_labels(learnt, image.grid)[0]
        spacing = prepared.grid.spacing_in(unit)
    except ValueError as error:
        raise MedsegError(f"{case.name}: {error}") from None
    return ScoredCase(prepared.tensor.numpy(), scores.cpu().numpy(), reference.numpy(), spacing)
