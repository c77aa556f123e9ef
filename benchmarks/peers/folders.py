"""Reading what export.py wrote as folders, and writing what a tool found; needs tifffile."""

from typing import Any

import numpy as np
import running
import tifffile
from numpy.typing import NDArray

Array = NDArray[Any]


def read(run: running.Run, part: str, kind: str = "images") -> list[Array]:
    """Return the ``images`` or ``labels`` of a part, in the order of its names."""
    folder = run.data / part / kind
    return [tifffile.imread(folder / f"{name}.tif") for name in run.names(part)]


def write(run: running.Run, name: str, labels: Array) -> None:
    """Write the objects of a test image where ``medseg evaluate`` looks for them."""
    tifffile.imwrite(run.out / "predictions" / f"{name}.tif", labels.astype(np.uint16))
