"""Pieces, holes and objects, against hand-worked drawings and scipy's labelling."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medseg.doctor.pieces import box_of, hole_sizes, objects_of, piece_sizes

masks = arrays(bool, st.tuples(*[st.integers(1, 9)] * 2)) | arrays(
    bool, st.tuples(*[st.integers(1, 5)] * 3)
)
numbers = arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2), elements=st.integers(0, 4))


def drawing(text: str) -> np.ndarray:
    """Return the digits of some lines as an array; a dot is 0."""
    rows = text.split()
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows])


@given(masks)
def test_the_pieces_are_those_of_scipy(mask):
    labelled, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    expected = sorted(np.bincount(labelled.ravel())[1:].tolist(), reverse=True)

    assert piece_sizes(mask).tolist() == expected
    assert len(expected) == count


@given(masks)
def test_the_holes_are_what_scipy_fills(mask):
    filled = ndimage.binary_fill_holes(mask)

    assert hole_sizes(mask).sum() == (filled & ~mask).sum()


@given(masks)
def test_a_box_holds_all_of_a_mask(mask):
    box = box_of(mask)

    if box is None:
        assert not mask.any()
    else:
        assert mask[box].sum() == mask.sum()
        for axis in range(mask.ndim):
            first, last = (mask[box].take(i, axis) for i in (0, -1))
            assert first.any()
            assert last.any()


def test_an_object_with_a_hole_and_a_hole_between_two_objects_are_told_apart():
    found = objects_of(
        drawing("""
        1111.2233
        1..1.2.33
        1111.2.33
        .....2233
        """)
    )

    assert found.numbers.tolist() == [1, 2, 3]
    assert found.holed.tolist() == [1], "between 2 and 3 is a gap, not a hole of either"


def test_one_number_for_two_blocks_is_scattered_and_a_crumb_is_frayed():
    labels = np.zeros((12, 40), int)
    labels[2:8, 2:8] = 7
    labels[2:8, 30:36] = 7
    labels[2:8, 12:18] = 9
    labels[10, 12] = 9
    found = objects_of(labels)

    assert (found.scattered.tolist(), found.frayed.tolist()) == ([7], [9])


def test_a_seam_is_thin_and_a_dot_is_a_speck():
    labels = np.zeros((20, 20), int)
    labels[2:18, 2:10] = 1
    labels[2:18, 10] = 2
    labels[2:18, 11:18] = 3
    labels[0, 0] = 4
    found = objects_of(labels)

    assert (found.thin.tolist(), found.specks.tolist()) == ([2], [4])


@given(numbers)
def test_the_numbers_do_not_matter_to_what_is_found(labels):
    renamed = np.array([0, 1000, 300, 70_000, 2**31], np.uint32)[labels]
    plain, other = objects_of(labels), objects_of(renamed)

    for key in ("scattered", "frayed", "thin", "holed", "specks"):
        here = {int(np.uint32([0, 1000, 300, 70_000, 2**31][n])) for n in getattr(plain, key)}
        assert here == set(getattr(other, key).tolist())
