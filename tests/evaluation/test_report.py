import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from medseg.evaluation import (
    MetricRequest,
    ReportCase,
    compare,
    evaluate_case,
    pick_cases,
    summarise,
    write_report,
)
from medseg.evaluation.plots import Axis, charts, distributions
from medseg.geometry import Grid, Length, Unit

METRICS = [MetricRequest("dice"), MetricRequest("hd95"),
           MetricRequest("nsd", {"tolerance": Length.parse("2 um")})]  # fmt: skip
NASTY = '<script>alert("1")</script>'
GRID = Grid((8, 48, 48), (2.0, 0.5, 0.5), Unit.UM)


def ball(shift: int, label: int = 1) -> np.ndarray:
    z, y, x = np.mgrid[:8, :48, :48]
    inside = ((z - 4) / 3) ** 2 + ((y - 24) / 12) ** 2 + ((x - 20 - shift) / 12) ** 2 < 1
    return np.where(inside, label, 0).astype(np.uint8)


def evaluated(shift=0):
    """Five cases of two structures: fair, missed, without a prediction, ill-named, empty."""
    structures = {"nucleus": (1,), "a <b>": (2,)}
    cases, records = [], []
    for number, name in enumerate(["cell_0", "cell_1", "cell_2", NASTY, "empty & none"]):
        reference = ball(0) if number < 4 else ball(0) * 0
        prediction = ball(number + shift) if number < 4 else reference
        if number == 1:
            prediction = ball(0) * 0
        if number == 2:
            prediction = None
        records += evaluate_case(
            name, f"fish {number}", reference, prediction, GRID, structures, METRICS
        )
        image = np.random.default_rng(number).normal(100, 5, GRID.shape) + reference * 50
        cases.append(ReportCase(name, image, reference, prediction, GRID))
    return records, cases


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    records, cases = evaluated()
    write_report(
        path,
        title="Nuclei <in> fish",
        facts={"Model": "msd & co", "Data": "fish"},
        records=records,
        summary=summarise(records, resamples=200),
        cases=cases,
        curves={"train/loss": [(1, 0.9), (2, float("nan")), (3, 0.5)], "val/dice": [(1, 0.4)]},
        comparison=compare({"msd": records, "u<net>": evaluated(1)[0]}, resamples=200),
    )
    return path


@pytest.fixture(scope="module")
def text(report):
    return report.read_text(encoding="utf-8")


def test_a_report_asks_no_server_for_anything(text):
    assert not re.findall(r"https?:|\bsrc=\"(?!data:)|@import|url\(|<link", text)
    assert all(
        address.startswith(("data:", "#")) for address in re.findall(r'href="([^"]*)"', text)
    )
    assert "default-src 'none'" in text


def test_the_ground_truth_is_yellow_and_the_prediction_is_not(text):
    assert "--reference: #FFD700" in text
    assert "--prediction: #2CB1FF" in text
    assert text.count('class="reference"') > text.count('class="prediction"') > 10


def test_every_case_structure_and_name_is_shown_escaped(text):
    for name in ("cell_0", "cell_1", "cell_2", NASTY, "empty & none", "a <b>", "u<net>"):
        assert html.escape(name, quote=True).replace("&quot;", "&#34;") in text
    assert NASTY not in text
    assert text.count("<script>") == 1
    assert "Nuclei &lt;in&gt; fish" in text
    assert "msd &amp; co" in text


def test_no_number_is_printed_that_is_none(text):
    seen = re.sub(r"<style>.*?</style>|<script>.*?</script>|data:image[^\"]*", "", text, flags=re.S)
    assert not re.findall(r"\b(nan|inf|None|Undefined)\b", seen)


def test_failures_are_named_and_said_to_count(text):
    assert (
        "<strong>1 \N{MULTIPLICATION SIGN} missed: not in the prediction</strong>: cell_1: nucleus"
        in text
    )
    assert "<strong>1 \N{MULTIPLICATION SIGN} no prediction for this case</strong>: cell_2" in text
    assert "missed: not in the prediction; counts as 0.000" in text
    # The diagonal of 8 x 48 x 48 voxels of 2 x 0.5 x 0.5 um.
    assert f"counts as {np.hypot(16, np.hypot(24, 24)):.1f} µm" in text


