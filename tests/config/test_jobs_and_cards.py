"""Jobs and cards: what is taken, and how what is wrong is told."""

from pathlib import Path

import pytest
import yaml

from medseg.config import (
    TrainJob,
    card_root,
    cases_of,
    metric_settings,
    parse_metrics,
    read_card,
    read_job,
    to_yaml,
)
from medseg.errors import MedsegError
from medseg.geometry import Length, Unit
from medseg.networks import NETWORKS

CONFIGS = Path(__file__).parents[2] / "configs"
CARD = {
    "name": "cells",
    "layout": "paired_folders",
    "spatial_dims": 2,
    "labels": {"background": 0, "cell": 1},
}
JOB = {"data": {"dataset": "cells.yaml", "patch_voxels": [32, 32]}, "network": {"name": "msd"}}


@pytest.fixture
def write(tmp_path):
    """Write a card and a job with some settings changed; return the job's file."""

    def writer(job: dict | None = None, card: dict | None = None) -> Path:
        (tmp_path / "cells.yaml").write_text(yaml.safe_dump(CARD | (card or {})))
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB | (job or {})))
        return tmp_path / "job.yaml"

    return writer


@pytest.mark.parametrize("file", sorted((CONFIGS / "train").rglob("*.yaml")), ids=lambda f: f.stem)
def test_every_job_that_we_ship_is_sound(file):
    job, card, card_file = read_job(file)

    assert card_file.is_file()
    assert len(job.data.patch_voxels) == card.spatial_dims


@pytest.mark.parametrize("data", ["isbi2012", "hippocampus"])
def test_the_jobs_of_the_bake_off_differ_in_nothing_but_the_network(data):
    jobs = [read_job(file)[0] for file in (CONFIGS / "train" / "bakeoff").glob(f"{data}_*.yaml")]

    assert {job.network.name for job in jobs} == set(NETWORKS)
    assert len({job.model_copy(update={"network": None}).model_dump_json() for job in jobs}) == 1


@pytest.mark.parametrize("file", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_card_that_we_ship_is_sound_and_says_whose_the_data_are(file):
    card = read_card(file)

    assert card.name == file.stem
    assert card.licence
    assert card.citation


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (
            {"network": {"name": "msd", "dilation": [1]}},
            'network.dilation: not a setting of "msd"; did you mean "dilations"?',
        ),
        ({"network": {"name": "mds"}}, 'network.name: "mds" is no network; did you mean "msd"?'),
        ({"network": {"depth": 3}}, "network.name: is missing"),
        ({"network": {"name": "msd", "depth": "deep"}}, "network.depth: "),
        ({"network": {"name": "msd", "depth": "3 px"}}, "network.depth: "),
        ({"trian": {"epochs": 3}}, 'trian: there is no such setting; did you mean "train"?'),
        (
            {"train": {"epoch": 3}},
            'train.epoch: there is no such setting; did you mean "epochs"?',
        ),
        ({"train": {"epochs": 0}}, "train.epochs: "),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: "),
        ({"metrics": ["dise"]}, 'metrics[0].name: "dise" is no metric; did you mean "dice"?'),
        ({"metrics": ["dice", "nsd"]}, 'metrics[1].tolerance: "nsd" needs this setting'),
        (
            {"metrics": [{"name": "nsd", "tolerance": "near"}]},
            "metrics[0].tolerance: Input should be a valid number; got 'near'",
        ),
        (
            {"metrics": ["dice", {"name": "nsd", "tolerence": "2 mm"}]},
            'metrics[1].tolerence: not a setting of "nsd"; did you mean "tolerance"?',
        ),
        ({"metrics": []}, "metrics: "),
        ({"loss": {"name": "dice_ce", "smoth": 1}}, "loss.smoth: not a setting"),
        ({"augmentation": "lihgt"}, 'augmentation.name: "lihgt" is no augmentation'),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(write, job, message):
    with pytest.raises(MedsegError) as refused:
        read_job(write(job))

    head, line = str(refused.value).split("\n")
    assert head.endswith("job.yaml:")
    assert line.startswith(f"  {message}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"patch_voxels": [32, 0]}, "data.patch_voxels[1]: "),
        ({"spacing": ["1 mm"]}, "data.spacing: "),
        ({"spacing": ["1 mm", "1"]}, "data.spacing[1]: '1' is not a length"),
        ({"spacing": ["1 mm", "-1 mm"]}, "data.spacing[1]: a size is positive, got -1 mm"),
        ({"spacing": ["1 mm", "1 um"]}, "data.spacing: all lengths in one unit"),
        ({"normalisation": "zscroe"}, 'data.normalisation.name: "zscroe" is no normalisation'),
        ({"split": {"name": "group", "tset": 0.2}}, "data.split.tset: not a setting"),
    ],
)
def test_a_wrong_setting_of_the_data_is_named_with_its_path(write, data, message):
    with pytest.raises(MedsegError) as refused:
        read_job(write({"data": JOB["data"] | data}))

    assert str(refused.value).split("\n")[1].startswith(f"  {message}")


