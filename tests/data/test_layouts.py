"""Folders of files become cases, matched by name; what has no partner is named."""

import json
from pathlib import Path

import pytest

from medseg.data import UnpairedError, find_cases
from medseg.errors import MedsegError


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def pairs(root: Path, layout: str, **settings: object) -> dict[str, tuple[list[str], str | None]]:
    """Return the files of each case, relative to the root."""
    return {
        case.name: (
            [str(file.relative_to(root)) for file in case.images],
            str(case.labels.relative_to(root)) if case.labels else None,
        )
        for case in find_cases(root, layout, settings)
    }


def test_folders_are_paired_by_name_whatever_the_format_and_the_order(tmp_path):
    touch(tmp_path, "images/b.tif", "images/a.tif", "labels/a.png", "labels/b.png")

    assert pairs(tmp_path, "paired_folders") == {
        "a": (["images/a.tif"], "labels/a.png"),
        "b": (["images/b.tif"], "labels/b.png"),
    }


def test_what_is_no_image_is_passed_over(tmp_path):
    touch(tmp_path, "images/a.tif", "labels/a.tif", "images/notes.txt", "images/._a.tif")
    touch(tmp_path, "labels/.DS_Store", "labels/Thumbs.db")

    assert list(pairs(tmp_path, "paired_folders")) == ["a"]


def test_a_folder_of_dicom_slices_is_one_image(tmp_path):
    touch(tmp_path, "images/ann/1.dcm", "images/ann/2.dcm", "labels/ann.nii.gz")

    assert pairs(tmp_path, "paired_folders") == {"ann": (["images/ann"], "labels/ann.nii.gz")}


def test_an_image_without_labels_is_named(tmp_path):
    touch(tmp_path, "images/a.tif", "images/b.tif", "labels/a.tif")

    with pytest.raises(MedsegError, match=r"images without a label file: b\n.*labels"):
        find_cases(tmp_path, "paired_folders", {})


def test_all_that_have_no_partner_are_named_and_the_whole_cases_go_on(tmp_path):
    touch(tmp_path, "images/a.tif", "images/b.tif", "labels/a.tif", "labels/c.tif")

    with pytest.raises(
        UnpairedError, match=r"without a label file: b\n[\s\S]*without an image: c"
    ) as told:
        find_cases(tmp_path, "paired_folders", {})
    assert [case.name for case in told.value.paired] == ["a"]


def test_labels_without_an_image_are_named(tmp_path):
    touch(tmp_path, "images/a.tif", "labels/a.tif", "labels/c.tif")

    with pytest.raises(MedsegError, match=r"label files without an image: c\n.*images"):
        find_cases(tmp_path, "paired_folders", {})


def test_two_files_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "images/a.tif", "images/a.png", "labels/a.tif")

    with pytest.raises(MedsegError, match=r"a\.png and a\.tif: two files for one case"):
        find_cases(tmp_path, "paired_folders", {})


def test_images_without_any_labels_are_cases_too(tmp_path):
    touch(tmp_path, "images/a.tif")

    assert pairs(tmp_path, "paired_folders", labels=None) == {"a": (["images/a.tif"], None)}


def test_suffixes_tell_images_and_labels_in_one_folder_apart(tmp_path):
    touch(tmp_path, "a_img.tif", "a_seg.tif", "b_img.tif", "b_seg.tif", "overview.tif")

    found = pairs(
        tmp_path,
        "paired_folders",
        images=".",
        labels=".",
        image_suffix="_img",
        label_suffix="_seg",
    )

    assert found == {"a": (["a_img.tif"], "a_seg.tif"), "b": (["b_img.tif"], "b_seg.tif")}


@pytest.mark.parametrize(
    ("settings", "image"), [({}, "a.tif"), ({"image_suffix": "_img"}, "a_img.tif")]
)
def test_cellpose_has_masks_and_flows_beside_its_images(tmp_path, settings, image):
    touch(tmp_path, image, "a_masks.tif", "a_flows.tif")

    assert pairs(tmp_path, "cellpose", **settings) == {"a": ([image], "a_masks.tif")}


def test_stardist_has_images_and_masks(tmp_path):
    touch(tmp_path, "images/a.tif", "masks/a.tif")

    assert pairs(tmp_path, "stardist") == {"a": (["images/a.tif"], "masks/a.tif")}


def test_nnunet_has_one_file_a_channel(tmp_path):
    touch(tmp_path, "imagesTr/p_1_0001.nii.gz", "imagesTr/p_1_0000.nii.gz", "labelsTr/p_1.nii.gz")

    assert pairs(tmp_path, "nnunet", channels=2) == {
        "p_1": (["imagesTr/p_1_0000.nii.gz", "imagesTr/p_1_0001.nii.gz"], "labelsTr/p_1.nii.gz")
    }
    with pytest.raises(MedsegError, match=r"p_1: has channels \[0, 1\], not 0 to 0"):
        find_cases(tmp_path, "nnunet", {})


