"""What a registered model takes and gives, in MLflow's terms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.errors import MedsegError
from medseg.geometry import Unit

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def assumed_spacing(
    spatial_dims: int,
    preparation: Mapping[str, Any],
    usual_grid: Mapping[str, Any] | None = None,
) -> tuple[tuple[float, ...], Unit]:
    """Return the spacing of an array that comes without one, with the unit of all spacings.

    It is the spacing on which the network was trained, so that nothing is resampled. For a model
    that keeps each image's own grid, it is that of its training images, by which a CRF measures;
    where nobody has said it, 1.

    Args:
        spatial_dims: 2 or 3.
        preparation: ``Preparation.to_dict()``.
        usual_grid: ``ModelSpec.usual_grid``.
    """
    unit = Unit(preparation["unit"])
    spacing: Sequence[Any] = preparation["spacing"] or (None,)
    if None not in spacing and unit is not Unit.PX:
        return tuple(float(s) for s in spacing), unit
    if usual_grid is not None:
        return tuple(float(s) for s in usual_grid["spacing"]), Unit(usual_grid["unit"])
    return (1.0,) * spatial_dims, unit


def signature_of(model_folder: Path) -> "ModelSignature":
    """Return the signature of the model in a folder.

    Input: float32 (batch, channels, *spatial). Output: (batch, *spatial) of the narrowest unsigned
    type that holds the labels. Settings: ``spacing`` and ``direction``.

    Raises:
        MedsegError: The model has a CRF of physical lengths, and an array would have no pixel size.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    spec = json.loads((model_folder / "model.json").read_text(encoding="utf-8"))
    dims: int = spec["spatial_dims"]
    labels = np.min_scalar_type(max(int(value) for value in spec["structures"].values()))
    if spec.get("objects") is not None:
        labels = np.dtype(np.uint32)  # as many as there are objects
    spacing, unit = assumed_spacing(dims, spec["preparation"], spec.get("usual_grid"))
    crf = spec.get("crf")
    if crf is not None and Unit(crf["unit"]) is not Unit.PX and unit is Unit.PX:
        raise MedsegError(
            f"{model_folder}: its CRF measures in {crf['unit']}, but the model does not say the "
            f"pixel size of an array that comes without one\n"
            f"  state it when the model is made: ModelSpec(usual_grid=...)"
        )
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
