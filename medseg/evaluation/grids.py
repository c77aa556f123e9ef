"""Refuse to judge a prediction that lies elsewhere than its reference."""

from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import MedsegError
from medseg.geometry import Grid

if TYPE_CHECKING:  # the readers of medseg.images are not needed to judge arrays
    from medseg.images.image import Image


def check_same_grid(case: str, reference: "Image", prediction: "Image") -> None:
    """Refuse a prediction that does not lie on the reference's grid.

    Raises:
        MedsegError: The grids differ; the message shows both and says what to do.
    """
    drawn, predicted = reference.grid, prediction.grid
    if drawn.matches(predicted):
        return
    lines = [
        f"{case}: the prediction lies on another grid than the reference",
        f"  reference   {drawn.describe()}",
        f"  prediction  {predicted.describe()}",
    ]
    if drawn.describe() == predicted.describe():
        for which, grid in (("reference", drawn), ("prediction", predicted)):
            lines.append(f"  the {which + chr(39) + 's':<12} {_place(grid)}")
    lines.append(
        "  resample the prediction onto the reference's grid first (nearest neighbour), or predict "
        "again with medseg predict, which writes on each image's own grid"
    )
    raise MedsegError("\n".join(lines))


def _place(grid: Grid) -> str:
    first = "unknown"
    if grid.origin is not None:
        first = f"({', '.join(f'{x:.6g}' for x in grid.origin)}) {grid.unit}"
    axes = "unknown"
    if grid.direction is not None:
        columns = np.array(grid.direction).T[::-1]
        axes = ", ".join(f"({' '.join(f'{v:.3g}' for v in column)})" for column in columns)
    return f"first voxel lies at {first} (x, y, z); its axes point along {axes}"
