"""Fingerprints of files, by which a run names the images that it has seen."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from medseg.data.cases import Case


def file_digests(cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of each file of some cases, by case, its images first."""
    return {
        case.name: {
            "/".join(file.parts[-2:]): _sha256(file)
            for file in (*case.images, case.labels)
            if file is not None
        }
        for case in cases
    }


def _sha256(file: Path) -> str:
    """Return the digest of a file, or of all files of a DICOM series or an OME-Zarr."""
    digest = hashlib.sha256()
    inside = sorted(part for part in file.rglob("*") if part.is_file())
    for part in inside if file.is_dir() else [file]:
        with part.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