def test_nnunet_names_end_in_a_channel_and_have_their_partner(tmp_path):
    touch(tmp_path / "a", "imagesTr/p.nii.gz", "labelsTr/p.nii.gz")
    touch(tmp_path / "b", "imagesTr/p_0000.nii.gz", "imagesTr/q_0000.nii.gz", "labelsTr/p.nii.gz")
    touch(tmp_path / "c", "imagesTr/p_0000.nii.gz", "labelsTr/p.nii.gz", "labelsTr/q.nii.gz")

    for folder, message in {
        "a": "names end in a channel number: p_0000",
        "b": "images without a label file: q",
        "c": "label files without an image: q",
    }.items():
        with pytest.raises(MedsegError, match=message):
            find_cases(tmp_path / folder, "nnunet", {})


def decathlon(root: Path, content: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_decathlon_list_names_images_and_labels(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz")
    listed = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    decathlon(tmp_path, {"training": [listed], "test": ["./imagesTs/b.nii.gz"]})

    assert pairs(tmp_path, "decathlon") == {"a": (["imagesTr/a.nii.gz"], "labelsTr/a.nii.gz")}
    assert pairs(tmp_path, "decathlon", part="test") == {"b": (["imagesTs/b.nii.gz"], None)}


@pytest.mark.parametrize(
    "content", [[], {}, {"training": 3}, {"training": [3]}, {"training": [{"label": "a"}]}]
)
def test_what_is_no_decathlon_list_is_refused(tmp_path, content):
    with pytest.raises(MedsegError, match=r"dataset\.json: "):
        find_cases(decathlon(tmp_path, content), "decathlon", {})


def test_a_listed_file_that_is_missing_is_named(tmp_path):
    touch(tmp_path, "a.nii.gz")
    decathlon(tmp_path, {"training": [{"image": "a.nii.gz", "label": "gone.nii.gz"}]})

    with pytest.raises(MedsegError, match=r"gone\.nii\.gz for case a, which is missing"):
        find_cases(tmp_path, "decathlon", {})


def table(root: Path, text: str) -> Path:
    (root / "cases.csv").write_text(text, encoding="utf-8-sig")
    return root


def test_a_table_names_files_and_groups(tmp_path):
    touch(tmp_path, "x/1.tif", "x/2.tif", "y/1.tif")
    table(tmp_path, "case,image,label,group\na,x/1.tif,y/1.tif,ann\nb,x/2.tif,,\n")

    a, b = find_cases(tmp_path, "csv", {})

    assert pairs(tmp_path, "csv")["a"] == (["x/1.tif"], "y/1.tif")
    assert (a.group, b.group, b.labels) == ("ann", "b", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,image\na,a.tif\n", "has no column 'case', only name, image"),
        ("case,image\na,\n", "row 1 has nothing in the column 'image'"),
        ("case,image\na\n", "row 1 has nothing in the column 'image'"),
        ("case,image\na,b.tif\n", r"b\.tif for case a, which is missing"),
        ("case,image\na,a.tif\na,a.tif\n", "two cases have the name a"),
        ("case,image\n", "finds no case"),
        ("", "has no column 'case'"),
    ],
)
def test_a_table_that_leaves_something_open_is_refused(tmp_path, text, message):
    touch(tmp_path, "a.tif")

    with pytest.raises(MedsegError, match=message):
        find_cases(table(tmp_path, text), "csv", {})


@pytest.fixture
def secret(tmp_path):
    """A data set's folder with a file beside it, and a link to that from the inside."""
    outside = touch(tmp_path, "secret.tif") / "secret.tif"
    root = touch(tmp_path / "root", "a.tif")
    (root / "link.tif").symlink_to(outside)
    return root


@pytest.mark.parametrize("path", ["../secret.tif", "/etc/passwd", "link.tif", "x/../../secret.tif"])
def test_a_path_that_leads_out_of_the_folder_is_refused_and_not_opened(secret, path):
    touch(secret, "x/b.tif")
    table(secret, f"case,image,label\na,{path},a.tif\n")
    decathlon(secret, {"training": [{"image": "a.tif", "label": path}]})

    for layout in ("csv", "decathlon"):
        with pytest.raises(MedsegError, match=r"leads out of the data set's folder .*; refused"):
            find_cases(secret, layout, {})


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("paired_folders", {"images": "../x"}),
        ("paired_folders", {"labels": "/etc"}),
        ("csv", {"file": "../cases.csv"}),
        ("decathlon", {"file": "/etc/passwd"}),
    ],
)
def test_a_card_does_not_lead_out_of_its_folder_either(secret, layout, settings):
    touch(secret, "images/a.tif")

    with pytest.raises(MedsegError, match="leads out of the data set's folder"):
        find_cases(secret, layout, settings)


@pytest.mark.parametrize("name", ["../a", "x/a", ".", r"x\a"])
def test_a_case_is_not_called_like_a_path_as_its_prediction_would_be(tmp_path, name):
    touch(tmp_path, "a.tif")

    with pytest.raises(MedsegError, match="cannot name a case"):
        find_cases(table(tmp_path, f"case,image\n{name},a.tif\n"), "csv", {})


def test_an_empty_or_missing_folder_is_said_to_be_so(tmp_path):
    with pytest.raises(MedsegError, match="nowhere: there is no such folder"):
        find_cases(tmp_path / "nowhere", "stardist", {})
    with pytest.raises(MedsegError, match="images: there is no such folder; correct 'layout'"):
        find_cases(tmp_path, "stardist", {})
    touch(tmp_path, "images/readme.txt", "masks/readme.txt")
    with pytest.raises(MedsegError, match="images: holds no image"):
        find_cases(tmp_path, "stardist", {})
