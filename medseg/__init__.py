"""medseg: segmentation of cells and organs, judged by their borders.

Importing this package does no work and pulls in none of the heavy libraries; import the room that
you need: ``medseg.images``, ``medseg.networks``, ``medseg.metrics``, ``medseg.evaluation``.
"""

__version__ = "0.1.0"
