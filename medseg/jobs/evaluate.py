"""Hold predictions against the ground truth: records, summary and report."""

import json
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
    MetricRequest,
    Record,
    ReportCase,
    Summary,
    check_same_grid,
    evaluate_case,
    overlay_png,
    pick_cases,
    summarise,
    summary_json,
    write_report,
    write_table,
)
from medseg.images import image_suffix, is_image_file, read_labels
from medseg.inference import ModelSpec
from medseg.jobs.parts import metric_requests
from medseg.jobs.predict import load_model, predict_cases

CASES_SHOWN = 12
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
        metrics: What to compute, e.g. ``dice`` and ``nsd:tolerance=2 mm``; Dice, IoU, HD95 and
            ASSD if empty.
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
    requests = metric_requests(parse_metrics(metrics))
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
        chosen, files, card, requests, output, title=card.name, facts=facts, console=console
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
        structures = {name: (index,) for name, index in labels.structures.items()}
        evaluate_case(case.name, case.group, classes, None, reference.grid, structures, requests)


def check_classes(spec: ModelSpec, card: Card) -> None:
    """Refuse a model whose label values mean something else in the card.

    Raises:
        MedsegError: They do.
    """
    written = card.label_map().written
    if not spec.structures.items() <= written.items():
        raise MedsegError(
            f"the model {spec.name} writes other labels than the data set {card.name} has\n"
            f"  model     {_values(spec.structures)}\n  data set  {_values(written)}\n"
            f"  predict first, give the labels these values, and evaluate the folder"
        )


def _values(structures: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in structures.items())


def evaluate_files(
    cases: Sequence[Case],
    files: Mapping[str, Path],
    card: Card,
    requests: Sequence[MetricRequest],
    output: Path,
    *,
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
        title: Of the report.
        facts: What the report says about the evaluation.
        curves: Training curves for the report.
        console: Where progress is shown.
    """
    output.mkdir(parents=True, exist_ok=True)
    labels = card.label_map()
    structures = {name: (index,) for name, index in labels.structures.items()}
    records: list[Record] = []
    for case in track(cases, "evaluating", console=console, disable=not console.is_terminal):
        judged = _load(case, files.get(case.name), card, with_image=False)
        records += evaluate_case(
            case.name,
            case.group,
            judged.reference,
            judged.prediction,
            judged.grid,
            structures,
            requests,
            ignore=labels.IGNORED if labels.ignore is not None else None,
        )
    summaries = summarise(records)
    result = Evaluated(records, summaries, output)
    write_table(records, output / "records.csv")
    write_table(records, output / "records.parquet")
    (output / "summary.json").write_text(json.dumps(summary_json(summaries), indent=2) + "\n")
    by_name = {case.name: case for case in cases}
    shown = [
        _load(by_name[name], files.get(name), card, with_image=True)
        for name in pick_cases(records, CASES_SHOWN)
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
        curves=curves,
    )
    return result


def _load(case: Case, file: Path | None, card: Card, *, with_image: bool) -> ReportCase:
    reading, labels = card.reading(), card.label_map()
    image, reference = reading.pair(case) if with_image else (None, reading.labels(case))
    prediction = None
    if file is not None:
        predicted = read_labels(
            file, axes=card.label_axes, spacing=reading.spacing, unit=reading.unit
        )
        check_same_grid(case.name, reference, predicted)
        prediction = labels.classes(predicted.array, f"{case.name} (prediction)")
    return ReportCase(
        case=case.name,
        image=reference.array if image is None else image.channels_first[0],
        reference=labels.classes(reference.array, case.name),
        prediction=prediction,
        grid=reference.grid,
        ignore=labels.IGNORED if labels.ignore is not None else None,
    )


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
