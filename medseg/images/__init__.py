"""Images in, images out: every format yields one ``Image``, and is written back as it came.

Importing a format's file registers its suffixes; see ``formats.py`` for how to add one.
"""

from medseg.images import itk, microscopes, nifti, ome_zarr, raster, tiff  # noqa: F401 (they fill the table of formats)
from medseg.images.arrange import AxesError
from medseg.images.dicom import series_files
from medseg.images.dicom_labels import (
    DicomFile,
    dicom_files,
    dicom_library,
    kind_of_labels,
    names_in,
    read_dicom_labels,
)
from medseg.images.formats import (
    READERS,
    WRITERS,
    image_name,
    image_suffix,
    is_image_file,
    reader,
    writer,
    zarr_root,
)
from medseg.images.image import Image
from medseg.images.ome_zarr import ome_zarr_level, write_ome_zarr_labels
from medseg.images.reading import read_image, read_labels
from medseg.images.writing import write_image, write_labels

__all__ = [
    "READERS",
    "WRITERS",
    "AxesError",
    "DicomFile",
    "Image",
    "dicom_files",
    "dicom_library",
    "image_name",
    "image_suffix",
    "is_image_file",
    "kind_of_labels",
    "names_in",
    "ome_zarr_level",
    "read_dicom_labels",
    "read_image",
    "read_labels",
    "reader",
    "series_files",
    "write_image",
    "write_labels",
    "write_ome_zarr_labels",
    "writer",
    "zarr_root",
]