def test_all_that_is_wrong_is_told_at_once(write):
    with pytest.raises(MedsegError) as refused:
        read_job(write({"train": {"epochs": 0, "batch": 0}, "network": "mds"}))

    assert len(str(refused.value).splitlines()) == 4


def test_a_job_that_does_not_fit_its_data_is_refused(write):
    with pytest.raises(MedsegError, match=r"patch_voxels has 3 axes, the data set cells is 2D"):
        read_job(write({"data": JOB["data"] | {"patch_voxels": [32, 32, 32]}}))
    with pytest.raises(MedsegError, match=r"window_voxels has 3 axes, the data set cells is 2D"):
        read_job(write({"predict": {"window_voxels": [32, 32, 32]}}))


def test_a_metric_of_objects_is_refused_before_training_not_after_it(write):
    with pytest.raises(MedsegError, match=r"metrics\[1\]\.name: .aji. judges objects"):
        read_job(write({"metrics": ["dice", "aji"]}))


def test_the_resolved_job_reads_back_the_same(write):
    file = write(
        {
            "data": JOB["data"] | {"spacing": ["0.123456789 um", "1e-4 um"]},
            "metrics": ["dice", {"name": "nsd", "tolerance": "2 um"}],
        }
    )
    job, _, _ = read_job(file)

    again = TrainJob.model_validate(yaml.safe_load(to_yaml(job)))

    assert again == job
    assert again.hash == job.hash


def test_the_hash_follows_what_decides_the_result(write):
    file = write()
    plain = read_job(file)[0].hash

    assert read_job(file, ["train.epochs=100"])[0].hash == plain, "100 is the default"
    assert read_job(file, ["train.seed=8"])[0].hash != plain


CRF = {"sigma_position": "3 um", "sigma_intensity": 0.3, "sigma_smooth": "500 nm"}


def test_the_lengths_of_a_crf_are_read_into_one_unit(write):
    job, _, _ = read_job(write({"predict": {"crf": CRF}}))

    found = job.predict.crf.settings

    assert (found["unit"], found["sigma_position"], found["sigma_smooth"]) == ("um", 3.0, 0.5)
    assert read_job(write())[0].predict.crf is False
    assert read_job(write({"predict": {"crf": "choose"}}))[0].predict.crf == "choose"


@pytest.mark.parametrize(
    ("crf", "message"),
    [
        (CRF | {"sigma_smooth": "1 px"}, "predict.crf: both lengths in px, or both in a physical"),
        (CRF | {"sigma_position": 3}, "predict.crf.sigma_position: 3 is not a length"),
        (CRF | {"sigma_intensity": 0}, "predict.crf.sigma_intensity: "),
        (CRF | {"sigma_intensity": [0.3, 0.3]}, "has 2 values, the images of cells have 1 channel"),
        (CRF | {"sigma": 1}, "predict.crf.sigma: there is no such setting"),
        ({"sigma_intensity": 0.3}, "predict.crf.sigma_position: is missing"),
        (CRF | {"cells_per_sigma": 17}, "predict.crf.cells_per_sigma: "),
    ],
)
def test_a_crf_without_sense_is_refused(write, crf, message):
    with pytest.raises(MedsegError) as refused:
        read_job(write({"predict": {"crf": crf}}))
    assert message in str(refused.value)


@pytest.mark.parametrize(("crf", "got"), [(True, "true"), ("chose", '"chose"'), (None, "null")])
def test_what_is_no_crf_is_refused_in_one_line(write, crf, got):
    with pytest.raises(MedsegError) as refused:
        read_job(write({"predict": {"crf": crf}}))
    (line,) = str(refused.value).splitlines()[1:]
    assert line == (
        "  predict.crf: write false, choose, or settings (sigma_position, sigma_intensity, "
        f"sigma_smooth, ...); got {got}"
    )


