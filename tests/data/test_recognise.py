"""Layouts are recognised by the names in a folder; what fits two is not decided."""

import json
from pathlib import Path

import pytest

from medseg.data import find_cases
from medseg.data.recognise import recognise
from medseg.errors import MedsegError


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


FOLDERS = {  # files; the layout with its settings; the names of the cases
    "StarDist": (
        ("images/a.tif", "masks/a.tif", "images/b.tif", "masks/b.tif"),
        "stardist",
        ["a", "b"],
    ),
    "two folders": (
        ("img/a.png", "labels/a.png"),
        "paired_folders:images=img,labels=labels",
        ["a"],
    ),
    "an end of the label names": (
        ("images/a.jpg", "drawn_labels/a_1stHO.png", "images/b.jpg", "drawn_labels/b_1stHO.png"),
        "paired_folders:images=images,labels=drawn_labels,label_suffix=_1stHO",
        ["a", "b"],
    ),
    "images beside a folder of masks": (
        ("a.tif", "masks/a.tif"),
        "paired_folders:images=.,labels=masks",
        ["a"],
    ),
    "Cellpose": (("a.tif", "a_masks.tif", "b.tif", "b_masks.tif"), "cellpose", ["a", "b"]),
    "Cellpose with _img": (
        ("a_img.png", "a_masks.png", "a_img_flows.tif"),
        "cellpose:image_suffix=_img",
        ["a"],
    ),
    "_seg": (
        ("x.nii.gz", "x_seg.nii.gz", "y.nii.gz", "y_seg.nii.gz"),
        "paired_folders:images=.,labels=.,label_suffix=_seg",
        ["x", "y"],
    ),
    "nnU-Net, two channels": (
        (
            "imagesTr/a_0000.nii.gz",
            "imagesTr/a_0001.nii.gz",
            "labelsTr/a.nii.gz",
        ),
        "nnunet:channels=2",
        ["a"],
    ),
    "Decathlon's folders alone": (
        ("imagesTr/a_12.nii.gz", "labelsTr/a_12.nii.gz"),
        "paired_folders:images=imagesTr,labels=labelsTr",
        ["a_12"],
    ),
    "Data Science Bowl": (
        (
            "c1/images/c1.png",
            "c1/masks/1.png",
            "c1/masks/2.png",
            "c2/images/c2.png",
            "c2/masks/1.png",
        ),
        "dsb2018",
        ["c1", "c2"],
    ),
    "Cell Tracking Challenge": (
        ("01/t000.tif", "01/t001.tif", "01_GT/SEG/man_seg001.tif", "01_GT/TRA/man_track000.tif"),
        "ctc:truth=GT",
        ["01_t001"],
    ),
    "EmbedSeg": (
        ("train/images/a.tif", "train/masks/a.tif", "val/images/b.tif", "val/masks/b.tif"),
        "parts:parts=['train', 'val'],images=images,labels=masks",
        ["train_a", "val_b"],
    ),
    "BiaPy": (
        ("train/x/a.tif", "train/y/a.tif", "test/x/b.tif", "test/y/b.tif"),
        "parts:parts=['test', 'train'],images=x,labels=y",
        ["test_b", "train_a"],
    ),
    "unpacked into a folder of its own": (("data/a.tif", "data/a_masks.tif"), "cellpose", ["a"]),
}


@pytest.mark.parametrize(("files", "layout", "names"), FOLDERS.values(), ids=FOLDERS)
def test_each_layout_is_recognised_and_its_cases_are_found(tmp_path, files, layout, names):
    (found,) = recognise(touch(tmp_path, *files))

    assert found.text == layout
    assert found.seen
    cases = find_cases(found.root, found.layout, found.settings)
    assert [case.name for case in cases] == names
    assert all(case.labels is not None for case in cases)


def test_two_folders_of_labels_are_two_candidates(tmp_path):
    touch(tmp_path, "images/a.tif", "labels_ann/a.tif", "labels_ben/a.tif")

    assert [one.settings["labels"] for one in recognise(tmp_path)] == ["labels_ann", "labels_ben"]


def test_zarr_with_labels_inside_are_recognised_by_labels_that_all_of_them_have(tmp_path):
    touch(tmp_path, "a.zarr/labels/nuclei/x", "a.zarr/labels/cells/x", "b.zarr/labels/cells/x")

    (found,) = recognise(tmp_path)
    assert found.text == "ome_zarr:labels=cells"


def test_images_alone_are_no_data_set(tmp_path):
    assert recognise(touch(tmp_path, "a.tif", "b.tif", "notes.txt")) == []
    assert recognise(touch(tmp_path / "x", "images/a.tif", "previews/a.tif")) == []
    with pytest.raises(MedsegError, match="no such folder"):
        recognise(tmp_path / "nowhere")


def test_files_that_pair_with_none_are_named(tmp_path):
    touch(tmp_path, "a_image.nrrd", "a_label.nrrd", "b_image.nrrd", "b_label.nrrd", "c.nrrd")

    (found,) = recognise(tmp_path)
    assert found.settings["label_suffix"] == "_label"
    assert "left out, as they end otherwise: c" in found.seen


def test_a_list_states_names_of_labels_and_channels(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    described = {
        "name": "Brains",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "nothing", "1": "oedema", "2": "tumour"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))

    (found,) = recognise(tmp_path)
    assert found.layout == "decathlon"
    assert found.stated["labels"] == {"background": 0, "oedema": 1, "tumour": 2}
    assert found.stated["channels"] == ("FLAIR", "T1w")
    assert found.stated["axes"] == "CZYX"


def test_nnunets_ignore_label_is_no_structure_and_regions_are_left_to_a_person(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    listed = tmp_path / "dataset.json"

    listed.write_text(json.dumps({"labels": {"background": 0, "liver": 1, "ignore": 2}}))
    (found,) = recognise(tmp_path)
    assert found.stated["labels"] == {"background": 0, "liver": 1}
    assert found.stated["ignore"] == 2

    listed.write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "core": 2}}))
    (found,) = recognise(tmp_path)
    assert "labels" not in found.stated

    listed.write_text("{")
    with pytest.raises(MedsegError, match="not readable as JSON"):
        recognise(tmp_path)


def test_a_table_with_two_image_columns_gives_two_channels(tmp_path):
    rows = "case,image_dapi,image_gfp,label\na,a1.tif,a2.tif,l.tif\n"
    touch(tmp_path, "a1.tif", "a2.tif", "l.tif")
    (tmp_path / "list.csv").write_text(rows)

    (found,) = recognise(tmp_path)
    assert found.settings == {"file": "list.csv", "images": ["image_dapi", "image_gfp"]}
    (case,) = find_cases(found.root, found.layout, found.settings)
    assert len(case.images) == 2
