"""Predictions against the ground truth, by the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import read_table
from medseg.geometry import Grid, Unit
from medseg.images import Image, write_labels

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def masks(discs, tmp_path):
    """A folder of predictions: the reference itself."""
    shutil.copytree(discs.root / "labels", tmp_path / "masks")
    return tmp_path / "masks"


@pytest.fixture
def evaluate(discs, medseg, tmp_path):
    """Evaluate predictions of the discs; return what the command did."""

    def run(predictions, *words):
        return medseg(
            "evaluate", predictions, "--card", discs.root / "discs.yaml",
            "-o", tmp_path / "out", "--json", *words,
        )  # fmt: skip

    return run


def means(ran) -> dict[str, float]:
    assert ran.code == 0, ran.errors
    return {row["metric"]: row["mean"] for row in ran.json["summary"] if row["structure"] == "disc"}


def test_the_reference_against_itself_is_perfect(evaluate, masks, tmp_path):
    ran = evaluate(masks)

    assert means(ran) == {"dice": 1.0, "iou": 1.0, "hd95": 0.0, "assd": 0.0}
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"records.csv", "records.parquet", "report.html", "summary.json"} <= written


def test_the_result_is_printed_and_nothing_else_is_said(discs, masks, medseg, tmp_path):
    ran = medseg("evaluate", masks, "--card", discs.root / "discs.yaml", "-o", tmp_path / "out")

    assert ran.code == 0
    assert "report" in ran.output
    assert "disc" in ran.output
    assert ran.errors == ""


def test_a_missing_prediction_counts_as_the_worst_and_is_named(evaluate, masks, tmp_path):
    (masks / "disc_3.png").unlink()

    ran = evaluate(masks, "--metric", "dice", "--metric", "hd95")

    assert "no prediction of disc_3: counted as the worst value" in ran.errors
    assert means(ran)["dice"] == pytest.approx(5 / 6)
    worst = {
        r.metric: (r.value, r.status)
        for r in read_table(tmp_path / "out" / "records.parquet")
        if r.case == "disc_3"
    }
    assert worst["dice"] == (0.0, "missing_prediction")
    # The diagonal of 64 x 64 pixels of 0.5 um.
    assert worst["hd95"] == (pytest.approx(32 * 2**0.5, rel=0.05), "missing_prediction")


def test_lengths_are_in_the_unit_of_the_card(evaluate, masks):
    mask = np.array(Picture.open(masks / "disc_0.png"))
    Picture.fromarray(np.roll(mask, 3, axis=1)).save(masks / "disc_0.png")
    near, far = (
        means(evaluate(masks, "--cases", "disc_0", "--metric", f"nsd:tolerance={tolerance}"))["nsd"]
        for tolerance in ("0.7 um", "0.0016 mm")
    )

    assert near < 0.8
    assert far == 1.0, "three pixels of 0.5 um are 1.5 um"


def test_names_of_predictions_are_told_by_a_pattern(evaluate, masks):
    for file in list(masks.iterdir()):
        file.rename(masks / f"pred_{file.stem}_v2.png")

    unnamed, named = evaluate(masks), evaluate(masks, "--file-name", "pred_{case}_v2")

    assert unnamed.code == 1
    assert "holds no prediction of any case" in unnamed.errors
    assert "--file-name 'pred_{case}'" in unnamed.errors
    assert means(named)["dice"] == 1.0


def test_one_file_is_not_the_prediction_of_many_cases(evaluate, masks):
    ran = evaluate(masks, "--file-name", "disc_0")

    assert ran.code == 1
    assert "names one file; write {case}" in ran.errors
    assert means(evaluate(masks, "--file-name", "disc_0", "--cases", "disc_0"))["dice"] == 1.0


def test_two_files_for_one_case_are_refused(evaluate, masks):
    Picture.open(masks / "disc_1.png").save(masks / "disc_1.bmp")

    ran = evaluate(masks)

    assert ran.code == 1
    assert "disc_1.png: lies beside disc_1.bmp; remove one" in ran.errors


def test_predictions_on_another_grid_are_refused_with_both_grids(evaluate, masks):
    Picture.fromarray(np.full((32, 64), 255, np.uint8)).save(masks / "disc_1.png")

    ran = evaluate(masks)

    assert ran.code == 1
    assert ran.errors.splitlines()[0] == (
        "error: disc_1: the prediction lies on another grid than the reference"
    )
    assert "reference   64 x 64 pixels of 0.5 x 0.5 um" in ran.errors
    assert "prediction  64 x 32 pixels of 0.5 x 0.5 um" in ran.errors
    assert "Traceback" not in ran.errors


def test_a_prediction_of_another_pixel_size_is_refused(evaluate, masks):
    array = np.array(Picture.open(masks / "disc_1.png"))
    (masks / "disc_1.png").unlink()
    other = Image(array, Grid((64, 64), (0.25, 0.25), Unit.UM), "YX")
    write_labels(masks / "disc_1.tif", array, other)

    ran = evaluate(masks)

    assert ran.code == 1
    assert "disc_1.tif" in ran.errors
    assert "0.25 x 0.25 um" in ran.errors


def test_a_label_that_the_card_does_not_name_is_refused(evaluate, masks):
    array = np.array(Picture.open(masks / "disc_1.png"))
    array[0, :5] = 9
    Picture.fromarray(array).save(masks / "disc_1.png")

    ran = evaluate(masks)

    assert ran.code == 1
    assert (
        "disc_1 (prediction): the labels hold values that the card does not name: 9" in ran.errors
    )


def test_a_prediction_that_cannot_be_read_is_refused_by_name(evaluate, masks):
    (masks / "disc_1.png").write_bytes(b"no picture")

    ran = evaluate(masks)

    assert ran.code == 1
    assert "disc_1.png" in ran.errors
    assert "Traceback" not in ran.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "dise"], 'metrics[0].name: "dise" is no metric; did you mean "dice"?'),
        (["--metric", "nsd"], 'metrics[0].tolerance: "nsd" needs this setting'),
        (["--cases", "disc_0, disc_9"], "disc_9: the data set discs has no such case"),
    ],
)
def test_what_is_asked_wrongly_is_one_message(evaluate, masks, words, message):
    ran = evaluate(masks, *words)

    assert ran.code == 1
    assert message in ran.errors


def test_a_model_predicts_first_and_is_judged_then(discs, evaluate, tmp_path):
    ran = evaluate(discs.folder, "--metric", "dice", "--cases", "disc_0,disc_1")

    assert means(ran)["dice"] > 0.5
    assert len(list((tmp_path / "out" / "predictions").glob("*.png"))) == 2


def test_a_model_of_other_labels_is_not_judged_by_this_card(discs, medseg, tmp_path):
    card = (discs.root / "discs.yaml").read_text().replace("disc: 0", "disc: 1")
    (tmp_path / "other.yaml").write_text(f"{card}root: {discs.root}\n")

    ran = medseg(
        "evaluate", discs.folder, "--card", tmp_path / "other.yaml", "-o", tmp_path / "out"
    )

    assert ran.code == 1
    assert "model     background: 255, disc: 0" in ran.errors
    assert "data set  background: 255, disc: 1" in ran.errors


def test_two_evaluations_are_compared(evaluate, discs, masks, medseg, tmp_path):
    for name in ("perfect", "shifted"):
        if name == "shifted":
            for file in masks.iterdir():
                array = np.roll(np.array(Picture.open(file)), 4, axis=1)
                Picture.fromarray(array).save(file)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert evaluate(masks, "--metric", "dice").code == 0
        (tmp_path / "out").rename(tmp_path / name)

    ran = medseg(
        "compare", tmp_path / "perfect", tmp_path / "shifted", "-o", tmp_path / "vs", "--json"
    )

    assert ran.code == 0, ran.errors
    assert {file.name for file in (tmp_path / "vs").iterdir()} == {
        "comparison.csv",
        "comparison.json",
        "report.html",
    }
    alone = medseg("compare", tmp_path / "perfect", "-o", tmp_path / "vs")
    assert (alone.code, "compare needs two" in alone.errors) == (1, True)
    nothing = medseg("compare", tmp_path / "perfect", masks, "-o", tmp_path / "vs")
    assert (nothing.code, "there is no records.parquet" in nothing.errors) == (1, True)


def test_a_data_set_is_checked_and_every_fault_listed(discs, medseg, tmp_path):
    shutil.copytree(discs.root / "images", tmp_path / "images")
    shutil.copytree(discs.root / "labels", tmp_path / "labels")
    shutil.copy(discs.root / "discs.yaml", tmp_path)
    whole = medseg("check", tmp_path / "discs.yaml", "--json")
    (tmp_path / "images" / "disc_1.png").write_bytes(b"no picture")
    Picture.fromarray(np.full((64, 64), 3, np.uint8)).save(tmp_path / "labels" / "disc_2.png")
    Picture.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / "labels" / "disc_3.png")

    broken = medseg("check", tmp_path / "discs.yaml", "--json")

    assert (whole.code, whole.json["findings"], whole.json["facts"]["cases"]) == (0, [], "6")
    assert broken.code == 1
    found = [(f["severity"], f["check"], f["case"]) for f in broken.json["findings"]]
    assert found[:2] == [
        ("error", "undeclared values", "disc_2"),
        ("error", "unreadable", "disc_1"),
    ]
    assert [f for f in found if f[1] == "empty case"] == [("warning", "empty case", "disc_3")]
    assert "disc_1.png" in broken.json["findings"][1]["found"]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "file_name", "dice"),
    [
        ("lobes", "targetLobeMaskEstimated", [0.957884, 0.962188, 0.947807, 0.922074, 0.957133]),
        ("lungs", "targetLungMaskEstimated", [0.979242, 0.976325]),
    ],
)
def test_the_dice_that_is_printed_with_the_lung_data_is_found_again(
    data_root, medseg, tmp_path, card, file_name, dice
):
    ran = medseg(
        "evaluate", data_root / "lung_mri_lobes" / "estimate_0004",
        "--card", CONFIGS / "data" / f"lung_mri_{card}.yaml", "--data-root", data_root,
        "--cases", "0004", "--file-name", file_name, "--metric", "dice", "-o", tmp_path, "--json",
    )  # fmt: skip

    assert ran.code == 0, ran.errors
    found = {row["structure"]: row["mean"] for row in ran.json["summary"]}
    found.pop("all structures", None)
    assert [found[name] for name in sorted(found)] == pytest.approx(dice, abs=5e-5)
