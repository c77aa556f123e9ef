"""Evaluation of whole data sets: records, summaries with intervals, comparison, report.

Works on plain label arrays with their grid, from any tool; needs neither torch nor MONAI.
"""

from medseg.evaluation.cases import (
    MetricRequest,
    check_same_grid,
    evaluate_case,
    evaluate_instances,
)
from medseg.evaluation.comparison import (
    Comparison,
    Paired,
    Ranked,
    compare,
    comparison_json,
    comparison_table,
)
from medseg.evaluation.overlay import overlay_png
from medseg.evaluation.records import Record, from_table, read_table, to_table, write_table
from medseg.evaluation.report import write_report
from medseg.evaluation.summary import (
    Summary,
    pick_cases,
    summarise,
    summary_json,
    summary_table,
    worst_first,
)
from medseg.evaluation.views import ReportCase

__all__ = [
    "Comparison",
    "MetricRequest",
    "Paired",
    "Ranked",
    "Record",
    "ReportCase",
    "Summary",
    "check_same_grid",
    "compare",
    "comparison_json",
    "comparison_table",
    "evaluate_case",
    "evaluate_instances",
    "from_table",
    "overlay_png",
    "pick_cases",
    "read_table",
    "summarise",
    "summary_json",
    "summary_table",
    "to_table",
    "worst_first",
    "write_report",
    "write_table",
]
