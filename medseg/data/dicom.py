"""Patients' folders of DICOM files as cases, told by what stands in the files."""

from collections.abc import Sequence
from pathlib import Path

from medseg.data.cases import Case
from medseg.data.layouts import LAYOUTS, inside
from medseg.errors import MedsegError
from medseg.images import dicom_files

DICOM_LABELS = ("RTSTRUCT", "SEG")
NOT_IMAGES = (*DICOM_LABELS, "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "DOC")
_LISTED = 5


@LAYOUTS.register("dicom")
def dicom(root: Path, *, images: str = "", labels: str | None = "") -> list[Case]:
    """A folder a case, with a DICOM series and an RTSTRUCT or DICOM SEG somewhere in it.

    Folders of one patient, told by PatientID, are one group, named after the first of them: the
    identifier itself goes nowhere.

    Args:
        root: The folder of the cases' folders.
        images: Folder of the series in each, where a case holds several.
        labels: File of the labels in each, or their folder, where a case holds several; None for
            images without labels.
    """
    cases: list[Case] = []
    groups: dict[str, str] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        files = dicom_files(folder)
        series = sorted({f.path.parent for f in files if f.kind not in NOT_IMAGES})
        image = _only(folder, series, images, "image series", "images")
        drawn = None
        if labels is not None:
            label_files = [f.path for f in files if f.kind in DICOM_LABELS]
            drawn = _only(folder, label_files, labels, "label file (RTSTRUCT or SEG)", "labels")
        patient = next((f.patient for f in files if f.patient), folder.name)
        group = groups.setdefault(patient, folder.name)
        cases.append(Case(folder.name, (image,), drawn, group))
    return cases


def _only(folder: Path, found: Sequence[Path], stated: str, what: str, setting: str) -> Path:
    """Return the one path that is found where the card says."""
    place = inside(folder, stated)
    within = [path for path in found if path.is_relative_to(place)]
    if len(within) == 1:
        return within[0]
    listed = "".join(f"\n    {path.relative_to(folder).as_posix()}" for path in within[:_LISTED])
    more = f"\n    and {len(within) - _LISTED} more" if len(within) > _LISTED else ""
    raise MedsegError(
        f"{place}: holds {len(within)} DICOM {what}, not one{listed}{more}\n"
        f"  say under 'layout' in the card where in each case's folder the right one lies, e.g. "
        f"{setting}: {_example(folder, within)}"
    )


def _example(folder: Path, within: Sequence[Path]) -> str:
    return within[0].relative_to(folder).as_posix() if within else "FOLDER"
