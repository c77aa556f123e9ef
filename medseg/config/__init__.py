"""Cards and jobs: the text of a file to checked values. The only reader of YAML."""

from medseg.config.card import Card, card_root, cases_of, read_card
from medseg.config.job import (
    CrfSection,
    TrainJob,
    metric_settings,
    objects_settings,
    parse_metrics,
    read_job,
)
from medseg.config.reading import to_yaml
from medseg.config.values import PartSettings, array_order

__all__ = [
    "Card",
    "CrfSection",
    "PartSettings",
    "TrainJob",
    "array_order",
    "card_root",
    "cases_of",
    "metric_settings",
    "objects_settings",
    "parse_metrics",
    "read_card",
    "read_job",
    "to_yaml",
]