def test_metrics_are_explained_with_their_definition(text):
    assert "nsd/surfel-area/v1" in text
    assert "NSD at 2 µm" in text
    assert "surface Dice" in text


def test_worst_cases_come_first(text):
    shown = re.findall(r"<h4>(.*?)</h4>", text)

    assert shown == [
        "cell_1",
        "cell_2",
        html.escape(NASTY, quote=False).replace('"', "&#34;"),
        "cell_0",
    ]


def test_a_report_of_many_cases_stays_small(tmp_path):
    random = np.random.default_rng(0)
    grid = Grid((40, 300, 300), (3.0, 1.0, 1.0), Unit.MM)
    reference = np.zeros(grid.shape, np.uint8)
    reference[5:35, 80:220, 80:220] = 1
    image = random.normal(size=grid.shape).astype(np.float32)
    records, cases = [], []
    for number in range(14):
        prediction = np.roll(reference, number, axis=2)
        records += evaluate_case(
            f"c{number:02d}", "g", reference, prediction, grid, {"a": (1,)}, METRICS[:1]
        )
        cases.append(ReportCase(f"c{number:02d}", image, reference, prediction, grid))

    write_report(tmp_path / "r.html", title="t", facts={}, records=records,
                 summary=summarise(records), cases=cases)  # fmt: skip

    text = (tmp_path / "r.html").read_text()
    assert len(text) < 12_000_000
    assert re.findall(r"<h4>(.*?)</h4>", text) == pick_cases(records)


def test_a_report_without_pictures_curves_or_comparison_can_be_written(tmp_path, record):
    records = [record("a", 0.5)]

    write_report(tmp_path / "r.html", title="t", facts={}, records=records,
                 summary=summarise(records), cases=[])  # fmt: skip

    text = (tmp_path / "r.html").read_text()
    assert 'id="cases"' not in text
    assert 'id="training"' not in text
    assert 'id="comparison"' not in text


def test_a_report_of_nothing_says_so(tmp_path):
    write_report(tmp_path / "r.html", title="t", facts={}, records=[], summary=[], cases=[])

    assert "Nothing was evaluated." in (tmp_path / "r.html").read_text()


def test_failures_stand_beside_the_axis_so_that_the_others_stay_apart(record):
    facts = {"metric": "hd95", "unit": "mm"}
    records = [record(f"c{i}", 1.0 + i, **facts) for i in range(5)]
    records.append(record("lost", 400.0, status="empty_prediction", **facts))

    (plot,) = distributions(records, summarise(records, resamples=100))

    (lane,) = plot.lanes
    assert [dot.place for dot in lane.dots] == [20, 40, 60, 80, 100]
    assert (lane.failures, lane.mean, lane.mean_place) == (("lost",), "69.2 mm", None)


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [0.812, 1.0], [3, 250], [1e-9, 2e-9], [-3, 4]]
)
def test_an_axis_holds_its_values_between_round_ends(values):
    axis = Axis.over(values)

    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 7
    assert [axis.ticks[0].place, axis.ticks[-1].place] == [0, 100]


def test_curves_of_one_quantity_share_a_chart():
    line = [(1.0, 0.5), (2.0, 0.4)]

    made = charts({"train/loss": line, "val/loss": line, "val/dice": line, "val/iou_liver": line,
                   "lr": line, "empty": []})  # fmt: skip

    assert [(chart.title, [c.name for c in chart.curves]) for chart in made] == [
        ("Loss", ["train/loss", "val/loss"]),
        ("Dice", ["val/dice"]),
        ("IoU", ["val/iou_liver"]),
        ("Lr", ["lr"]),
    ]


@pytest.mark.browser
def test_the_script_runs_to_its_end_in_a_browser(report, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser: chromium is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--v=0"]  # fmt: skip

    done = subprocess.run(
        [chromium, *flags, "--dump-dom", report.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip

    assert 'data-ready="yes"' in done.stdout
    assert "CONSOLE" not in done.stderr
