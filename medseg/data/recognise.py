"""Which layout a folder has, by the names in it.

Each recogniser looks for one layout and says what it saw. Nothing is read but names, the lists
that stand beside the images (``dataset.json``, ``cases.csv``), and what DICOM files say of
themselves.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.data.dicom import DICOM_LABELS, NOT_IMAGES
from medseg.data.layouts import PARTS
from medseg.errors import MedsegError
from medseg.images import dicom_files, image_name, is_image_file, names_in, zarr_root

_IMAGES = re.compile(r"(images?|imgs?|raws?|x|inputs?|originals?|scans?|volumes?)(Tr)?$", re.I)
_LABELS = re.compile(r"label|mask|seg|truth|annot|target|manual|outline|^gt|^y$", re.I)
_LABEL_SUFFIXES = (
    *("_masks", "_mask", "_seg", "-seg", "_label", "-label", "_labels", "-labels"),
    *("_segmentation", "_gt", "_manual", "_annotation", "_cp_masks"),
)
_IMAGE_SUFFIXES = ("", "_img", "_image", "_raw", "-orig", "_orig", "-image", "_im")


@dataclass(frozen=True)
class Recognised:
    """A layout that a folder may have.

    Args:
        root: The data set's folder: the one looked at, or the only one in it.
        layout: Its name.
        settings: Those of the layout.
        seen: What speaks for it, for a person to read.
        stated: Settings of the dataset card that a list beside the images states.
        source: Where these are from.
    """

    root: Path
    layout: str
    settings: dict[str, Any]
    seen: str
    stated: dict[str, Any] = field(default_factory=dict)
    source: str = "from dataset.json"

    @property
    def text(self) -> str:
        """The layout as the command line takes it: ``name:setting=value,setting=value``."""
        settings = ",".join(f"{key}={value}" for key, value in self.settings.items())
        return self.layout + (f":{settings}" if settings else "")


Recogniser = Callable[[Path], Iterator[Recognised]]


def recognise(folder: Path) -> list[Recognised]:
    """Return the layouts that a folder may have, those of the most telling kind only.

    Raises:
        MedsegError: There is no such folder, or a list in it is damaged.
    """
    if not folder.is_dir():
        raise MedsegError(f"{folder}: there is no such folder")
    while True:
        for recogniser in _RECOGNISERS:
            found = list(recogniser(folder))
            if found:
                return found
        inner = _folders(folder)
        if len(inner) != 1 or _stems(folder):
            return []
        folder = inner[0]  # an archive unpacked into a folder of its own


def _decathlon(root: Path) -> Iterator[Recognised]:
    described = _described(root)
    listed = described.get("training")
    if not isinstance(listed, list) or not listed:
        return
    first = listed[0]
    if not isinstance(first, dict) or not (root / str(first.get("image"))).exists():
        return
    stated = _stated(described)
    if len(stated.get("channels", ())) > 1:
        stated |= {"axes": "CZYX", "label_axes": "ZYX"}
    seen = f"dataset.json lists {len(listed)} images with labels"
    yield Recognised(root, "decathlon", {}, seen, {"kind": "semantic", **stated})


def _nnunet(root: Path) -> Iterator[Recognised]:
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        return
    numbers: dict[str, list[int]] = {}
    for stem in _stems(root / "imagesTr"):
        case, _, number = stem.rpartition("_")
        if not case or not re.fullmatch(r"\d{4}", number):
            return
        numbers.setdefault(case, []).append(int(number))
    if not set(numbers) & set(_stems(root / "labelsTr")):
        return
    channels = max(len(found) for found in numbers.values())
    seen = f"imagesTr holds {len(numbers)} cases of {channels} channel(s), labelsTr their labels"
    settings = {"channels": channels} if channels > 1 else {}
    yield Recognised(
        root, "nnunet", settings, seen, {"kind": "semantic", **_stated(_described(root))}
    )


def _dsb2018(root: Path) -> Iterator[Recognised]:
    cases = [f for f in _folders(root) if (f / "images").is_dir() and (f / "masks").is_dir()]
    if cases and not {case.name.lower() for case in cases} & set(PARTS):
        seen = f"{len(cases)} folders with images/ and masks/, one mask file an object"
        yield Recognised(root, "dsb2018", {}, seen, {"kind": "instance"})


def _ctc(root: Path) -> Iterator[Recognised]:
    sequences = [f.name for f in _folders(root) if re.fullmatch(r"\d\d+", f.name)]
    for truth, what in (("GT", "gold"), ("ST", "silver")):
        drawn = [name for name in sequences if (root / f"{name}_{truth}" / "SEG").is_dir()]
        if drawn:
            seen = (
                f"sequences {', '.join(drawn)} with {what} truth: the frames that have a man_seg "
                f"file (gold truth may leave cells out)"
            )
            yield Recognised(root, "ctc", {"truth": truth}, seen, {"kind": "instance"})


def _csv(root: Path) -> Iterator[Recognised]:
    for file in sorted(root.glob("*.csv")):
        try:
            columns = next(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()), [])
        except (ValueError, csv.Error):
            continue
        images = [column for column in columns if column == "image" or column.startswith("image_")]
        if "case" in columns and images and "label" in columns:
            settings: dict[str, Any] = {} if file.name == "cases.csv" else {"file": file.name}
            if images != ["image"]:
                settings["images"] = images
            yield Recognised(root, "csv", settings, f"{file.name} lists cases, images and labels")


def _parts(root: Path) -> Iterator[Recognised]:
    """Recognise ``train/images``, ``train/masks``, ``test/images`` ... (EmbedSeg, BiaPy)."""
    parts = [f for f in _folders(root) if f.name.lower() in PARTS]
    pairs = {part.name: list(_pairs(part)) for part in parts}
    trained = [name for name in pairs if PARTS[name.lower()] == "train" and pairs[name]]
    if len(trained) != 1 or len(pairs) < 2:
        return
    for pair in pairs[trained[0]]:
        same = [name for name, found in pairs.items() if pair in [p[:4] for p in found]]
        images, labels, image_suffix_, label_suffix = pair
        settings: dict[str, Any] = {"parts": same, "images": images, "labels": labels}
        settings |= {"image_suffix": image_suffix_} if image_suffix_ else {}
        settings |= {"label_suffix": label_suffix} if label_suffix else {}
        seen = f"{', '.join(same)}: each with {images}/ and labels of the same names in {labels}/"
        yield Recognised(root, "parts", settings, seen)


def _two_folders(root: Path) -> Iterator[Recognised]:
    for images, labels, image_end, label_end in _pairs(root):
        count = len(_stems(root / images))
        settings: dict[str, Any] = {"images": images, "labels": labels}
        settings |= {"image_suffix": image_end} if image_end else {}
        settings |= {"label_suffix": label_end} if label_end else {}
        name = "paired_folders"
        if (images, labels, image_end, label_end) == ("images", "masks", "", ""):
            name, settings = "stardist", {}
        end = f" + {label_end}" if label_end else ""
        seen = f"{count} images in {images}/, labels of the same names{end} in {labels}/"
        yield Recognised(root, name, settings, seen)


def _one_folder(root: Path) -> Iterator[Recognised]:
    stems = _stems(root)
    fits = []
    for label_end in _LABEL_SUFFIXES:
        labels = {stem.removesuffix(label_end) for stem in stems if stem.endswith(label_end)}
        for image_end in _IMAGE_SUFFIXES:
            images = {
                stem.removesuffix(image_end)
                for stem in stems
                if stem.endswith(image_end) and not stem.endswith((label_end, "_flows"))
            }
            if labels and labels & images:
                alone = len(labels ^ images)
                rest = len(stems) - len(labels) - len(images)
                fits.append((alone + rest, -len(labels & images), image_end, label_end))
    if not fits:
        return
    _, shared, image_end, label_end = min(fits)
    name = "cellpose" if label_end == "_masks" else "paired_folders"
    settings: dict[str, Any] = {} if name == "cellpose" else {"images": ".", "labels": "."}
    settings |= {"image_suffix": image_end} if image_end else {}
    settings |= {"label_suffix": label_end} if name != "cellpose" else {}
    seen = f"{-shared} pairs in one folder: a{image_end} with its labels a{label_end}"
    others = [s for s in stems if not s.endswith((image_end or s, label_end, "_flows"))]
    if others:
        seen += f"; left out, as they end otherwise: {', '.join(others[:4])}"
    yield Recognised(root, name, settings, seen)


def _ome_zarr(root: Path) -> Iterator[Recognised]:
    images = [f for f in _folders(root) if zarr_root(f) == f]
    named = [
        {f.name for f in _folders(i / "labels")} if (i / "labels").is_dir() else set()
        for i in images
    ]
    for name in sorted(set[str]().union(*named)):
        count = sum(name in names for names in named)
        if count == len(images):
            seen = f"{count} OME-Zarr, each with labels/{name}"
            yield Recognised(root, "ome_zarr", {"labels": name}, seen)


def _dicom(root: Path) -> Iterator[Recognised]:
    found = [files for f in _folders(root) if (files := dicom_files(f))]
    kinds = sorted({file.kind for files in found for file in files} - set(NOT_IMAGES))
    drawn = [[f for f in files if f.kind in DICOM_LABELS] for files in found]
    if not drawn or not all(drawn) or len(kinds) != 1 or (len(drawn) == 1 and len(drawn[0]) > 1):
        return
    names = [list(names_in(files[0].path)) for files in drawn]
    common = [name for name in names[0] if all(name in others for others in names)]
    labels = {"background": 0, **{name: i for i, name in enumerate(common, start=1)}}
    what = " and ".join(sorted({f.kind for files in drawn for f in files}))
    seen = f"{len(found)} folders, each with a {kinds[0]} series and its {what}"
    left_out = sorted(set().union(*names) - set(common))
    if left_out:
        seen += f"; not in all of them, so left out: {', '.join(left_out[:6])}"
    stated = {"kind": "semantic", "channels": (kinds[0].lower(),), "labels": labels}
    yield Recognised(root, "dicom", {}, seen, stated, f"from the names in the {what} files")


_RECOGNISERS: tuple[Recogniser, ...] = (
    *(_csv, _decathlon, _nnunet, _dsb2018, _ctc, _parts, _ome_zarr, _two_folders, _one_folder),
    _dicom,
)


def _pairs(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield folders of images and of labels whose names match, and the ends that differ."""
    folders = {folder.name: _stems(folder) for folder in _folders(root)}
    if _stems(root):
        folders["."] = _stems(root)
    images = [n for n in folders if _IMAGES.match(n) and folders[n]]
    labels = [n for n in folders if n != "." and _LABELS.search(n) and folders[n]]
    for image_folder in images or [n for n in folders if n not in labels and folders[n]]:
        for label_folder in labels:
            if label_folder == image_folder:
                continue
            ends = _ends(folders[image_folder], folders[label_folder])
            if ends is not None:
                yield image_folder, label_folder, *ends


