"""Label images with a model, each on its own grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from medseg.data import Case, Reading
from medseg.errors import MedsegError
from medseg.geometry import Length
from medseg.images import Image, image_suffix, is_image_file, write_image, write_labels
from medseg.inference import Model
from medseg.inference.sliding import Precision

# What a label map is written as, where the image's own format is not fit for labels.
LABEL_SUFFIX = {".bmp": ".png", ".jpg": ".png", ".jpeg": ".png", "": ".nii.gz"}


@dataclass(frozen=True)
class Predicted:
    """What a prediction run did.

    Args:
        written: Label file of each case.
        failed: Message of each case that could not be predicted.
    """

    written: dict[str, Path]
    failed: dict[str, str]

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        written = {case: str(file) for case, file in self.written.items()}
        return {"written": written, "failed": self.failed}


def predict(
    model: str,
    inputs: Sequence[Path],
    output: Path,
    *,
    tracking_uri: str | None = None,
    pixel_size: Sequence[Length] = (),
    mirror: bool | None = None,
    probabilities: bool = False,
    strict: bool = False,
    device: str = "auto",
    precision: Precision = "fp32",
    console: Console,
) -> Predicted:
    """Predict images, folders of images and DICOM series.

    Args:
        model: A model folder, a run's folder or MLflow id, or ``models:/NAME@ALIAS``.
        inputs: Image files, folders of images, or folders that each hold one DICOM series.
        output: Folder of the label maps; made if it is not there.
        tracking_uri: Where ``models:/`` and runs are looked up.
        pixel_size: In the order x, y[, z], for images that carry none.
        mirror: Average mirrored views; None for what the model was made for.
        probabilities: Write the probability of each class, too.
        strict: Stop at the first image that cannot be predicted.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: Number format of the network's arithmetic.
        console: Where progress and failures are shown.

    Raises:
        MedsegError: No such model, no image, or, if strict, an image that cannot be predicted.
    """
    loaded = load_model(model, tracking_uri=tracking_uri, device=device)
    reading = Reading(
        channels=loaded.spec.channels,
        axes=loaded.spec.axes,
        spacing=tuple(length.value for length in reversed(pixel_size)) or None,
        unit=pixel_size[0].unit if pixel_size else None,
    )
    return predict_cases(
        loaded,
        _cases(inputs),
        reading,
        output,
        mirror=mirror,
        probabilities=probabilities,
        strict=strict,
        precision=precision,
        console=console,
    )


def load_model(model: str, *, tracking_uri: str | None, device: str) -> Model:
    """Return a model from a folder, a run or the registry, on the device."""
    import torch

    from medseg.tracking import resolve

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    of_run = Path(model) / "model"
    where = of_run if of_run.is_dir() else resolve(model, tracking_uri=tracking_uri)
    return Model.load(where, chosen)


def predict_cases(
    model: Model,
    cases: Iterable[Case],
    reading: Reading,
    output: Path,
    *,
    mirror: bool | None = None,
    probabilities: bool = False,
    strict: bool = False,
    precision: Precision = "fp32",
    console: Console,
) -> Predicted:
    """Predict cases one after the other; a broken one does not stop the others unless strict."""
    output.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    failed: dict[str, str] = {}
    how: dict[str, Any] = {"mirror": mirror, "precision": precision}
    for case in track(list(cases), "predicting", console=console, disable=not console.is_terminal):
        try:
            image = reading.image(case)
            if probabilities:
                scores = model.probabilities(image.channels_first, image.grid, **how)
                write_probabilities(output / "probabilities", case, image, model, scores)
                labels = model.labels_of(scores)
            else:
                labels = model.predict(image.channels_first, image.grid, **how)
            file = output / f"{case.name}{label_suffix(case)}"
            write_labels(file, labels, image)
            written[case.name] = file
        except (MedsegError, ValueError, OSError, MemoryError) as error:
            message = str(error) or type(error).__name__
            failed[case.name] = message if case.name in message else f"{case.name}: {message}"
            if strict:
                raise MedsegError(failed[case.name]) from error
            console.print(f"left out: {failed[case.name]}", style="yellow", markup=False)
    return Predicted(written, failed)


def label_suffix(case: Case) -> str:
    """Return the suffix of a case's label file, from that of its image."""
    suffix = image_suffix(case.images[0])
    return LABEL_SUFFIX.get(suffix.lower(), suffix)


def write_probabilities(folder: Path, case: Case, image: Image, model: Model, scores: Any) -> None:
    """Write one file a class, ``CASE_STRUCTURE``, in a format that holds fractions."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = label_suffix(case)
    suffix = ".tif" if suffix == ".png" else suffix
    axes = image.axes.removeprefix("C")
    for name, part in zip(model.spec.structures, scores, strict=True):
        single = replace(image, array=part, axes=axes, channels=())
        write_image(folder / f"{case.name}_{name}{suffix}", single)


def _cases(inputs: Sequence[Path]) -> list[Case]:
    files: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise MedsegError(f"{path}: there is no such file or folder")
        if path.is_file() or is_image_file(path):
            files.append(path)
        else:
            files += [file for file in sorted(path.iterdir()) if is_image_file(file)]
    if not files:
        raise MedsegError(f"{', '.join(map(str, inputs))}: no image in it that medseg can read")
    names = [file.name.removesuffix(image_suffix(file)) for file in files]
    for name, file in zip(names, files, strict=True):
        if names.count(name) > 1:
            raise MedsegError(f"{file}: two inputs would both be written as {name}; rename one")
    return [Case(name, (file,), None, name) for name, file in zip(names, files, strict=True)]
