"""Objects and membranes against the ground truth, and masks compared at once, by the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import read_table
from medseg.geometry import Grid, Unit
from medseg.images import write_labels

CONFIGS = Path(__file__).parents[2] / "configs"
NUCLEI = """\
name: nuclei
licence: CC0-1.0
citation: made here
layout: paired_folders
spatial_dims: 2
kind: instance
pixel_size: [0.5 um, 0.5 um]
labels: {background: 0, nucleus: 1}
"""
MEMBRANES = """\
name: rooms
licence: CC0-1.0
citation: made here
layout: paired_folders
spatial_dims: 2
labels: {background: 0, membrane: 1}
"""
GRID = Grid((40, 40), (0.5, 0.5), Unit.UM)


def nuclei(*ids: int) -> np.ndarray:
    labels = np.zeros((40, 40), np.uint32)
    for place, number in enumerate(ids):
        row, column = divmod(place, 3)
        labels[2 + 12 * row : 12 + 12 * row, 2 + 12 * column : 12 + 12 * column] = number
    return labels


@pytest.fixture
def objects(tmp_path) -> Path:
    """Three images with nuclei whose numbers need 32 bits, and predictions of two of them."""
    drawn = [nuclei(4_000_000_000, 7, 65_536), nuclei(1, 2), nuclei(3)]
    predicted = [nuclei(1, 1, 2), nuclei(70_000, 90_000)]
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    for number, labels in enumerate(drawn):
        image = (labels > 0) * np.uint8(100)
        Picture.fromarray(image).save(tmp_path / "images" / f"well_{number}.png")
        write_labels(tmp_path / "labels" / f"well_{number}.tif", labels, GRID)
    for number, labels in enumerate(predicted):
        write_labels(tmp_path / "masks" / f"well_{number}.tif", labels, GRID)
    (tmp_path / "nuclei.yaml").write_text(NUCLEI)
    return tmp_path


def means(ran) -> dict[str, float]:
    assert ran.code == 0, ran.errors
    return {row["metric"]: row["mean"] for row in ran.json["summary"]}


def test_objects_are_judged_by_their_own_metrics_if_none_are_named(objects, medseg):
    ran = medseg(
        "evaluate", objects / "masks", "--card", objects / "nuclei.yaml",
        "-o", objects / "out", "--json",
    )  # fmt: skip

    found = means(ran)
    # Of well_0 one of three nuclei is found and the other two are one; all of well_1; none of 2.
    assert found["average_precision"] == pytest.approx((1 / 4 + 1 + 0) / 3)
    assert found["merges"] == pytest.approx((1 + 0) / 2)
    assert {"panoptic_quality", "splits", "instance_assd"} <= set(found)
    rows = read_table(objects / "out" / "objects.parquet")
    status = {(r.case, r.structure): r.status for r in rows if r.metric == "iou"}
    assert status["well_0", "nucleus 65536"] == "ok"
    assert status["well_0", "nucleus 4000000000"] == "empty_prediction"
    assert status["well_0", "nucleus 1 (predicted)"] == "empty_reference"
    assert status["well_2", "nucleus 3"] == "empty_prediction"
    text = (objects / "out" / "report.html").read_text()
    for part in ("Near the border", "Size against error", "Where the border is off"):
        assert part in text


def test_metrics_of_objects_are_asked_for_by_name(objects, medseg):
    words = [w for name in ("aji", "ctc_seg", "ctc_det", "instance_precision:threshold=0.75")
             for w in ("--metric", name)]  # fmt: skip

    found = means(
        medseg("evaluate", objects / "labels", "--card", objects / "nuclei.yaml",
               "-o", objects / "out", "--json", *words)
    )  # fmt: skip

    assert found == {"aji": 1.0, "ctc_seg": 1.0, "ctc_det": 1.0, "instance_precision": 1.0}


def test_voxels_that_nobody_judged_are_in_no_object(objects, medseg):
    card = objects / "nuclei.yaml"
    card.write_text(NUCLEI + "ignore: 65536\n")

    ran = medseg("evaluate", objects / "masks", "--card", card, "--cases", "well_0",
                 "--metric", "instance_precision", "-o", objects / "out", "--json")  # fmt: skip

    assert means(ran) == {"instance_precision": 0.0}  # the joined one is left
    assert read_table(objects / "out" / "records.csv")[0].ignored_voxels == 100


def test_a_data_set_of_objects_is_checked(objects, medseg):
    ran = medseg("check", objects / "nuclei.yaml", "--json")

    assert ran.code == 0
    assert {finding["severity"] for finding in ran.json["findings"]} <= {"note"}
    assert ran.json["facts"]["nucleus"] == f"{600 / 4800:.2%} of the voxels, in 3 cases"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{background: 0, nucleus: 1, border: 2}", "every number is an object"),
        ("{background: 0, nucleus: 5}", "1 stands for every number but 0"),
        ("{background: 1, nucleus: 0}", "every number is an object"),
    ],
)
def test_a_card_of_objects_names_one_structure(objects, medseg, labels, message):
    card = objects / "nuclei.yaml"
    card.write_text(NUCLEI.replace("{background: 0, nucleus: 1}", labels))

    ran = medseg("check", card)

    assert (ran.code, message in ran.errors) == (1, True)


def test_a_model_of_classes_is_not_judged_on_objects(objects, discs, medseg):
    ran = medseg("evaluate", discs.folder, "--card", objects / "nuclei.yaml",
                 "-o", objects / "out", "--device", "cpu")  # fmt: skip

    assert (ran.code, "number the objects" in ran.errors) == (1, True)


def rooms(wall: int, *, leak: bool = False) -> np.ndarray:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, wall - 1 : wall + 2] = 1
    if leak:
        labels[20] = 0
    return labels


@pytest.fixture
def membranes(tmp_path) -> Path:
    """Seven images of two cells; one folder of good predictions and one of leaking ones."""
    for folder in ("images", "labels", "good", "leaking"):
        (tmp_path / folder).mkdir()
    for number in range(7):
        drawn = rooms(15 + number)
        Picture.fromarray(200 - 100 * drawn).save(tmp_path / "images" / f"slice_{number}.png")
        Picture.fromarray(drawn).save(tmp_path / "labels" / f"slice_{number}.png")
        Picture.fromarray(rooms(16 + number)).save(tmp_path / "good" / f"slice_{number}.png")
        bad = rooms(15 + number, leak=True)
        Picture.fromarray(bad).save(tmp_path / "leaking" / f"slice_{number}.png")
    (tmp_path / "rooms.yaml").write_text(MEMBRANES)
    return tmp_path


def test_the_cells_between_membranes_are_judged_where_the_membrane_is_named(membranes, medseg):
    words = [w for name in ("v_rand", "v_info", "voi_split", "voi_merge", "adapted_rand_error",
                            "pixel_error", "warping_error")
             for w in ("--metric", f"{name}:structure=membrane")]  # fmt: skip

    found = means(
        medseg("evaluate", membranes / "leaking", "--card", membranes / "rooms.yaml",
               "-o", membranes / "out", "--json", *words)
    )  # fmt: skip

    assert found["v_rand"] == pytest.approx(1 - found["adapted_rand_error"])
    assert found["v_rand"] < 0.75
    assert found["voi_split"] == pytest.approx(0, abs=1e-6)
    assert found["voi_merge"] > 0.8
    assert found["pixel_error"] == 3 / 1600
    assert found["warping_error"] == pytest.approx(1 / 1600)
    unnamed = medseg("evaluate", membranes / "good", "--card", membranes / "rooms.yaml",
                     "-o", membranes / "out", "--metric", "v_rand")  # fmt: skip
    assert (unnamed.code, "say which structure is the membrane" in unnamed.errors) == (1, True)


def test_bands_are_as_wide_as_they_are_asked_for(membranes, medseg):
    ran = medseg("evaluate", membranes / "good", "--card", membranes / "rooms.yaml",
                 "-o", membranes / "out", "--trimap", "3 px,1 px")  # fmt: skip

    assert ran.code == 0, ran.errors
    lines = (membranes / "out" / "trimap.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["1.0", "px", "7"], ["3.0", "px", "7"], ["", "px", "7"],
    ]  # fmt: skip
    wrong = medseg("evaluate", membranes / "good", "--card", membranes / "rooms.yaml",
                   "-o", membranes / "out", "--trimap", "3")  # fmt: skip
    assert (wrong.code, "--trimap" in wrong.errors) == (2, True)


def test_folders_of_masks_are_judged_and_compared_at_once(membranes, medseg):
    words = ["--card", membranes / "rooms.yaml", "-o", membranes / "vs",
             "--metric", "v_rand:structure=membrane"]  # fmt: skip

    ran = medseg("compare", membranes / "leaking", membranes / "good", *words, "--json")

    assert ran.code == 0, ran.errors
    (pair,) = ran.json["pairs"]
    assert (pair["first"], pair["second"], pair["n"], pair["better"]) == (
        "leaking",
        "good",
        7,
        "good",
    )
    for name in ("leaking", "good"):
        assert (membranes / "vs" / name / "report.html").is_file()
    text = (membranes / "vs" / "report.html").read_text()
    assert text.count("<h4>") == 7
    assert 'data-toggle="no-other"' in text
    said = medseg("compare", membranes / "vs" / "leaking", membranes / "vs" / "good",
                  "-o", membranes / "again")  # fmt: skip
    assert "V_rand: good is better than leaking by" in " ".join(said.output.split())


def test_folders_of_one_name_are_told_apart_by_where_they_lie(membranes, medseg):
    for name in ("good", "leaking"):
        shutil.copytree(membranes / name, membranes / f"team_{name}" / "masks")

    ran = medseg("compare", membranes / "team_good" / "masks", membranes / "team_leaking" / "masks",
                 "--card", membranes / "rooms.yaml", "--metric", "dice",
                 "-o", membranes / "vs", "--json")  # fmt: skip

    assert ran.json["names"] == ["team_good-masks", "team_leaking-masks"]


def test_a_model_is_compared_with_a_folder_of_masks(discs, medseg, tmp_path):
    shutil.copytree(discs.root / "labels", tmp_path / "expert")

    ran = medseg("compare", discs.folder / "model", tmp_path / "expert",
                 "--card", discs.root / "discs.yaml", "--metric", "dice", "--device", "cpu",
                 "-o", tmp_path / "vs", "--json")  # fmt: skip

    assert ran.code == 0, ran.errors
    means_of = {pair["second"]: pair["mean_second"] for pair in ran.json["pairs"]}
    assert means_of == {"expert": 1.0}


def test_the_files_that_were_judged_are_named_so_that_a_folder_can_be_moved(membranes, medseg):
    medseg("evaluate", membranes / "good", "--card", membranes / "rooms.yaml",
           "-o", membranes / "out", "--metric", "dice")  # fmt: skip

    listed = json.loads((membranes / "out" / "predictions.json").read_text())

    assert listed["slice_0"] == "../good/slice_0.png"


@pytest.mark.realdata
@pytest.mark.slow
def test_the_second_observer_of_chase_db1_is_as_far_from_the_first_as_its_notes_say(
    data_root, medseg, tmp_path
):
    if not (data_root / "chase_db1").is_dir():
        pytest.skip(f"{data_root} holds no chase_db1")
    ran = medseg(
        "evaluate", data_root / "chase_db1" / "labels_2ndHO",
        "--card", CONFIGS / "data" / "chase_db1.yaml", "--data-root", data_root,
        "--file-name", "{case}_2ndHO", "--metric", "dice", "-o", tmp_path, "--json",
    )  # fmt: skip

    # 0.7765 over all 28 images, of which 8 (0.7977) are kept back.
    assert means(ran)["dice"] == pytest.approx((28 * 0.7765 - 8 * 0.7977) / 20, abs=1e-3)


@pytest.mark.realdata
@pytest.mark.slow
def test_real_nuclei_are_found_again_in_their_own_labels(data_root, medseg, tmp_path):
    if not (data_root / "dsb2018_nuclei").is_dir():
        pytest.skip(f"{data_root} holds no dsb2018_nuclei")
    ran = medseg(
        "evaluate", data_root / "dsb2018_nuclei" / "labels",
        "--card", CONFIGS / "data" / "dsb2018_nuclei.yaml", "--data-root", data_root,
        "--cases", "00071198d059,00ae65c1c663", "-o", tmp_path, "--json",
    )  # fmt: skip

    assert {name: value for name, value in means(ran).items() if value != 1.0} == {
        "splits": 0.0, "merges": 0.0, "instance_assd": 0.0,
    }  # fmt: skip
