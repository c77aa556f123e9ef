"""A model: network, preparation and labels in one folder that is safe to open.

The folder holds ``model.json`` (everything that is needed to predict), ``weights.safetensors``,
and for people the job, the card and the split that made it. Nothing in it is ever unpickled.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.inference.crf import DenseCRF
from medseg.inference.objects import ObjectFinder
from medseg.inference.slabs import find_in_slabs
from medseg.inference.sliding import Precision, probabilities_of, sliding_window
from medseg.networks import NETWORKS, Network
from medseg.transforms import Preparation, Prepared

FORMAT = "medseg-model/1"
MOST_SCORES = 2**28  # held at once to find objects in them, 4 bytes each
SPEC_FILE = "model.json"


@dataclass(frozen=True)
class ModelSpec:
    """What ``model.json`` says.

    Args:
        name: What the model is called.
        spatial_dims: 2 or 3.
        channels: Names of the image's channels, in order.
        structures: File value of each class, background first; class ``i`` is the i-th name.
        network: Name of the architecture.
        network_settings: Its settings, as in the job.
        preparation: ``Preparation.to_dict()``.
        window_voxels: Window of the sliding prediction, array order, of the network's axes.
        overlap: Overlap of neighbouring windows.
        mirror_axes: Array axes along which the anatomy may be mirrored.
        mirror: Whether mirrored views are averaged unless somebody asks otherwise.
        scales: Sizes at which every window is seen; the results are averaged.
        crf: ``DenseCRF.to_dict()`` and the ``unit`` of its lengths (in ``px`` they count voxels of
            the prepared image); None for the network's probabilities as they are.
        objects: ``ObjectFinder.to_dict()`` where labels are objects; None where they are classes.
        usual_grid: ``spacing`` (array order) and ``unit`` of the training images, where the
            preparation names no physical spacing; an array that comes without a grid has them.
        neighbours: The network sees the planes of a stack one by one, with this many on each side
            as further channels; None where it sees the image whole.
        axes: Axes of the image files, where they do not say it themselves (``CZYX``).
        provenance: Job hash, split hash, data digest, code version, scores.
    """

    name: str
    spatial_dims: int
    channels: tuple[str, ...]
    structures: Mapping[str, int]
    network: str
    network_settings: Mapping[str, Any]
    preparation: Mapping[str, Any]
    window_voxels: tuple[int, ...]
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    mirror: bool = False
    scales: tuple[float, ...] = (1.0,)
    crf: Mapping[str, Any] | None = None
    objects: Mapping[str, Any] | None = None
    usual_grid: Mapping[str, Any] | None = None
    neighbours: int | None = None
    axes: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finder(self) -> ObjectFinder | None:
        """What finds objects in the network's scores; None where labels are classes."""
        if self.objects is None:
            return None
        return ObjectFinder.from_dict(self.spatial_dims, self.objects)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each output of the network says: the classes, or parts of objects."""
        return tuple(self.structures) if self.finder is None else self.finder.method.outputs

    def build_network(self, *, pretrained: bool = True) -> Network:
        """Return the network with fresh weights.

        Args:
            pretrained: Whether it may download weights where its settings ask for them; pointless
                where others take their place.
        """
        settings = dict(self.network_settings)
        if not pretrained:
            settings.pop("pretrained", None)
        return NETWORKS.build(
            self.network,
            self.spatial_dims if self.neighbours is None else 2,
            len(self.channels) * (2 * (self.neighbours or 0) + 1),
            len(self.outputs),
            **settings,
        )


class Model:
    """A trained network that takes images as they are and gives labels on their own grid."""

    def __init__(self, spec: ModelSpec, network: nn.Module, device: str = "cpu") -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.preparation = Preparation.from_dict(dict(spec.preparation))
        self.finder = spec.finder
        self._crf = None if spec.crf is None else _crf_of(spec.crf)
        values = np.array(list(spec.structures.values()))
        self._values = values.astype(np.min_scalar_type(int(values.max())))

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> "Model":
        """Open a model folder.

        Raises:
            MedsegError: The folder is no model, is damaged, or a newer medseg made it.
        """
        folder = Path(folder)
        spec_file, weights_file = folder / SPEC_FILE, folder / "weights.safetensors"
        for file in (spec_file, weights_file):
            if not file.is_file():
                raise MedsegError(f"{folder}: not a model folder, there is no {file.name}")
        try:
            stored = dict(json.loads(spec_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise MedsegError(f"{spec_file}: damaged ({error}); copy the model again") from None
        found = stored.pop("format", None)
        if found != FORMAT:
            raise MedsegError(
                f"{spec_file}: written as {found}, this medseg reads {FORMAT}; use the medseg that "
                f"made it"
            )
        if _sha256(weights_file) != stored.pop("weights_sha256", None):
            raise MedsegError(
                f"{weights_file}: damaged, its checksum differs from model.json's; copy the model "
                f"again"
            )
        try:
            for key in {"channels", "window_voxels", "mirror_axes", "scales"} & stored.keys():
                stored[key] = tuple(stored[key])
            spec = ModelSpec(**stored)
            network = spec.build_network(pretrained=False)
            network.load_state_dict(load_file(weights_file))
            return cls(spec, network, device)
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise MedsegError(
                f"{folder}: model.json and weights.safetensors make no model ({error})"
            ) from error

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over names and values of the weights, 64 hex digits."""
        digest = hashlib.sha256()
        for name, weights in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + weights.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``model.json`` and ``weights.safetensors`` into an existing folder."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        weights_file = folder / "weights.safetensors"
        save_file(weights, weights_file)
        content = {"format": FORMAT, **asdict(self.spec), "weights_sha256": _sha256(weights_file)}
        text = json.dumps(content, indent=2) + "\n"
        (folder / SPEC_FILE).write_text(text, encoding="utf-8")

    def predict(
        self,
        array: NDArray[Any],
        grid: Grid,
        *,
        mirror: bool | None = None,
        crf: bool = True,
        precision: Precision = "fp32",
    ) -> NDArray[Any]:
        """Return the label map on the image's own grid.

        Args:
            array: The image, (channels, *spatial), as read.
            grid: Its grid.
            mirror: Average mirrored views; None for what the model was made for.
            crf: Refine with the model's CRF, if it has one.
            precision: Number format of the network's arithmetic.

        Returns:
            (*spatial), the file value of each voxel's class, in the narrowest unsigned type; or
            the number of its object, uint32.

        Raises:
            ValueError: Another number of channels or axes than the model was trained on, or an
                image that its CRF cannot refine.
        """
        prepared, rows = self._rows(array, grid, mirror, crf, precision)
        if self.finder is not None:
            return self._objects(self.finder, prepared, rows, grid)
        if prepared.resampled:
            return self.labels_of(self._restored(whole(rows), grid))
        # On its own voxels the image needs no restored scores: each finished row becomes labels.
        classes = torch.cat([part.argmax(0).to(torch.int16) for part in rows])
        restored = self.preparation.restore_labels(classes[None], grid)[0]
        labels: NDArray[Any] = self._values[restored.cpu().numpy()]
        return labels

    def probabilities(
        self,
        array: NDArray[Any],
        grid: Grid,
        *,
        mirror: bool | None = None,
        crf: bool = True,
        precision: Precision = "fp32",
    ) -> NDArray[np.float32]:
        """Return the network's scores on the image's own grid, (outputs, *spatial).

        They are the probabilities of the classes; where labels are objects, what the method says.
        """
        _, rows = self._rows(array, grid, mirror, crf, precision)
        return self._restored(whole(rows), grid)

    def predict_with_probabilities(
        self,
        array: NDArray[Any],
        grid: Grid,
        *,
        mirror: bool | None = None,
        crf: bool = True,
        precision: Precision = "fp32",
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return what :meth:`predict` and :meth:`probabilities` do, of one pass."""
        prepared, rows = self._rows(array, grid, mirror, crf, precision)
        scores = whole(rows)
        restored = self._restored(scores, grid)
        if self.finder is None:
            return self.labels_of(restored), restored
        return self._objects(self.finder, prepared, iter([scores]), grid), restored

    def _restored(self, scores: Tensor, grid: Grid) -> NDArray[np.float32]:
        restored: NDArray[np.float32] = self.preparation.restore(scores, grid).cpu().numpy()
        return restored

    def prepared_probabilities(
        self, array: NDArray[Any], grid: Grid, *, precision: Precision = "fp32"
    ) -> tuple[Prepared, Tensor]:
        """Return the image as the network sees it, and its scores (outputs, *prepared)."""
        prepared, rows = self._rows(array, grid, None, True, precision)
        return prepared, whole(rows)

    def labels_of(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return the label map of class probabilities (classes, *spatial)."""
        labels: NDArray[Any] = self._values[probabilities.argmax(0)]
        return labels

    def _objects(
        self, finder: ObjectFinder, prepared: Prepared, rows: Iterator[Tensor], grid: Grid
    ) -> NDArray[np.uint32]:
        """Return the objects on the image's own grid, found on the grid of the network.

        Of a large image as many rows at a time as :data:`MOST_SCORES` allows.
        """
        spacing = prepared.grid.spacing_in(finder.unit)
        a_row = len(self.spec.outputs) * math.prod(prepared.grid.shape[1:])
        margin = min(self.spec.window_voxels[0], prepared.grid.shape[0])
        found = find_in_slabs(
            (part.cpu().numpy() for part in rows),
            lambda scores: finder.find(scores, spacing),
            thickness=max(margin, MOST_SCORES // a_row - 2 * margin),
            margin=margin,
        )
        ids = torch.from_numpy(found.astype(np.int32))
        labels: NDArray[np.uint32] = (
            self.preparation.restore_labels(ids[None], grid)[0].numpy().astype(np.uint32)
        )
        return labels

    def _rows(
        self, array: NDArray[Any], grid: Grid, mirror: bool | None, crf: bool, precision: Precision
    ) -> tuple[Prepared, Iterator[Tensor]]:
        spec = self.spec
        if array.ndim != spec.spatial_dims + 1 or array.shape[0] != len(spec.channels):
            raise ValueError(
                f"the model takes {len(spec.channels)} channel(s) ({', '.join(spec.channels)}) in "
                f"{spec.spatial_dims}D; the image has {array.shape[0]} channel(s) of "
                f"{grid.describe()}"
            )
        prepared = self.preparation.prepare(array, grid)
        mirrored = spec.mirror if mirror is None else mirror
        if mirrored and self.finder is not None and not self.finder.method.averages:
            raise ValueError(
                f"the outputs of a model of {self.finder.name} point in a direction: mirrored "
                f"views cannot be averaged"
            )
        scores = probabilities_of(
            self.network,
            mirror_axes=spec.mirror_axes if mirrored else (),
            scales=spec.scales,
            precision=precision,
            **({} if self.finder is None else {"activation": self.finder.method.scores}),
        )
        image = prepared.tensor.to(self.device)
        rows = sliding_window(
            scores,
            image,
            window=spec.window_voxels,
            overlap=spec.overlap,
            neighbours=spec.neighbours or 0,
        )
        if self._crf is None or not crf:
            return prepared, rows
        dense, unit = self._crf
        try:
            spacing = prepared.grid.spacing_in(unit)
            # Every voxel is every other's neighbour: the rows are needed whole.
            return prepared, iter([dense.refine(whole(rows), prepared.tensor, spacing)])
        except ValueError as error:
            raise ValueError(
                f"the model's CRF cannot be applied: {error}\n"
                f"  or predict without it: --no-crf, in Python crf=False"
            ) from error


def _crf_of(saved: Mapping[str, Any]) -> tuple[DenseCRF, Unit]:
    settings = dict(saved)
    unit = Unit(settings.pop("unit"))
    return DenseCRF.from_dict(settings), unit


def whole(rows: Iterator[Tensor]) -> Tensor:
    """Return an image whose rows are given in order."""
    return torch.cat(list(rows), dim=1)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