def _ends(images: Sequence[str], labels: Sequence[str]) -> tuple[str, str] | None:
    """Return the ends of image and label names without which most are the same; None if never."""
    tries = [("", ""), *(("", _common_end(labels, images)), (_common_end(images, labels), ""))]
    tries += [(i, j) for i in _IMAGE_SUFFIXES for j in ("", *_LABEL_SUFFIXES)]
    best, chosen = 0.5, None
    for image_end, label_end in tries:
        mine = {stem.removesuffix(image_end) for stem in images if stem.endswith(image_end)}
        theirs = {stem.removesuffix(label_end) for stem in labels if stem.endswith(label_end)}
        share = len(mine & theirs) / max(1, len(mine | theirs))
        if share > best:
            best, chosen = share, (image_end, label_end)
    return chosen


def _common_end(names: Sequence[str], others: Sequence[str]) -> str:
    """Return what a name has beyond the other's that it starts with, if all end in it."""
    for other in others:
        ends = [name.removeprefix(other) for name in names if name.startswith(other)]
        for end in ends:
            if end and not end[0].isalnum() and all(name.endswith(end) for name in names):
                return end
    return ""


def _described(root: Path) -> Mapping[str, Any]:
    file = root / "dataset.json"
    if not file.is_file():
        return {}
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MedsegError(f"{file}: not readable as JSON ({error})") from None
    return described if isinstance(described, dict) else {}


