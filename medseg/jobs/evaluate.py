"""Hold predictions against the ground truth: records, summary and report."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from medseg.config import Card, cases_of, parse_metrics, read_card
from medseg.data import Case
from medseg.errors import MedsegError
from medseg.evaluation import (
    DEFAULT_METRICS,
    CaseDetail,
    MetricRequest,
    Record,
    Summary,
    band_widths,
    bands_table,
    case_detail,
    evaluate_labels,
    object_records,
    overlay_png,
    pick_cases,
    summarise,
    summarise_bands,
    summary_json,
    write_json,
    write_report,
    write_table,
)
from medseg.files import written_whole
from medseg.geometry import Length, Unit
from medseg.images import image_suffix, is_image_file
from medseg.inference import ModelSpec
from medseg.jobs.labels import judged_labels, pictured
from medseg.jobs.parts import metric_requests
from medseg.jobs.predict import load_model, predict_cases

CASES_SHOWN = 12
PREDICTIONS = "predictions.json"  # the label file of each case, for comparisons
OVERLAYS = 3  # of the worst cases, as pictures of their own beside the report


@dataclass(frozen=True)
class Evaluated:
    """What came out of an evaluation.

    Args:
        records: One a case, structure and metric.
        summaries: One a structure and metric.
        folder: Where the records, ``summary.json`` and ``report.html`` lie.
    """

    records: list[Record]
    summaries: list[Summary]
    folder: Path

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / "report.html"

    @property
    def headline(self) -> dict[str, float]:
        """The mean of each metric and structure, failures counted at their worst."""
        return {
            f"{row.label}/{row.structure}": row.mean
            for row in self.summaries
            if row.mean is not None
        }

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"folder": str(self.folder), "summary": summary_json(self.summaries)}


def evaluate(
    predictions: str,
    card_file: Path,
    output: Path,
    *,
    metrics: Sequence[str] = (),
    bands: Sequence[Length] = (),
    cases: Sequence[str] = (),
    file_name: str = "{case}",
    data_root: Path | None = None,
    tracking_uri: str | None = None,
    device: str = "auto",
    console: Console,
) -> Evaluated:
    """Evaluate a folder of masks, or a model, against the labels of a data set.

    Args:
        predictions: A folder of label images named like their cases, in the labels' own values;
            or a model folder, a run or ``models:/NAME@ALIAS``, which then predicts the cases.
        card_file: The data set.
        output: Folder of the results; made if it is not there.
        metrics: What to compute, e.g. ``dice`` and ``nsd:tolerance=2 mm``. If empty: Dice, IoU,
            HD95 and ASSD; AP, PQ, splits, merges and ASSD of objects where labels are objects.
        bands: Widths of the bands around the ground-truth border; 1 to 16 voxels if empty.
        cases: Names of the cases; all if empty.
        file_name: Name of a prediction's file without its suffix; ``{case}`` stands for the case.
        data_root: Folder below which the card's root lies.
        tracking_uri: Where ``models:/`` and runs are looked up.
        device: Where a model predicts.
        console: Where progress is shown.

    Raises:
        MedsegError: A file is missing or unreadable, or a prediction lies on another grid.
    """
    card = read_card(card_file)
    chosen = _chosen(cases_of(card, card_file, data_root), cases, card)
    requests = metric_requests(parse_metrics(metrics or DEFAULT_METRICS[card.kind]))
    files = _masks(predictions, chosen, file_name)
    if files is None:
        model = load_model(predictions, tracking_uri=tracking_uri, device=device)
        check_classes(model.spec, card)
        written = predict_cases(
            model, chosen, card.reading(), output / "predictions", console=console
        )
        files = written.written
    missing = [case.name for case in chosen if case.name not in files]
    if missing:
        console.print(
            f"no prediction of {', '.join(missing)}: counted as the worst value",
            style="yellow",
            markup=False,
        )
    facts = {"data set": card.name, "cases": str(len(chosen)), "predictions": predictions}
    return evaluate_files(
        chosen,
        files,
        card,
        requests,
        output,
        bands=bands,
        title=card.name,
        facts=facts,
        console=console,
    )


def check_references(cases: Sequence[Case], card: Card, requests: Sequence[MetricRequest]) -> None:
    """Find out, before a night of work and not after it, that a case cannot be judged.

    Raises:
        MedsegError: A reference is missing, unreadable or holds an unnamed label, or a metric
            cannot be used on its grid.
    """
    reading, labels = card.reading(), card.label_map()
    for case in cases:
        reference = reading.labels(case)
        classes = labels.classes(reference.array, case.name)
        evaluate_labels(
            case.name,
            case.group,
            classes,
            None,
            reference.grid,
            _structures(card),
            requests,
            kind=card.kind,
        )


def check_classes(spec: ModelSpec, card: Card) -> None:
    """Refuse a model whose label values mean something else in the card.

    Raises:
        MedsegError: They do.
    """
    if card.kind == "instance" and spec.objects is None:
        raise MedsegError(
            f"the model {spec.name} labels classes, but each label of the data set {card.name} is "
            f"an object\n  predict first, number the objects, and evaluate the folder"
        )
    if card.kind != "instance" and spec.objects is not None:
        raise MedsegError(
            f"the model {spec.name} numbers objects, but the labels of the data set {card.name} "
            f"are classes\n  predict first, give the objects their class, and evaluate the folder"
        )
    written = card.label_map().written
    if not spec.structures.items() <= written.items():
        raise MedsegError(
            f"the model {spec.name} writes other labels than the data set {card.name} has\n"
            f"  model     {_values(spec.structures)}\n  data set  {_values(written)}\n"
            f"  predict first, give the labels these values, and evaluate the folder"
        )


def _values(structures: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in structures.items())


def _structures(card: Card) -> dict[str, tuple[int, ...]]:
    return {name: (index,) for name, index in card.label_map().structures.items()}


def evaluate_files(
    cases: Sequence[Case],
    files: Mapping[str, Path],
    card: Card,
    requests: Sequence[MetricRequest],
    output: Path,
    *,
    bands: Sequence[Length] = (),
    title: str,
    facts: Mapping[str, str],
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    console: Console,
) -> Evaluated:
    """Evaluate one label file a case; a case without one counts as the worst value.

    Args:
        cases: The cases with their references.
        files: Label file of each case that has one.
        card: The data set.
        requests: The metrics.
        output: Folder of the results.
        bands: Widths of the bands around the ground-truth border; 1 to 16 voxels of the first case
            if empty.
        title: Of the report.
        facts: What the report says about the evaluation.
        curves: Training curves for the report.
        console: Where progress is shown.
    """
    output.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    details: list[CaseDetail] = []
    widths: dict[Unit, Sequence[Length]] = {}
    for case in track(cases, "evaluating", console=console, disable=not console.is_terminal):
        judged = judged_labels(case, files.get(case.name), card)
        what = (case.name, case.group, judged.reference, judged.prediction, judged.grid)
        how: dict[str, Any] = {"kind": card.kind, "ignore": card.label_map().ignored}
        records += evaluate_labels(*what, _structures(card), requests, **how)
        usual = widths.setdefault(judged.grid.unit, band_widths(judged.grid))
        details.append(case_detail(*what, _structures(card), widths=bands or usual, **how))
    summaries = summarise(records)
    result = Evaluated(records, summaries, output)
    _write_tables(result, details, files)
    by_name = {case.name: case for case in cases}
    shown = [
        pictured(by_name[name], files.get(name), card) for name in pick_cases(records, CASES_SHOWN)
    ]
    overlays = output / "overlays"
    overlays.mkdir(exist_ok=True)
    for one in shown[:OVERLAYS]:
        (overlays / f"{one.case}.png").write_bytes(overlay_png(one))
    write_report(
        result.report,
        title=title,
        facts=facts,
        records=records,
        summary=summaries,
        cases=shown,
        details=details,
        curves=curves,
    )
    return result


def _write_tables(
    result: Evaluated, details: Sequence[CaseDetail], files: Mapping[str, Path]
) -> None:
    """Write what was measured, and which files it was measured on, for programs."""
    output = result.folder
    tables = {"records": result.records, "objects": object_records(details)}
    for name, records in tables.items():
        for suffix in (".csv", ".parquet") if records else ():
            write_table(records, output / f"{name}{suffix}")
    write_json(summary_json(result.summaries), output / "summary.json")
    with written_whole(output / "trimap.csv") as aside:
        bands_table(summarise_bands(details)).to_csv(aside, index=False)
    # Relative, so that a run's folder can be moved.
    places = {case: os.path.relpath(file, output) for case, file in files.items()}
    write_json(places, output / PREDICTIONS)


def _chosen(cases: Sequence[Case], names: Sequence[str], card: Card) -> list[Case]:
    known = {case.name: case for case in cases}
    for name in names:
        if name not in known:
            raise MedsegError(f"{name}: the data set {card.name} has no such case")
    return [known[name] for name in names] if names else list(cases)


def _masks(predictions: str, cases: Sequence[Case], file_name: str) -> dict[str, Path] | None:
    """Return the label files of a folder by case; None if this is no folder of masks."""
    folder = Path(predictions)
    if not folder.is_dir() or (folder / "model.json").exists() or (folder / "model").is_dir():
        return None
    if "{case}" not in file_name and len(cases) > 1:
        raise MedsegError(f"--file-name {file_name}: names one file; write {{case}} for the case")
    by_stem: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_image_file(path) and by_stem.setdefault(_stem(path), path) != path:
            raise MedsegError(f"{path}: lies beside {by_stem[_stem(path)].name}; remove one")
    wanted = {case.name: _stem(file_name.replace("{case}", case.name)) for case in cases}
    found = {name: by_stem[stem] for name, stem in wanted.items() if stem in by_stem}
    if not found:
        raise MedsegError(
            f"{folder}: holds no prediction of any case; looked for names like "
            f"{next(iter(wanted.values()))}\n  say how they are named: --file-name 'pred_{{case}}'"
        )
    return found


def _stem(file: Path | str) -> str:
    return Path(file).name.removesuffix(image_suffix(file))
