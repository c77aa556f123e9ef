"""Objects found slab by slab are those of the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg.inference.slabs import find_in_slabs
from medseg.instances import INSTANCES


def in_rows(scores: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(scores, np.cumsum(sizes)[np.cumsum(sizes) < scores.shape[1]], axis=1)


def same_objects(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two label images differ in their numbers only."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    unique = all(len(np.unique(side)) == pairs.shape[1] for side in pairs)
    return unique and all(bool(a) == bool(b) for a, b in pairs.T)


def cells(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Cells of at most six voxels around random points; many touch."""
    rng = np.random.default_rng(seed)
    points = np.zeros(shape, np.int32)
    places = rng.integers(0, shape, (points.size // 6 ** len(shape), len(shape)))
    points[tuple(places.T)] = np.arange(1, len(places) + 1)
    apart, nearest = ndimage.distance_transform_edt(points == 0, return_indices=True)
    return np.where(apart < 6, points[tuple(nearest)], 0)


@pytest.mark.parametrize("name", sorted(INSTANCES))
@pytest.mark.parametrize(("shape", "margin"), [((97, 40), 24), ((60, 18, 20), 20)])
def test_slabs_find_the_objects_of_the_whole_image(name, shape, margin):
    labels, spacing = cells(3, shape), (1.0,) * len(shape)
    method = INSTANCES.build(name, len(shape))
    target = method.targets(labels, spacing)
    classes = len(method.outputs) - (len(target) - 1)
    scores = np.concatenate(
        [np.stack([target[0] == index for index in range(classes)]), target[1:].clip(0)]
    ).astype(np.float32)
    # As a network says it: never twice the same, so that no flood meets a tie.
    scores = np.stack([ndimage.gaussian_filter(one, 0.5) for one in scores])
    scores += np.random.default_rng(5).normal(0, 0.01, scores.shape).astype(np.float32)
    whole = method.objects(scores, spacing)
    found = find_in_slabs(
        in_rows(scores, [7] * 20),
        lambda part: method.objects(part, spacing),
        thickness=11,
        margin=margin,
    )

    assert found.dtype == np.uint32
    assert whole.max() > 10
    assert same_objects(found, whole)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 20),
    st.integers(1, 9),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_connected_parts_are_the_same_for_all_slabs(seed, thickness, margin, sizes):
    mask = np.random.default_rng(seed).random((45, 7)) < 0.55
    whole = ndimage.label(mask)[0]
    found = find_in_slabs(
        in_rows(mask[None].astype(np.float32), sizes),
        lambda part: ndimage.label(part[0] > 0)[0],
        thickness=thickness,
        margin=margin,
    )

    assert same_objects(found, whole)


def test_an_object_through_many_slabs_is_one():
    scores = np.zeros((1, 100, 9), np.float32)
    scores[:, :, 3:6] = 1
    found = find_in_slabs(
        [scores], lambda part: ndimage.label(part[0] > 0)[0], thickness=5, margin=2
    )

    assert np.unique(found).tolist() == [0, 1]


def test_a_slab_without_rows_is_refused():
    with pytest.raises(ValueError, match="slabs have rows and a margin"):
        find_in_slabs([], lambda part: part[0].astype(int), thickness=0, margin=1)
