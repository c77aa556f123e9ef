"""Label images with a model, each on its own grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from medseg.data import Case, Reading
from medseg.errors import MedsegError
from medseg.exports import export
from medseg.geometry import Length, Unit
from medseg.images import (
    Image,
    image_name,
    image_suffix,
    is_image_file,
    write_image,
    write_labels,
)
from medseg.inference import Model, open_model
from medseg.inference.sliding import Precision
from medseg.jobs.exports import (
    check_exports,
    check_zarr,
    need_scores,
    objects_of,
    write_into_zarr,
)

# What a label map is written as, where the image's own format is not fit for labels.
LABEL_SUFFIX = {
    **{".bmp": ".png", ".jpg": ".png", ".jpeg": ".png", "": ".nii.gz"},
    **{".ome.zarr": ".ome.tif", ".zarr": ".ome.tif"},
    **{".czi": ".ome.tif", ".nd2": ".ome.tif"},
}


@dataclass(frozen=True)
class Predicted:
    """What a prediction run did.

    Args:
        written: Label file of each case.
        failed: Message of each case that could not be predicted.
        exported: What else was written of each case.
    """

    written: dict[str, Path]
    failed: dict[str, str]
    exported: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        written = {case: str(file) for case, file in self.written.items()}
        exported = {case: list(map(str, files)) for case, files in self.exported.items()}
        more = {"exported": exported} if exported else {}
        return {"written": written, "failed": self.failed, **more}


def predict(
    model: str,
    inputs: Sequence[Path],
    output: Path,
    *,
    tracking_uri: str | None = None,
    pixel_size: Sequence[Length] = (),
    mirror: bool | None = None,
    crf: bool = True,
    probabilities: bool = False,
    write: Sequence[str] = (),
    zarr_labels: str = "",
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
        crf: Refine with the model's CRF, if it has one.
        probabilities: Write the probability of each class, too.
        write: What else to write of each image, names of EXPORTS.
        zarr_labels: Name under which the labels are written into each OME-Zarr, too.
        strict: Stop at the first image that cannot be predicted.
        device: ``auto``, ``cpu`` or ``gpu``.
        precision: Number format of the network's arithmetic.
        console: Where progress and failures are shown.

    Raises:
        MedsegError: No such model, no image, or, if strict, an image that cannot be predicted.
    """
    check_exports(write)
    cases = _cases(inputs)
    check_zarr(cases, zarr_labels)
    spacing, unit = _spacing(pixel_size)
    loaded = load_model(model, tracking_uri=tracking_uri, device=device)
    reading = Reading(
        channels=loaded.spec.channels, axes=loaded.spec.axes, spacing=spacing, unit=unit
    )
    return predict_cases(
        loaded,
        cases,
        reading,
        output,
        mirror=mirror,
        crf=crf,
        probabilities=probabilities,
        write=write,
        zarr_labels=zarr_labels,
        strict=strict,
        precision=precision,
        console=console,
    )


def load_model(model: str, *, tracking_uri: str | None, device: str) -> Model:
    """Return a model from a folder, a run or the registry, on the device.

    Raises:
        MedsegError: There is no such model or no such device.
    """
    from medseg.tracking import resolve

    of_run = Path(model) / "model"
    where = of_run if of_run.is_dir() else resolve(model, tracking_uri=tracking_uri)
    return open_model(where, torch_device(device))


def torch_device(device: str) -> str:
    """Return PyTorch's name for ``auto``, ``cpu`` or ``gpu``.

    Raises:
        MedsegError: There is no GPU.
    """
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise MedsegError("--device gpu: PyTorch finds no GPU here; leave it out, or say cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def predict_cases(
    model: Model,
    cases: Iterable[Case],
    reading: Reading,
    output: Path,
    *,
    mirror: bool | None = None,
    crf: bool = True,
    probabilities: bool = False,
    write: Sequence[str] = (),
    zarr_labels: str = "",
    strict: bool = False,
    precision: Precision = "fp32",
    console: Console,
) -> Predicted:
    """Predict cases one after the other; a broken one does not stop the others unless strict.

    Raises:
        MedsegError: A label map would replace an image, or, if strict, a case cannot be predicted.
    """
    cases = list(cases)
    _keep_images(cases, output)
    output.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    failed: dict[str, str] = {}
    exported: dict[str, list[Path]] = {}
    how: dict[str, Any] = {"mirror": mirror, "crf": crf, "precision": precision}
    for case in track(cases, "predicting", console=console, disable=not console.is_terminal):
        try:
            image = reading.image(case)
            scores = None
            if probabilities or need_scores(write):
                labels, scores = model.predict_with_probabilities(
                    image.channels_first, image.grid, **how
                )
                if probabilities:
                    write_probabilities(output / "probabilities", case, image, model, scores)
            else:
                labels = model.predict(image.channels_first, image.grid, **how)
            file = _label_file(case, output)
            write_labels(file, labels, image)
            if write:
                objects = objects_of(case, model.spec, labels, image.grid, scores)
                exported[case.name] = [export(name, objects, output) for name in write]
            if zarr_labels:
                inside = write_into_zarr(case, zarr_labels, labels, model.spec)
                exported.setdefault(case.name, []).append(inside)
            written[case.name] = file
        except (MedsegError, ValueError, OSError, MemoryError) as error:
            message = str(error) or type(error).__name__
            failed[case.name] = message if case.name in message else f"{case.name}: {message}"
            if strict:
                raise MedsegError(failed[case.name]) from error
            console.print(f"left out: {failed[case.name]}", style="yellow", markup=False)
    return Predicted(written, failed, exported)


def _label_file(case: Case, output: Path) -> Path:
    return output / f"{case.name}{label_suffix(case)}"


def _keep_images(cases: Sequence[Case], output: Path) -> None:
    images = {file.resolve() for case in cases for file in case.images}
    for case in cases:
        if _label_file(case, output).resolve() in images:
            raise MedsegError(
                f"{_label_file(case, output)}: the label map would replace the image; give "
                f"--output another folder"
            )


def label_suffix(case: Case) -> str:
    """Return the suffix of a case's label file, from that of its image."""
    suffix = image_suffix(case.images[0])
    return LABEL_SUFFIX.get(suffix.lower(), suffix)


def write_probabilities(folder: Path, case: Case, image: Image, model: Model, scores: Any) -> None:
    """Write one file a class, ``CASE_STRUCTURE``, in a format that holds fractions."""
    from medseg.tracking import slug

    folder.mkdir(parents=True, exist_ok=True)
    suffix = label_suffix(case)
    suffix = ".tif" if suffix == ".png" else suffix
    axes = image.axes.removeprefix("C")
    for name, part in zip(model.spec.outputs, scores, strict=True):
        single = replace(image, array=part, axes=axes, channels=())
        # A structure may be called "left/right".
        write_image(folder / f"{case.name}_{slug(name).replace('/', '_')}{suffix}", single)


def _spacing(pixel_size: Sequence[Length]) -> tuple[tuple[float, ...] | None, Unit | None]:
    """Return the pixel size in array order, with its unit."""
    if not pixel_size:
        return None, None
    unit = pixel_size[0].unit
    try:
        return tuple(length.to(unit) for length in reversed(pixel_size)), unit
    except ValueError as error:
        raise MedsegError(f"--pixel-size: {error}") from None


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
    names = [image_name(file) for file in files]
    for name, file in zip(names, files, strict=True):
        if names.count(name) > 1:
            raise MedsegError(f"{file}: two inputs would both be written as {name}; rename one")
    return [Case(name, (file,), None, name) for name, file in zip(names, files, strict=True)]
