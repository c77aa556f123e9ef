"""Images in, images out: every format yields one ``Image``, and is written back as it came.

Importing a format's file registers its suffixes; see ``formats.py`` for how to add one.
"""

from medseg.images import itk, nifti, raster, tiff  # noqa: F401 (they fill the table of formats)
from medseg.images.formats import READERS, WRITERS, image_suffix, is_image_file, reader, writer
from medseg.images.image import Image
from medseg.images.reading import read_image, read_labels
from medseg.images.writing import write_image, write_labels

__all__ = [
    "READERS",
    "WRITERS",
    "Image",
    "image_suffix",
    "is_image_file",
    "read_image",
    "read_labels",
    "reader",
    "write_image",
    "write_labels",
    "writer",
]
