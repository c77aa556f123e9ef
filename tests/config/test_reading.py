"""YAML to checked values."""

from pathlib import Path

import pytest

from medseg.config.reading import override, read_yaml
from medseg.errors import MedsegError


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "job.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_key_written_twice_is_refused_at_any_depth(tmp_path):
    with pytest.raises(MedsegError, match='"depth" is set twice'):
        read_yaml(written(tmp_path, "network: {name: msd, depth: 3, depth: 4}"))


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: b: c",
        "a: !!python/object/apply:os.system ['true']",
        b"\xff\xfe\x00",
        "x: 2024-13-45",
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_the_file_named(tmp_path, text):
    with pytest.raises(MedsegError, match=r"job\.yaml: not readable as YAML"):
        read_yaml(written(tmp_path, text))


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    with pytest.raises(MedsegError, match=r"job\.yaml: holds no settings"):
        read_yaml(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MedsegError, match=r"none\.yaml: there is no such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "1E-3", "0.001", "+1e-3"])
def test_a_power_of_ten_is_a_number_however_it_is_written(tmp_path, text):
    assert read_yaml(written(tmp_path, f"rate: {text}")) == {"rate": 0.001}


def test_a_name_that_begins_like_a_number_stays_a_name(tmp_path):
    assert read_yaml(written(tmp_path, "a: 2e\nb: 00-15\nc: 1e3x")) == {
        "a": "2e",
        "b": "00-15",
        "c": "1e3x",
    }


def test_overrides_change_a_copy_and_make_sections_that_are_not_there():
    content = {"train": {"epochs": 100}}

    changed = override(content, ["train.epochs=3", "predict.mirror=true", "network.depth=[1, 2]"])

    assert changed == {
        "train": {"epochs": 3},
        "predict": {"mirror": True},
        "network": {"depth": [1, 2]},
    }
    assert content == {"train": {"epochs": 100}}


def test_a_part_that_has_only_a_name_takes_a_setting():
    assert override({"network": "unet"}, ["network.depth=3"]) == {
        "network": {"name": "unet", "depth": 3}
    }


def test_an_override_says_how_it_is_written():
    with pytest.raises(MedsegError, match="write overrides as key=value"):
        override({}, ["train.epochs"])
    with pytest.raises(MedsegError, match=r"train\.epochs\.x: epochs is 3, not a section"):
        override({"train": {"epochs": 3}}, ["train.epochs.x=1"])
    with pytest.raises(MedsegError, match=r"train\.epochs=\[3: the value is not readable"):
        override({}, ["train.epochs=[3"])
