"""Evaluation of whole data sets: records, summaries with intervals, comparison, report.

Works on plain label arrays with their grid, from any tool; needs neither torch nor MONAI.
"""

from medseg.evaluation.bands import bands_table, summarise_bands
from medseg.evaluation.cases import (
    DEFAULT_METRICS,
    Kind,
    MetricRequest,
    evaluate_case,
    evaluate_instances,
    evaluate_labels,
)
from medseg.evaluation.comparison import (
    Comparison,
    Paired,
    Ranked,
    compare,
    comparison_json,
    comparison_table,
)
from medseg.evaluation.details import (
    CaseDetail,
    JudgedObject,
    band_widths,
    case_detail,
    object_records,
)
from medseg.evaluation.grids import check_same_grid
from medseg.evaluation.learning_curve import LearningCurve, curve_png, learning_curve
from medseg.evaluation.overlay import overlay_png
from medseg.evaluation.records import (
    Record,
    from_table,
    read_table,
    to_table,
    write_json,
    write_table,
)
from medseg.evaluation.report import write_report
from medseg.evaluation.summary import (
    Summary,
    pick_cases,
    summarise,
    summary_json,
    summary_table,
    worst_first,
)
from medseg.evaluation.views import ReportCase, report_case

__all__ = [
    "DEFAULT_METRICS",
    "CaseDetail",
    "Comparison",
    "JudgedObject",
    "Kind",
    "LearningCurve",
    "MetricRequest",
    "Paired",
    "Ranked",
    "Record",
    "ReportCase",
    "Summary",
    "band_widths",
    "bands_table",
    "case_detail",
    "check_same_grid",
    "compare",
    "comparison_json",
    "comparison_table",
    "curve_png",
    "evaluate_case",
    "evaluate_instances",
    "evaluate_labels",
    "from_table",
    "learning_curve",
    "object_records",
    "overlay_png",
    "pick_cases",
    "read_table",
    "report_case",
    "summarise",
    "summarise_bands",
    "summary_json",
    "summary_table",
    "to_table",
    "worst_first",
    "write_json",
    "write_report",
    "write_table",
]
