"""What files say of themselves, and whether their labels number objects."""

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from medseg.data import Case
from medseg.data.survey import survey
from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import AxesError, Image, write_image


def case(folder, name, image, labels):
    """Write a case of PNG files; the labels as they are."""
    Picture.fromarray(image).save(folder / f"{name}.png")
    Picture.fromarray(labels.astype(np.uint16)).save(folder / f"{name}_labels.png")
    return Case(name, (folder / f"{name}.png",), folder / f"{name}_labels.png", name)


def cases(folder, *label_images):
    grey = np.zeros((20, 20), np.uint8)
    return [case(folder, f"a{i}", grey, np.asarray(one)) for i, one in enumerate(label_images)]


def objects(count):
    labels = np.zeros((20, 20), int)
    labels.flat[:count] = np.arange(1, count + 1)
    return labels


def test_many_numbers_and_other_ones_in_each_image_are_objects(tmp_path):
    assert survey(cases(tmp_path, objects(12), objects(30))).numbered is True


def test_one_value_beside_zero_is_a_class(tmp_path):
    assert survey(cases(tmp_path, objects(1) * 255, objects(1) * 255)).numbered is False


def test_a_few_values_are_left_to_a_person(tmp_path):
    assert survey(cases(tmp_path, objects(3), objects(3))).numbered is None
    # The same twenty structures in each body: classes, as far as anybody can tell.
    assert survey(cases(tmp_path, objects(20), objects(20))).numbered is None


def test_values_are_counted_over_the_cases(tmp_path):
    found = survey(cases(tmp_path, objects(1), objects(2)))

    assert found.values == {0: 399 + 398, 1: 2, 2: 1}
    assert found.distinct == (1, 2)
    assert "0 (99.6% of the voxels)" in found.describe_values()


def test_names_and_sizes_come_from_the_files(tmp_path):
    grid = Grid((8, 9), (0.5, 0.25), Unit.UM)
    image = Image(np.zeros((2, 8, 9), np.uint8), grid, "CYX", ("DAPI", "GFP"))
    write_image(tmp_path / "a.ome.tif", image)
    write_image(tmp_path / "a_l.ome.tif", Image(np.ones((8, 9), np.uint8), grid, "YX"))

    found = survey([Case("a", (tmp_path / "a.ome.tif",), tmp_path / "a_l.ome.tif", "a")])
    assert found.named == ("DAPI", "GFP")
    assert found.channels == 2
    assert found.calibrated
    assert found.spatial_dims == 2


def test_a_stack_without_stated_axes_is_asked_about(tmp_path):
    for name in ("a.tif", "a_l.tif"):
        tifffile.imwrite(tmp_path / name, np.ones((5, 8, 9), np.uint8), metadata=None)
    one = Case("a", (tmp_path / "a.tif",), tmp_path / "a_l.tif", "a")

    with pytest.raises(AxesError, match="does not say what its axes mean"):
        survey([one])
    assert survey([one], axes="ZYX", label_axes="ZYX").spatial_dims == 3


def test_images_of_two_kinds_are_named(tmp_path):
    grey, colour = np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3), np.uint8)
    mixed = [case(tmp_path, "a", grey, objects(1)), case(tmp_path, "b", colour, objects(1))]

    with pytest.raises(MedsegError, match=r"number of channels: 1 \(a\), 3 \(b\)"):
        survey(mixed)


def test_labels_on_another_grid_and_no_labels_at_all_are_refused(tmp_path):
    with pytest.raises(MedsegError, match="b: the labels lie on another grid"):
        survey([case(tmp_path, "b", np.zeros((9, 9), np.uint8), objects(1))])
    with pytest.raises(MedsegError, match="none of the 1 cases has labels"):
        survey([Case("c", (tmp_path / "c.png",), None, "c")])
