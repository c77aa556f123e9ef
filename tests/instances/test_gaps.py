"""Facts of the weights of gaps."""

from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medseg.instances import unet_weight_map

small_labels = arrays.arrays(
    np.int32, st.tuples(st.integers(2, 8), st.integers(2, 8)), elements=st.integers(0, 4)
)


def plates(gap: int) -> np.ndarray:
    """Two wide cells with a gap of so many voxels between them."""
    cells = np.zeros((41, 20 + gap), np.uint16)
    cells[:, :10] = 7
    cells[:, 10 + gap :] = 40_000
    return cells


@pytest.mark.parametrize(("gap", "more"), [(1, 9.80), (2, 9.23), (4, 7.26), (8, 2.78), (16, 0.06)])
def test_a_gap_weighs_what_the_paper_says(gap: int, more: float):
    weights = unet_weight_map(plates(gap), w0=10, sigma=5)
    assert weights[20, 10 + gap // 2] == pytest.approx(1 + more, abs=0.005)


def test_cells_and_far_background_have_their_class_weight_only():
    cells = np.zeros((100, 100), np.uint8)
    cells[:5, :5] = 1
    cells[:5, 8:12] = 2
    weights = unet_weight_map(cells, class_weights=(0.5, 2.0))

    assert (weights[cells > 0] == 2.0).all()
    assert weights[70:, 70:] == pytest.approx(0.5, abs=1e-6)
    assert weights[2, 6] == pytest.approx(0.5 + 10 * exp(-9 / 50), rel=1e-5)


def test_fewer_than_two_cells_have_no_gap():
    one = np.zeros((9, 9), np.uint8)
    assert (unet_weight_map(one) == 1).all()
    one[3:5, 3:5] = 3
    assert (unet_weight_map(one) == 1).all()
    assert (unet_weight_map(np.ones((4, 4), np.uint8)) == 1).all()


def test_voxels_that_nobody_judged_are_no_cell():
    cells = np.zeros((40, 40), np.int16)
    cells[10:30, 5:18], cells[10:30, 22:35] = 1, 2
    partly = cells.copy()
    partly[0, 0] = -1
    np.testing.assert_array_equal(unet_weight_map(partly), unet_weight_map(cells))


def test_widths_are_physical():
    along = np.zeros((30, 9, 9), np.uint8)
    along[:10], along[14:] = 1, 2
    across = along.transpose(1, 0, 2)
    thick, thin = (
        unet_weight_map(cells, sigma=3.0, spacing=(2.0, 0.5, 0.5)) for cells in (along, across)
    )

    assert thick[12, 4, 4] == pytest.approx(1 + 10 * exp(-((4 * 2.0) ** 2) / 18), rel=1e-5)
    assert thin[4, 12, 4] == pytest.approx(1 + 10 * exp(-((4 * 0.5) ** 2) / 18), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(small_labels)
def test_it_is_the_formula_over_all_pairs_of_cells(cells: np.ndarray):
    weights = unet_weight_map(cells, w0=10, sigma=2)
    places = np.stack(np.meshgrid(*map(np.arange, cells.shape), indexing="ij"), -1)
    nearer, farther = [], []
    for label in np.unique(cells[cells > 0]):
        offset = np.abs(places[:, :, None] - places[cells == label])
        centres = (offset**2).sum(-1)
        tied = centres == centres.min(-1, keepdims=True)
        outline = np.sqrt((np.maximum(offset - 0.5, 0) ** 2).sum(-1))
        nearer.append(np.where(tied, outline, np.inf).min(-1))
        farther.append(np.where(tied, outline, -np.inf).max(-1))
    if len(nearer) < 2:
        assert (weights == 1).all()
        return
    # Of several voxels of a cell that are equally near, any may be taken.
    most, least = (
        1 + np.where(cells == 0, 10 * np.exp(-(np.sort(d, axis=0)[:2].sum(0) ** 2) / 8), 0)
        for d in (nearer, farther)
    )
    assert (weights <= most + 1e-4).all()
    assert (weights >= least - 1e-4).all()


def test_many_cells_need_no_more_memory():
    tracemalloc = pytest.importorskip("tracemalloc")

    def peak(period: int) -> int:
        cells = np.zeros((240, 240), np.int32)
        numbers = np.arange(1, (240 // period) ** 2 + 1).reshape(240 // period, -1)
        cells[:] = np.kron(numbers, np.ones((period, period), np.int32))
        cells[::period] = cells[:, ::period] = 0
        tracemalloc.start()
        unet_weight_map(cells, sigma=1)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return int(used)

    few, many = peak(60), peak(8)
    assert many < 1.2 * few


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="sigma"):
        unet_weight_map(plates(2), sigma=0)
    with pytest.raises(ValueError, match="axes"):
        unet_weight_map(plates(2), spacing=(1, 1, 1))
