"""Evaluation of whole data sets: records, summaries with intervals, comparison, report."""

from medseg.evaluation.cases import MetricRequest, check_same_grid, evaluate_case
from medseg.evaluation.records import Record, from_table, read_table, to_table, write_table
from medseg.evaluation.summary import Summary, summarise, summary_json, summary_table

__all__ = [
    "MetricRequest",
    "Record",
    "Summary",
    "check_same_grid",
    "evaluate_case",
    "from_table",
    "read_table",
    "summarise",
    "summary_json",
    "summary_table",
    "to_table",
    "write_table",
]
