"""The code that MLflow stores beside a model folder, and runs to load it.

MLflow copies this file into the logged model ("models from code"), so nothing is pickled. It needs
medseg installed where it runs; weights and settings come from the model folder.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel


class SegmentationModel(PythonModel):  # type: ignore[misc, unused-ignore]
    """A medseg model that takes and gives arrays.

    Input: (batch, channels, *spatial), all of one size, slowest spatial axis first.
    Output: (batch, *spatial), the label map of each image, as ``medseg predict`` writes it.
    """

    def load_context(self, context: Any) -> None:
        """Open the model folder on the device of ``model_config`` (``cpu`` unless given)."""
        try:
            from medseg.inference import open_model
        except ImportError as error:
            raise ImportError(
                f"this model needs medseg, and it cannot be imported here ({error}); install "
                f"medseg in this environment, and let MLflow use it: --env-manager local"
            ) from error
        settings = context.model_config or {}
        self.model = open_model(
            Path(context.artifacts["model"]), device=settings.get("device", "cpu")
        )

    # The bare np.ndarray is a type that MLflow takes without making a signature of its own.
    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Return label maps.

        Args:
            context: MLflow's, unused.
            model_input: Images of any real type, (batch, channels, *spatial).
            params: ``spacing`` in the model's unit, one number an array axis; if not given, that
                on which the model was trained. ``direction``, the grid's direction row by row, for
                volumes that do not lie along x, y and z; if not given or empty, none is stated.

        Raises:
            ValueError: Another number of axes or channels, or settings that do not fit them.
        """
        from medseg.geometry import Grid

        spec = self.model.spec
        images = np.asarray(model_input)
        axes = ("z", "y", "x")[-spec.spatial_dims :]
        expected = ("batch", "channels", *axes)
        if images.ndim != len(expected) or images.shape[1] != len(spec.channels):
            raise ValueError(
                f"{spec.name}: the array has shape {images.shape}; expected ({', '.join(expected)})"
                f" with {len(spec.channels)} channel(s): {', '.join(spec.channels)}"
            )
        settings = params or {}
        spacing, unit = self.model_spacing()
        spacing = tuple(float(s) for s in settings.get("spacing", spacing))
        direction = _matrix(settings.get("direction", ()), spec.spatial_dims)
        shape = tuple(images.shape[2:])
        if len(spacing) != len(shape):
            raise ValueError(
                f"{spec.name}: spacing has {len(spacing)} number(s); expected {len(shape)}, in "
                f"{unit}, in the order {', '.join(axes)}"
            )
        grid = Grid(shape, spacing, unit, direction=direction)
        return np.stack([self.model.predict(image, grid) for image in images])

    def model_spacing(self) -> tuple[tuple[float, ...], Any]:
        """Return the spacing that is meant where none is given, with its unit."""
        from medseg.tracking.signature import assumed_spacing

        spec = self.model.spec
        return assumed_spacing(spec.spatial_dims, spec.preparation, spec.usual_grid)


def _matrix(flat: Any, spatial_dims: int) -> tuple[tuple[float, ...], ...] | None:
    values = np.asarray(flat, dtype=float)
    if not values.size:
        return None
    if values.size != spatial_dims**2:
        raise ValueError(
            f"direction has {values.size} number(s); expected {spatial_dims**2}: the rows of a "
            f"{spatial_dims} x {spatial_dims} matrix whose columns are the array axes"
        )
    return tuple(tuple(row) for row in values.reshape(spatial_dims, spatial_dims).tolist())


mlflow.models.set_model(SegmentationModel())
