"""One row an object: where it lies, how large it is, how sure the model was."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medseg.exports.objects import EXPORTS, Objects
from medseg.geometry import Unit


def measured(objects: Objects) -> pd.DataFrame:
    """Return size, place and score of each object.

    Returns:
        ``case``, ``id`` (as in the label file), ``class``; ``pixels`` or ``voxels``; where the
        pixel size is known, ``area_um2`` or ``volume_um3`` and the centroid ``x_um``, ``y_um``,
        ``z_um`` in the grid's unit, in world coordinates where the file states any; the centroid
        ``x_px``, ``y_px``, ``z_px`` in voxels, 0 in the middle of the first; ``score``, empty if
        not known. No object gives a table without rows.
    """
    from skimage.measure import regionprops_table

    grid = objects.grid
    flat = grid.spatial_dims == 2
    measure: Any = regionprops_table  # scikit-image's types are not complete
    found = measure(objects.numbers, properties=("area", "centroid"))
    counts = np.asarray(found["area"]).astype(np.int64)
    centroids = np.stack(
        [np.asarray(found[f"centroid-{axis}"], float) for axis in range(grid.spatial_dims)], -1
    ).reshape(-1, grid.spatial_dims)
    columns = {
        "case": [objects.case] * len(objects.ids),
        "id": list(objects.ids),
        "class": list(objects.classes),
        "pixels" if flat else "voxels": counts,
    }
    letters = "xyz"[: grid.spatial_dims]
    if grid.unit is not Unit.PX:
        size = f"area_{grid.unit}2" if flat else f"volume_{grid.unit}3"
        columns[size] = counts * float(np.prod(grid.spacing))
        places = centroids @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]
        columns |= {f"{a}_{grid.unit}": places[:, i] for i, a in enumerate(letters)}
    columns |= {f"{a}_px": centroids[:, -1 - i] for i, a in enumerate(letters)}
    columns["score"] = objects.scores or [float("nan")] * len(objects.ids)
    return pd.DataFrame(columns)


@EXPORTS.register("table", ending=".csv", scored=True)
def write_table(objects: Objects, path: Path) -> None:
    """Write the table of :func:`measured` as CSV."""
    measured(objects).to_csv(path, index=False, float_format="%.7g")
