"""What a registered model takes and gives, in MLflow's terms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.geometry import Unit

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def assumed_spacing(
    spatial_dims: int, preparation: Mapping[str, Any]
) -> tuple[tuple[float, ...], Unit]:
    """Return the spacing of an array that comes without one, with the unit of all spacings.

    It is the spacing on which the network was trained, so that nothing is resampled. A model that
    keeps each image's own grid does not ask for it: 1.

    Args:
        spatial_dims: 2 or 3.
        preparation: ``Preparation.to_dict()``.
    """
    unit = Unit(preparation["unit"])
    if preparation["spacing"] is None or unit is Unit.PX:
        return (1.0,) * spatial_dims, unit
    return tuple(float(s) for s in preparation["spacing"]), unit


def signature_of(model_folder: Path) -> "ModelSignature":
    """Return the signature of the model in a folder.

    Input: float32 (batch, channels, *spatial). Output: (batch, *spatial) of the narrowest unsigned
    type that holds the labels. Settings: ``spacing`` and ``direction``.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    spec = json.loads((model_folder / "model.json").read_text(encoding="utf-8"))
    dims: int = spec["spatial_dims"]
    labels = np.min_scalar_type(max(int(value) for value in spec["structures"].values()))
    spacing, _ = assumed_spacing(dims, spec["preparation"])
    free = (-1,) * dims
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(spec["channels"]), *free))]),
        outputs=Schema([TensorSpec(labels, (-1, *free))]),
        params=ParamSchema(
            [
                ParamSpec("spacing", DataType.double, list(spacing), shape=(-1,)),
                ParamSpec("direction", DataType.double, [], shape=(-1,)),
            ]
        ),
    )
