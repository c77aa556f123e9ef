"""DICOM SEG of the image's series, as archives and viewers of clinics take it.

Source: DICOM PS3.3, A.51 (Segmentation), written by highdicom. It leaves empty frames out, so what
is written is read again and put back onto the image's slices before it is declared written.
"""

from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.exports.objects import EXPORTS, Objects
from medseg.images import Image, dicom_library, read_dicom_labels, series_files

_MOST_SEGMENTS = 65535


@EXPORTS.register("dicomseg", ending=".seg.dcm", scored=False)
def write_dicomseg(objects: Objects, path: Path) -> None:
    """Write one binary segment a structure, or an object where objects are numbered.

    Patient, study and frame of reference are those of the series. Where nothing was found, the
    segment has no frame with a voxel. A structure whose name DICOM's
    dictionary knows (``liver``, ``left_lung``) has the SNOMED CT code of it; any other, a code of
    medseg's own that says its name.

    Raises:
        MedsegError: The image is no DICOM series, highdicom is not installed, or what was written
            does not read back as it was.
    """
    hd, pydicom = dicom_library("highdicom"), dicom_library("pydicom")
    if objects.source is None or not objects.source.is_dir():
        raise MedsegError(
            f"{objects.case}: a DICOM SEG refers to the slices of a DICOM series, and "
            f"{objects.source or 'this image'} is none\n  leave dicomseg out of --write"
        )
    if len(objects.ids) > _MOST_SEGMENTS:
        raise MedsegError(
            f"{objects.case}: {len(objects.ids):,} objects, but a DICOM SEG holds "
            f"{_MOST_SEGMENTS:,} segments; take the label file"
        )
    slices = [pydicom.dcmread(file) for file in series_files(objects.source)]
    for one in slices:
        if not one.get("SpecificCharacterSet", "ISO_IR 100"):
            del one.SpecificCharacterSet  # highdicom takes an empty one for the name of a set
    try:
        segmentation = hd.seg.Segmentation(
            source_images=slices,
            pixel_array=objects.numbers.astype(np.uint16),
            segmentation_type="BINARY",
            segment_descriptions=_segments(hd, objects),
            series_instance_uid=hd.UID(),
            series_number=int(slices[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="medseg",
            manufacturer_model_name=objects.model or "medseg",
            software_versions=objects.version or "0",
            device_serial_number="0",
            series_description="medseg",
            content_label="SEGMENTATION",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MedsegError(
            f"{objects.case}: the series lacks what a DICOM SEG of it has to say: {error}\n"
            f"  export the series again with all its tags; the label file is right"
        ) from error
    segmentation.save_as(path)
    _check_as_written(objects, path)


def _segments(hd: Any, objects: Objects) -> list[Any]:
    many = len(set(objects.classes)) < len(objects.classes)
    named = list(zip(objects.ids, objects.classes, strict=True)) or [(0, "nothing found")]
    algorithm = hd.AlgorithmIdentificationSequence(
        name=objects.model or "medseg",
        version=objects.version or "0",
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )
    described = []
    for number, (identity, name) in enumerate(named, start=1):
        category, kind = _codes(hd, name)
        described.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"{name} {identity}" if many else name,
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
            )
        )
    return described


def _codes(hd: Any, name: str) -> tuple[Any, Any]:
    """Return category and type of what a segment shows."""
    from pydicom.sr.codedict import codes

    keyword = "".join(word[:1].upper() + word[1:] for word in name.replace("-", "_").split("_"))
    keyword = keyword.replace(" ", "")
    if hasattr(codes.SCT, keyword):
        return codes.SCT.AnatomicalStructure, getattr(codes.SCT, keyword)
    return codes.SCT.Tissue, hd.sr.CodedConcept(name[:16], "99MEDSEG", name[:64])


def _check_as_written(objects: Objects, path: Path) -> None:
    image = Image(objects.numbers, objects.grid, "ZYX")
    found = read_dicom_labels(path, image, None).array
    wrong = int(np.count_nonzero(found != objects.numbers))
    if wrong:
        raise MedsegError(
            f"{objects.case}: the DICOM SEG reads back with {wrong:,} other voxels than were "
            f"written, so it is not kept\n  please report this; the label file is right"
        )