def test_metrics_of_the_command_line_are_those_of_a_job():
    dice, nsd = parse_metrics(["dice", "nsd:tolerance=2 mm"])

    assert (dice.name, metric_settings(dice)) == ("dice", {})
    assert (nsd.name, metric_settings(nsd)) == ("nsd", {"tolerance": Length(2, Unit.MM)})
    assert [part.name for part in parse_metrics([])] == ["dice", "iou", "hd95", "assd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dise", r'metrics\[0\]\.name: "dise" is no metric; did you mean "dice"'),
        ("nsd:tolernce=2 mm", r"metrics\[0\]\.tolernce: not a setting"),
        ("nsd:tolerance=[2", "not readable"),
        ("nsd:tolerance", r"metrics\[0\]\.tolerance"),
        ("", "is no metric"),
    ],
)
def test_a_wrong_metric_of_the_command_line_is_refused(text, message):
    with pytest.raises(MedsegError, match=message):
        parse_metrics([text])


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"labels": {"cell": 1}}, "labels: labels name the background"),
        ({"labels": {"background": 0, "cell": 0}}, "labels: file value 0 stands for two labels"),
        ({"labels": {"background": 0, "cell": "one"}}, "labels.cell"),
        ({"labels": {"background": 0, "cell": []}}, 'labels: "cell" has no file value'),
        ({"labels": {"background": 0, "cell": -1}}, "labels: file values are whole numbers"),
        ({"ignore": 1}, "labels: file value 1 stands for two labels"),
        ({"pixel_size": ["1 um"]}, "pixel_size: 1 lengths for 2D data"),
        ({"pixel_size": ["1 um", "1 mm"]}, "pixel_size: all lengths in one unit"),
        ({"pixel_size": ["1 um", "0 um"]}, "pixel_size[1]: a size is positive"),
        ({"pixel_size": [1, 1]}, "pixel_size[0]: 1 is not a length"),
        ({"channels": ["a", "a"]}, "channels: names each channel once"),
        ({"layout": "pared_folders"}, 'layout.name: "pared_folders" is no layout; did you mean'),
        ({"layout": {"name": "csv", "imgaes": ["a"]}}, "layout.imgaes: not a setting"),
        ({"groups": {"pattern": "("}}, 'groups.pattern: "(" is no regular expression'),
        ({"groups": {"pattern": "dish"}}, 'groups.pattern: "dish" has no bracket'),
        ({"split": {"name": "group", "test": "some"}}, "split.test: "),
        (
            {"kind": "instance", "labels": {"background": 0, "cell": 1, "border": 2}},
            "labels: where every number is an object (kind: instance)",
        ),
        ({"spatial_dims": 4}, "spatial_dims: "),
        ({"name": "a/b"}, "name: "),
    ],
)
def test_a_wrong_card_is_refused_with_the_path(write, card, message):
    with pytest.raises(MedsegError) as refused:
        read_job(write(card=card))

    head, line = str(refused.value).split("\n")[:2]
    assert head.endswith("cells.yaml:")
    assert line.startswith(f"  {message}")


def test_the_pixel_size_of_a_card_is_turned_to_array_order(write):
    file = write(card={"pixel_size": ["0.5 um", "2 um"]})

    assert read_job(file)[1].reading().spacing == (2.0, 0.5)
    assert read_job(file)[1].reading().unit is Unit.UM


def test_the_data_are_looked_for_beside_the_card_then_where_the_variable_says(
    write, tmp_path, monkeypatch
):
    card_file = write(card={"root": "images"}).parent / "cells.yaml"
    card, elsewhere = read_card(card_file), tmp_path / "elsewhere"
    monkeypatch.setenv("MEDSEG_DATA", str(elsewhere))
    with pytest.raises(MedsegError) as refused:
        card_root(card, card_file, None)
    assert f"looked for {tmp_path / 'images'}" in str(refused.value)
    assert f"looked for {elsewhere / 'images'}" in str(refused.value)

    (elsewhere / "images").mkdir(parents=True)
    assert card_root(card, card_file, None) == elsewhere / "images"
    (tmp_path / "images").mkdir()
    assert card_root(card, card_file, None) == tmp_path / "images"
    assert card_root(card, card_file, elsewhere) == elsewhere / "images"


def test_groups_are_read_from_the_names(write, tmp_path):
    for name in ("scan_1", "scan_2", "scan_3", "scan_4"):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.png").touch()
    file = write(card={"groups": {"pattern": r"scan_(\d+)", "consecutive": 2}})
    card = read_job(file)[1]

    groups = {case.name: case.group for case in cases_of(card, tmp_path / "cells.yaml", None)}

    assert groups == {"scan_1": "1", "scan_2": "1", "scan_3": "2", "scan_4": "2"}
    wrong = read_job(write(card={"groups": {"pattern": r"slide(\d+)"}}))[1]
    with pytest.raises(MedsegError, match=r'cells\.yaml: .*finds no group .* "scan_1"'):
        cases_of(wrong, tmp_path / "cells.yaml", None)
