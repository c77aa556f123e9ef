"""A folder of masks, one an object, is one label image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from medseg.errors import MedsegError
from medseg.images import read_labels


def write_masks(folder, *masks):
    folder.mkdir()
    for number, mask in enumerate(masks):
        Picture.fromarray(np.asarray(mask, np.uint8) * 255).save(folder / f"{number:03d}.png")
    return folder


@given(st.integers(0, 2**32 - 1))
def test_masks_cut_from_a_label_image_give_it_back(tmp_path_factory, seed):
    labels = np.random.default_rng(seed).integers(0, 5, (6, 7))
    numbers = [n for n in range(1, 5) if (labels == n).any()]
    folder = tmp_path_factory.mktemp("case") / "masks"
    write_masks(folder, *(labels == n for n in numbers))

    merged = read_labels(folder).array
    expected = np.searchsorted([0, *numbers], labels)
    assert (merged == expected).all()


def test_a_shared_pixel_stays_with_the_first_and_more_is_refused(tmp_path):
    first, second = np.zeros((2, 10, 10), bool)
    first[:, :5], second[:, 5:] = True, True
    second[0, 4] = True
    merged = read_labels(write_masks(tmp_path / "a", first, second)).array
    assert merged[0, 4] == 1

    second[:, 3] = True
    with pytest.raises(MedsegError, match="shares 11 of its 61 voxels"):
        read_labels(write_masks(tmp_path / "b", first, second))


def test_an_empty_mask_and_one_of_another_size_are_named(tmp_path):
    whole = np.ones((4, 4))
    with pytest.raises(MedsegError, match=r"001\.png: the mask is empty"):
        read_labels(write_masks(tmp_path / "a", whole, whole * 0))
    with pytest.raises(MedsegError, match=r"001\.png: a mask of 3 x 3"):
        read_labels(write_masks(tmp_path / "b", whole, np.ones((3, 3))))