def _stated(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's settings that a ``dataset.json`` of the Decathlon or of nnU-Net states."""
    stated: dict[str, Any] = {}
    for key, name in (("name", "name"), ("description", "description"), ("licence", "licence")):
        if isinstance(described.get(key), str) and described[key]:
            stated[name] = described[key]
    channels = described.get("channel_names", described.get("modality"))
    if isinstance(channels, dict) and channels:
        order = sorted(channels, key=lambda key: int(key) if str(key).isdecimal() else 0)
        stated["channels"] = tuple(str(channels[key]) for key in order)
    labels = described.get("labels")
    if not isinstance(labels, dict) or not labels:
        return stated
    if all(str(key).isdecimal() for key in labels):
        named = {str(name): int(value) for value, name in labels.items()}
    elif all(isinstance(value, int) for value in labels.values()):
        named = {str(name): int(value) for name, value in labels.items()}
    else:
        return stated  # regions of several values overlap: a person says which are wanted
    if "ignore" in named:
        stated["ignore"] = named.pop("ignore")
    stated["labels"] = {("background" if v == 0 else name): v for name, v in named.items()}
    return stated


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _stems(folder: Path) -> list[str]:
    """Return the names of the image files in a folder without their suffixes."""
    if not folder.is_dir():
        return []
    # A folder of slices is an image only where the layout says so.
    files = (p for p in sorted(folder.iterdir()) if p.is_file() or zarr_root(p) is not None)
    return [image_name(path) for path in files if is_image_file(path)]
