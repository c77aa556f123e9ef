"""Cards and jobs: the text of a file to checked values. The only reader of YAML."""

from medseg.config.card import Card, card_root, cases_of, read_card
from medseg.config.job import (
    CrfSection,
    TrainJob,
    metric_settings,
    objects_settings,
    parse_metrics,
    read_job,
    split_settings,
)
from medseg.config.reading import read_value, to_yaml
from medseg.config.values import PartSettings, array_order
from medseg.config.writing import commented_yaml, parsed, write_new

__all__ = [
    "Card",
    "CrfSection",
    "PartSettings",
    "TrainJob",
    "array_order",
    "card_root",
    "cases_of",
    "commented_yaml",
    "metric_settings",
    "objects_settings",
    "parse_metrics",
    "parsed",
    "read_card",
    "read_job",
    "read_value",
    "split_settings",
    "to_yaml",
    "write_new",
]
