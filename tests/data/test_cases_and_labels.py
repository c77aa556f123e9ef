"""Cases, their labels and their groups."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.data import Case, LabelMap, Reading, group_of
from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, write_image, write_labels

ONE_CHANNEL = Reading(channels=("image",))


def volume(shape=(4, 5, 6), spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Image:
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    eye = tuple(map(tuple, np.eye(3)[:, ::-1].tolist()))
    return Image(array, Grid(shape, spacing, Unit.MM, origin, eye), "ZYX")


def case_of(folder: Path, image: Image, labels: Image | None) -> Case:
    write_image(folder / "image.nii.gz", image)
    if labels is None:
        return Case("a", (folder / "image.nii.gz",), None, "a")
    write_labels(folder / "labels.nii.gz", labels.array.astype(np.uint8) % 3, labels)
    return Case("a", (folder / "image.nii.gz",), folder / "labels.nii.gz", "a")


def test_a_pair_on_one_grid_is_read(tmp_path):
    image, labels = ONE_CHANNEL.pair(case_of(tmp_path, volume(), volume()))

    assert image.axes == "CZYX"
    assert image.array.shape == (1, 4, 5, 6)
    assert labels.array.max() == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (volume(shape=(2, 5, 6), spacing=(4.0, 1.0, 1.0)), "6 x 5 x 2 voxels of 1 x 1 x 4 mm"),
        (volume(spacing=(2.0, 1.0, 1.5)), "6 x 5 x 4 voxels of 1.5 x 1 x 2 mm"),
        (volume(origin=(0.0, 9.0, 0.0)), "the origin or the orientation differs"),
    ],
)
def test_labels_on_another_grid_are_refused_and_both_grids_shown(tmp_path, other, said):
    with pytest.raises(MedsegError) as refused:
        ONE_CHANNEL.pair(case_of(tmp_path, volume(), other))

    assert str(refused.value).startswith("a: the labels lie on another grid than the image")
    assert "6 x 5 x 4 voxels of 1 x 1 x 2 mm" in str(refused.value)
    assert said in str(refused.value)


def test_labels_without_a_pixel_size_lead_to_the_card(tmp_path):
    pixels = np.zeros((8, 9), np.uint8)
    sized = Image(pixels, Grid((8, 9), (0.5, 0.5), Unit.UM), "YX")
    write_image(tmp_path / "a.tif", sized)
    write_labels(tmp_path / "a.png", pixels, Image(pixels, Grid((8, 9), (1.0, 1.0)), "YX"))
    case = Case("a", (tmp_path / "a.tif",), tmp_path / "a.png", "a")

    with pytest.raises(MedsegError, match="state it in the dataset card"):
        ONE_CHANNEL.pair(case)
    stated = Reading(channels=("image",), spacing=(0.5, 0.5), unit=Unit.UM)
    assert stated.pair(case)[1].grid.spacing == (0.5, 0.5)


def test_another_number_of_channels_than_the_card_names_is_refused(tmp_path):
    case = case_of(tmp_path, volume(), None)

    with pytest.raises(MedsegError, match=r"1 channel\(s\), the card names 2 \(T1, T2\)"):
        Reading(channels=("T1", "T2")).image(case)


def test_one_file_a_channel_is_read_in_the_order_of_the_case(tmp_path):
    for name, value in (("t1", 1), ("t2", 2)):
        image = volume()
        array = np.full_like(image.array, value)
        write_image(tmp_path / f"{name}.nii.gz", Image(array, image.grid, "ZYX"))
    files = tmp_path / "t2.nii.gz", tmp_path / "t1.nii.gz"

    image = Reading(channels=("T2", "T1")).image(Case("a", files, None, "a"))

    assert image.array[:, 0, 0, 0].tolist() == [2, 1]
    assert image.channels == ("T2", "T1")


def test_channels_on_different_grids_are_refused(tmp_path):
    write_image(tmp_path / "t1.nii.gz", volume())
    write_image(tmp_path / "t2.nii.gz", volume(origin=(5.0, 0.0, 0.0)))
    case = Case("a", (tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"), None, "a")

    with pytest.raises(MedsegError, match="a: its channels lie on different grids"):
        Reading(channels=("T1", "T2")).image(case)


def test_a_case_without_labels_has_none_to_read(tmp_path):
    with pytest.raises(MedsegError, match="a: there is no label file"):
        ONE_CHANNEL.labels(case_of(tmp_path, volume(), None))


def test_file_values_become_classes_in_the_order_of_the_names():
    labels = LabelMap({"cell": (7, 9), "background": 255, "border": 0}, ignore=3)

    classes = labels.classes(np.array([[255, 7], [9, 0], [3, 3]], np.uint8), "a")

    assert labels.names == ("background", "cell", "border")
    assert labels.structures == {"cell": 1, "border": 2}
    assert labels.written == {"background": 255, "cell": 7, "border": 0}
    assert classes.tolist() == [[0, 1], [1, 2], [-1, -1]]


def test_a_value_that_the_card_does_not_name_is_refused_with_its_count():
    labels = LabelMap({"background": 0, "cell": [1, 2]})

    with pytest.raises(MedsegError) as refused:
        labels.classes(np.array([[0, 1, 5], [5, 9, 0]], np.uint8), "dish_3")

    assert str(refused.value).splitlines() == [
        "dish_3: the labels hold values that the card does not name: 5 (2 voxels), 9 (1 voxels)",
        "  the card names background: 0, cell: [1, 2]",
        "  correct the file, or name the value under 'labels' (or as 'ignore') in the card",
    ]


@given(st.lists(st.integers(0, 255), min_size=2, max_size=20, unique=True))
def test_what_is_written_for_a_class_is_read_as_that_class(values):
    structures = {f"s{i}": value for i, value in enumerate(values[1:])}
    labels = LabelMap({"background": values[0], **structures})
    written = np.array(list(labels.written.values()), np.uint8)

    assert labels.classes(written, "a").tolist() == list(range(len(values)))


@pytest.mark.parametrize(
    ("structures", "ignore", "message"),
    [
        ({"cell": 1}, None, "name the background"),
        ({"background": 0}, None, "at least one structure"),
        ({"background": 0, "cell": (1, 0)}, None, "0 stands for two labels"),
        ({"background": 0, "cell": 1}, 0, "0 stands for two labels"),
        ({"background": 0, "cell": ()}, None, '"cell" has no file value'),
        ({"background": 0, "cell": 2**32}, None, "from 0 to 4294967295"),
        ({"background": -1, "cell": 0}, None, "from 0 to 4294967295"),
    ],
)
def test_labels_that_mean_nothing_or_two_things_are_refused(structures, ignore, message):
    with pytest.raises(ValueError, match=message):
        LabelMap(structures, ignore=ignore)


@pytest.mark.parametrize(
    ("name", "pattern", "consecutive", "group"),
    [
        ("a", None, 1, "a"),
        ("dish_b_03", "dish_([a-z])", 1, "b"),
        ("hippocampus_001", r"hippocampus_(\d+)", 2, "1"),
        ("hippocampus_002", r"hippocampus_(\d+)", 2, "1"),
        ("hippocampus_003", r"hippocampus_(\d+)", 2, "2"),
        ("slice_10", r"(\d+)", 5, "2"),
    ],
)
def test_the_group_stands_in_the_name(name, pattern, consecutive, group):
    assert group_of(name, pattern=pattern, consecutive=consecutive) == group


@pytest.mark.parametrize(
    ("pattern", "consecutive", "message"),
    [
        (r"slide(\d+)", 1, "finds no group"),
        ("dish", 1, "finds no group"),
        ("(x)?dish", 1, "finds no group"),
        ("(dish)", 2, "counts numbers"),
    ],
)
def test_a_name_without_its_group_is_refused(pattern, consecutive, message):
    with pytest.raises(ValueError, match=message):
        group_of("dish_b", pattern=pattern, consecutive=consecutive)
