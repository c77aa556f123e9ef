"""How metrics, values and statuses are written for people."""

import inspect

from medseg.evaluation.records import Outcome, Record
from medseg.metrics import METRICS

# Names that are not just their own letters; every other metric is shown as it is registered.
_NAMES = {"dice": "Dice", "iou": "IoU", "hd": "Hausdorff distance", "hd95": "HD95",
          "assd": "ASSD", "masd": "MASD", "nsd": "NSD", "boundary_iou": "Boundary IoU",
          "average_precision": "AP", "mean_average_precision": "Mean AP, IoU 0.5 to 0.95",
          "panoptic_quality": "PQ", "segmentation_quality": "SQ", "instance_f1": "Object F1",
          "instance_precision": "Object precision", "instance_recall": "Object recall",
          "instance_assd": "ASSD of objects", "aji": "AJI", "ctc_seg": "SEG", "ctc_det": "DET",
          "v_rand": "V_rand", "v_info": "V_info", "voi_split": "VOI split",
          "voi_merge": "VOI merge", "adapted_rand_error": "Adapted Rand error"}  # fmt: skip
# How the only setting of a metric is said in its name.
_SAID = {"tolerance": "at", "distance": "within", "threshold": "at IoU"}

STATUS_TEXT: dict[Outcome, str] = {
    "ok": "measured",
    "both_empty": "nothing to find, nothing found",
    "empty_reference": "invented: not in the ground truth",
    "empty_prediction": "missed: not in the prediction",
    "missing_prediction": "no prediction for this case",
    "error": "the prediction cannot be used",
}


def metric_name(metric: str, settings: str = "") -> str:
    """Return e.g. ``NSD at 2 mm``, or ``AP at IoU 0.5``, its default."""
    name = _NAMES.get(metric) or metric.replace("_", " ").capitalize()
    usual = METRICS.settings(metric).get("threshold") if metric in METRICS else None
    if not settings and usual is not None:
        settings = f"threshold={usual.default}"
    if not settings:
        return name
    key, _, value = settings.partition("=")
    if key in _SAID and "," not in settings:
        return f"{name} {_SAID[key]} {value.replace(' um', ' µm')}"
    return f"{name} ({settings.replace('=', ' ')})"


def unit_name(unit: str) -> str:
    """Return the unit as people write it; nothing for a ratio."""
    return {"1": "", "count": "", "um": "µm"}.get(unit, unit)


def number(value: float | None, unit: str) -> str:
    """Return a value with as many digits as it deserves, without its unit; a dash for none."""
    if value is None:
        return "\N{EN DASH}"
    if unit == "1":
        return f"{value:.3f}"
    if unit == "count" and value == round(value):
        return f"{value:.0f}"
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


def length(value: float) -> str:
    """Return a length that was asked for, as it was: 1 stays 1, 3.90625 becomes 3.906."""
    return f"{value:.4g}"


def higher_is_better(metric: str) -> bool:
    """Tell whether larger values of a metric are better ones."""
    facts = METRICS.facts(metric)
    worst = facts["worst"]
    return worst != "diagonal" and bool(facts["best"] > worst)


def first_line(metric: str) -> str:
    """Return what a metric is, in one sentence: the first line of its documentation."""
    text = inspect.getdoc(METRICS[metric]) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "").strip()


def value_title(record: Record) -> str:
    """Return what stands behind a dash: why nothing was measured, and what counts instead."""
    text = STATUS_TEXT[record.status]
    if record.value is None:
        return f"{text}; does not count"
    counted = f"{number(record.value, record.unit)} {unit_name(record.unit)}".strip()
    return f"{text}; counts as {counted}"


def signed(value: float | None, unit: str) -> str:
    """Return a difference with its sign."""
    text = number(value, unit)
    if value is None or value == 0:
        return text
    return f"+{text}" if value > 0 else text.replace("-", "\N{MINUS SIGN}")


def probability(p: float | None) -> str:
    """Return a p value as reports write it."""
    if p is None:
        return "\N{EN DASH}"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
