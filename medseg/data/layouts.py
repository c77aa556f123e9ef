"""How a folder of files becomes cases: always matched by name, never by order.

Each layout is a function of the data set's root folder; its settings are those of ``layout`` in
the dataset card. A file without its partner is an error that names it.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.data.cases import Case
from medseg.errors import MedsegError
from medseg.images import image_name, image_suffix, is_image_file, ome_zarr_level, zarr_root
from medseg.registry import Registry

LAYOUTS: Registry[list[Case]] = Registry("layout", given=("root",))

# Names that folders of a ready-made split have.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class UnpairedError(MedsegError):
    """Some files have no partner.

    Args:
        message: Names them.
        paired: The cases that have all their files.
    """

    def __init__(self, message: str, paired: Sequence[Case]) -> None:
        super().__init__(message)
        self.paired = tuple(paired)


def inside(root: Path, relative: str | Path) -> Path:
    """Return a file below ``root``.

    Raises:
        MedsegError: The path is absolute or leads out of the root, also through a link.
    """
    path = root / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise MedsegError(f"{relative}: leads out of the data set's folder {root}; refused")
    return path


@LAYOUTS.register("paired_folders")
def paired_folders(
    root: Path,
    *,
    images: str = "images",
    labels: str | None = "labels",
    image_suffix: str = "",
    label_suffix: str = "",
    leave_out: Sequence[str] = (),
) -> list[Case]:
    """Images in one folder, labels of the same names in another (StarDist, EmbedSeg, BiaPy).

    Args:
        root: The data set's folder.
        images: Folder of the images, or of folders that each hold one DICOM series.
        labels: Folder of the labels; may be the same folder where suffixes tell them apart. None
            for images without labels.
        image_suffix: End of the image names that the label names lack, e.g. ``_img``.
        label_suffix: End of the label names that the image names lack, e.g. ``_masks``.
        leave_out: Ends of the names of files that are neither, e.g. ``_flows``.
    """
    image_files = _by_name(_folder(root, images), image_suffix, (label_suffix, *leave_out))
    if not image_files:
        raise MedsegError(f"{root / images}: holds no image whose name ends in '{image_suffix}'")
    if labels is None:
        return [Case(name, (file,), None, name) for name, file in image_files.items()]
    label_files = _by_name(_folder(root, labels), label_suffix, (image_suffix, *leave_out))
    of_cases = {name: (file,) for name, file in image_files.items()}
    return _paired(of_cases, label_files, root / images, root / labels)


@LAYOUTS.register("cellpose")
def cellpose(root: Path, *, image_suffix: str = "", label_suffix: str = "_masks") -> list[Case]:
    """Images and labels in one folder: ``a.tif`` (or ``a_img.tif``) and ``a_masks.tif``.

    The flows that Cellpose writes beside them while it trains are left out.

    Args:
        root: The data set's folder.
        image_suffix: End of the image names that the label names lack, e.g. ``_img``.
        label_suffix: End of the label names that the image names lack.
    """
    return paired_folders(
        root,
        images=".",
        labels=".",
        image_suffix=image_suffix,
        label_suffix=label_suffix,
        leave_out=("_flows",),
    )


@LAYOUTS.register("stardist")
def stardist(root: Path, *, images: str = "images", labels: str = "masks") -> list[Case]:
    """Folders ``images`` and ``masks`` with equal names.

    Args:
        root: The data set's folder.
        images: Folder of the images.
        labels: Folder of the labels.
    """
    return paired_folders(root, images=images, labels=labels)


@LAYOUTS.register("parts")
def parts_of_a_split(
    root: Path,
    *,
    parts: Sequence[str] = ("train", "test"),
    images: str = "images",
    labels: str = "masks",
    image_suffix: str = "",
    label_suffix: str = "",
) -> list[Case]:
    """A ready-made split: ``train/images``, ``train/masks``, ``test/images`` ... (EmbedSeg, BiaPy).

    A case is named after its part: ``train_a``.

    Args:
        root: The data set's folder.
        parts: The folders of the parts.
        images: Folder of the images in each.
        labels: Folder of the labels in each.
        image_suffix: As in ``paired_folders``.
        label_suffix: As in ``paired_folders``.
    """
    cases = []
    for part in parts:
        try:
            found = paired_folders(
                _folder(root, part),
                images=images,
                labels=labels,
                image_suffix=image_suffix,
                label_suffix=label_suffix,
            )
        except UnpairedError as error:  # the cases of the other parts are not known yet
            raise MedsegError(str(error)) from None
        for case in found:
            name = f"{part}_{case.name}"
            cases.append(replace(case, name=name, group=name))
    return cases


@LAYOUTS.register("dsb2018")
def dsb2018(root: Path) -> list[Case]:
    """A folder a case, with ``images/`` and ``masks/``: one mask file an object (Kaggle DSB 2018).

    Args:
        root: The folder of the cases' folders.
    """
    cases = []
    for folder in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
        if not (folder / "images").is_dir():
            continue
        images = [path for path in sorted((folder / "images").iterdir()) if is_image_file(path)]
        if len(images) != 1:
            raise MedsegError(f"{folder / 'images'}: holds {len(images)} images, not one")
        masks = folder / "masks"
        labels = masks if masks.is_dir() else None
        cases.append(Case(folder.name, (images[0],), labels, folder.name))
    return cases


@LAYOUTS.register("ctc")
def cell_tracking_challenge(root: Path, *, truth: str = "GT") -> list[Case]:
    """Sequences of the Cell Tracking Challenge: ``01/t000.tif``, ``01_GT/SEG/man_seg000.tif``.

    Frames without a segmentation are left out. A case is named ``01_t000``.

    Args:
        root: The data set's folder.
        truth: Which segmentations: ``GT``, by persons, or ``ST``, computed.
    """
    cases = []
    for drawn in sorted(root.glob(f"[0-9][0-9]*_{truth}/SEG/man_seg*")):
        if not is_image_file(drawn):
            continue
        sequence = drawn.parents[1].name.removesuffix(f"_{truth}")
        number = drawn.name.removesuffix(image_suffix(drawn)).removeprefix("man_seg")
        if not number.isdecimal():
            raise MedsegError(
                f"{drawn}: the segmentation of a single slice of a volume, which cannot be paired "
                f"with a whole image; take a truth of whole volumes (truth: ST)"
            )
        image = root / sequence / f"t{number}{image_suffix(drawn)}"
        name = f"{sequence}_t{number}"
        cases.append(Case(name, (image,), drawn, name))
    return _existing(cases, root)


@LAYOUTS.register("nnunet")
def nnunet(
    root: Path, *, images: str = "imagesTr", labels: str = "labelsTr", channels: int = 1
) -> list[Case]:
    """Folders of nnU-Net: ``imagesTr/a_0000.nii.gz`` (one file a channel), ``labelsTr/a.nii.gz``.

    Args:
        root: The data set's folder.
        images: Folder of the images.
        labels: Folder of the labels.
        channels: Number of channels that each case must have.
    """
    found: dict[str, dict[int, Path]] = {}
    for name, file in _by_name(_folder(root, images)).items():
        case, _, number = name.rpartition("_")
        if not case or not number.isdecimal():
            raise MedsegError(f"{file}: nnU-Net's names end in a channel number: {name}_0000")
        found.setdefault(case, {})[int(number)] = file
    for case, files in found.items():
        if sorted(files) != list(range(channels)):
            raise MedsegError(f"{case}: has channels {sorted(files)}, not 0 to {channels - 1}")
    of_cases = {case: tuple(files[i] for i in range(channels)) for case, files in found.items()}
    return _paired(of_cases, _by_name(_folder(root, labels)), root / images, root / labels)


@LAYOUTS.register("ome_zarr")
def ome_zarr(
    root: Path,
    *,
    images: str = ".",
    image: str = "",
    labels: str | None = "labels",
    level: int = 0,
) -> list[Case]:
    """OME-Zarr with the labels inside: ``a.ome.zarr`` and ``a.ome.zarr/labels/nuclei``.

    Args:
        root: The data set's folder.
        images: Folder of the ``.zarr`` folders.
        image: Where in each of them the image lies, if it is a collection: ``0``.
        labels: Name of the labels; None for images without labels.
        level: Level of image and labels, 0 the finest.
    """
    cases, missing = [], []
    for path in sorted(_folder(root, images).iterdir()):
        if zarr_root(path) != path or path.name.startswith("."):
            continue
        name = image_name(path)
        drawn = None if labels is None else inside(path, image) / "labels" / labels
        if drawn is not None and not drawn.is_dir():
            missing.append(name)
            continue
        finest = (inside(path, image), drawn)
        levels = [None if part is None else ome_zarr_level(part, level) for part in finest]
        cases.append(Case(name, (levels[0] or path,), levels[1], name))
    if missing:
        raise MedsegError(_alone(f"images without labels/{labels}", missing, root / images))
    return cases


@LAYOUTS.register("decathlon")
def decathlon(root: Path, *, file: str = "dataset.json", part: str = "training") -> list[Case]:
    """The list in a Medical Segmentation Decathlon ``dataset.json``.

    Args:
        root: The data set's folder.
        file: The list.
        part: Which list in it: ``training`` (with labels) or ``test`` (without).
    """
    path = inside(root, file)
    if not path.is_file():
        raise MedsegError(f"{path}: there is no such file; the decathlon layout needs it")
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))[part]
        pairs = [
            (str(entry["image"]), str(entry.get("label") or ""))
            if isinstance(entry, dict)
            else (str(entry), "")
            for entry in listed
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise MedsegError(
            f"{path}: not a Decathlon list with a part '{part}' ({type(error).__name__}: {error})"
        ) from None
    cases = []
    for image, labels in pairs:
        image_file = inside(root, image)
        name = image_file.name.removesuffix(image_suffix(image_file))
        cases.append(Case(name, (image_file,), inside(root, labels) if labels else None, name))
    return _existing(cases, path)


@LAYOUTS.register("csv")
def csv_manifest(
    root: Path, *, file: str = "cases.csv", images: Sequence[str] = ("image",)
) -> list[Case]:
    """A table with the columns ``case``, ``image``, ``label`` and, if wanted, ``group``.

    Args:
        root: The data set's folder; the paths in the table are relative to it.
        file: The table.
        images: Its image columns, one a channel.
    """
    path = inside(root, file)
    if not path.is_file():
        raise MedsegError(f"{path}: there is no such file; the csv layout needs it")
    try:
        table = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        rows, columns = list(table), table.fieldnames or []
    except (ValueError, csv.Error) as error:
        raise MedsegError(f"{path}: not readable as a table ({error})") from None
    for column in ("case", *images):
        if column not in columns:
            raise MedsegError(f"{path}: has no column '{column}', only {', '.join(columns)}")
        for number, row in enumerate(rows, start=1):
            if not row[column]:
                raise MedsegError(f"{path}: row {number} has nothing in the column '{column}'")
    cases = [
        Case(
            row["case"],
            tuple(inside(root, row[column]) for column in images),
            inside(root, row["label"]) if row.get("label") else None,
            row.get("group") or row["case"],
        )
        for row in rows
    ]
    return _existing(cases, path)


def find_cases(root: Path, layout: str, settings: dict[str, object]) -> list[Case]:
    """Return the cases of a data set, sorted by name.

    Raises:
        MedsegError: The folder is missing or empty, two cases have one name, or a name is none
            that a file can have.
        ValueError: An unknown layout, or settings that it does not have.
    """
    if not root.is_dir():
        raise MedsegError(f"{root}: there is no such folder")
    cases = sorted(LAYOUTS.build(layout, root, **settings), key=lambda case: case.name)
    if not cases:
        raise MedsegError(f"{root}: the {layout} layout finds no case in it")
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise MedsegError(f"{root}: two cases have the name {twice[0]}")
    for case in cases:
        # The name becomes that of the prediction's file.
        if Path(case.name).name != case.name or "\\" in case.name:
            raise MedsegError(f"{root}: {case.name!r} cannot name a case: it is no file name")
    return cases


def _folder(root: Path, name: str) -> Path:
    folder = inside(root, name)
    if not folder.is_dir():
        raise MedsegError(f"{folder}: there is no such folder; correct 'layout' in the card")
    return folder


def _by_name(folder: Path, ending: str = "", others: Sequence[str] = ()) -> dict[str, Path]:
    """Return the images of a folder by their name without the ending.

    Names with a longer one of the other endings belong to the partner in a shared folder, or to
    nobody.
    """
    longer = tuple(other for other in others if len(other) > len(ending))
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_image_file(path):
            continue
        stem = path.name.removesuffix(image_suffix(path))
        if not stem.endswith(ending) or (longer and stem.endswith(longer)):
            continue
        name = stem.removesuffix(ending)
        if name in found:
            raise MedsegError(f"{found[name]} and {path.name}: two files for one case")
        found[name] = path
    return found


def _existing(cases: list[Case], source: Path) -> list[Case]:
    for case in cases:
        for file in (*case.images, *([case.labels] if case.labels else [])):
            if not file.exists():
                raise MedsegError(f"{source}: lists {file} for case {case.name}, which is missing")
    return cases


def _paired(
    images: Mapping[str, tuple[Path, ...]],
    labels: Mapping[str, Path],
    image_folder: Path,
    label_folder: Path,
) -> list[Case]:
    """Return the cases that have images and labels of one name.

    Raises:
        UnpairedError: Some have only one of them; names all.
    """
    cases = [
        Case(name, images[name], labels[name], name) for name in sorted(images.keys() & labels)
    ]
    told = []
    if missing := sorted(images.keys() - labels.keys()):
        told.append(_alone("images without a label file", missing, label_folder))
    if orphans := sorted(labels.keys() - images.keys()):
        told.append(_alone("label files without an image", orphans, image_folder))
    if told:
        raise UnpairedError("\n".join(told), cases)
    return cases


def _alone(what: str, names: Iterable[str], where: Path) -> str:
    listed = list(names)
    shown = ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")
    return (
        f"{what}: {shown}\n  looked for files of the same name in {where}\n"
        f"  add them, or take their partners away"
    )
