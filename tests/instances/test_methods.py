"""What every method promises: targets of drawn objects become these objects again."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from medseg.instances import INSTANCES
from medseg.instances.border import BACKGROUND, BORDER, INTERIOR

methods = pytest.mark.parametrize("name", sorted(INSTANCES))
grids = pytest.mark.parametrize(
    ("shape", "spacing"),
    [((48, 64), (1.0, 1.0)), ((24, 40, 40), (1.0, 1.0, 1.0)), ((14, 44, 44), (3.0, 1.0, 1.0))],
)


def touching_balls(shape, spacing) -> np.ndarray:
    """Three discs or balls; the first two touch along the last axis."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    extent = np.multiply(shape, spacing)
    radius = 0.2 * min(extent[-2:])
    labels = np.zeros(shape, np.int32)
    middle = extent / 2
    for number, along in ((1, 0.26), (2, 0.26 + 2 * radius / extent[-1]), (3, 0.84)):
        centre = np.array([*middle[:-1], along * extent[-1]])
        if number == 3:
            centre[-2] = 0.15 * extent[-2]
        labels[np.linalg.norm(places - centre, axis=-1) <= radius] = number
    return labels


def one_hot(classes: np.ndarray, outputs: int) -> np.ndarray:
    return np.stack([classes == index for index in range(outputs)]).astype(np.float32)


def perfect(method, target: np.ndarray) -> np.ndarray:
    """The scores of a network that says just what it is to say."""
    classes = len(method.outputs) - (len(target) - 1)
    return np.concatenate([one_hot(target[0], classes), target[1:].clip(0)])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@methods
@grids
def test_targets_become_the_objects_again(name, shape, spacing):
    labels = touching_balls(shape, spacing)
    method = INSTANCES.build(name, len(shape))

    target = method.targets(labels, spacing)
    found = method.objects(perfect(method, target), spacing)

    assert found.dtype == np.uint32
    assert set(np.unique(found)) == {0, 1, 2, 3}
    for number in (1, 2, 3):
        drawn = labels == number
        (best,) = {int(np.bincount(found[drawn]).argmax())}
        assert overlap(drawn, found == best) >= 0.9


@methods
def test_what_nobody_judged_is_left_out(name):
    labels = touching_balls((48, 64), (1.0, 1.0))
    labels[:10] = -1
    target = INSTANCES.build(name, 2).targets(labels, (1.0, 1.0))

    assert np.array_equal(target[0] == -1, labels == -1)


@methods
def test_an_image_without_objects_stays_so(name):
    method = INSTANCES.build(name, 2)
    target = method.targets(np.zeros((9, 8), np.int32), (1.0, 1.0))
    found = method.objects(perfect(method, target), (1.0, 1.0))

    assert (target[0] == 0).all()
    assert not found.any()


@methods
def test_the_loss_falls_towards_the_targets(name):
    labels = touching_balls((48, 64), (1.0, 1.0))
    method = INSTANCES.build(name, 2)
    target = torch.from_numpy(method.targets(labels, (1.0, 1.0)))[None]

    class CrossEntropy(nn.Module):
        def forward(self, logits, classes, voxel_weights=None):
            classes = classes[:, 0]
            each = nn.functional.cross_entropy(logits, classes, ignore_index=-1, reduction="none")
            return each.mean()

    loss = method.loss(CrossEntropy())
    right = torch.from_numpy(perfect(method, target[0].numpy()))[None].clamp(0.01, 0.99).logit()
    assert loss(right, target) < 0.3 * loss(-right, target)
    unknown = loss(right, torch.full_like(target, -1))
    assert torch.isfinite(unknown)


@methods
def test_one_object_may_fill_the_image(name):
    method = INSTANCES.build(name, 2)
    target = method.targets(np.full((20, 30), 9, np.int32), (1.0, 1.0))

    assert (method.objects(perfect(method, target), (1.0, 1.0)) == 1).all()


@methods
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 47), st.integers(0, 47)), min_size=1, max_size=5, unique=True)
)
def test_discs_anywhere_come_back(name, centres):
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for a in centres for b in centres if a is not b]
    assume(min(apart, default=99) >= 15)  # of what overlaps more, little is left
    rows, columns = np.mgrid[:48, :48]
    distances = np.stack([np.hypot(rows - row, columns - column) for row, column in centres])
    labels = np.where(distances.min(0) <= 9, distances.argmin(0) + 70_000, 0)
    method = INSTANCES.build(name, 2)
    found = method.objects(perfect(method, method.targets(labels, (1.0, 1.0))), (1.0, 1.0))

    assert found.max() == len(centres)
    for number in np.unique(labels[labels > 0]):
        drawn = labels == number
        assert overlap(drawn, found == np.bincount(found[drawn]).argmax()) >= 0.9


def test_a_border_is_as_wide_as_it_is_told_and_between_touching_objects():
    labels = np.array([[0] + [5] * 8 + [9] * 8], np.int32).repeat(20, 0)
    # Beyond the image the objects may go on: only sides within it have borders.
    one = INSTANCES.build("border", 2).targets(labels, (0.5, 0.5))[0, 0]
    two = INSTANCES.build("border", 2, width=1.0).targets(labels, (0.5, 0.5))[0, 0]

    assert (BACKGROUND, INTERIOR, BORDER) == (0, 1, 2)
    assert one.tolist() == [0, 2, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert two.tolist() == [0, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_gaps_weigh_more_than_what_is_far_from_two_objects():
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 5:20], labels[10:30, 24:40] = 1, 2
    method = INSTANCES.build("border", 2, gap_weight=10.0, gap_sigma=4.0)
    classes, weights = method.targets(labels, (1.0, 1.0))

    # Four pixels of background, and a pixel of border on either side.
    assert weights[20, 22] == pytest.approx(1 + 10 * np.exp(-(6**2) / (2 * 4.0**2)))
    assert 1 <= weights[20, 55] < 1.01
    assert (weights[classes == INTERIOR] == 1).all()


def test_more_objects_than_sixteen_bits_hold():
    classes = np.zeros((600, 600), np.int32)
    classes[::2, ::2] = INTERIOR  # 90,000 objects of one pixel
    found = INSTANCES.build("border", 2).objects(one_hot(classes, 3), (1.0, 1.0))

    assert found.max() == 90_000
    assert np.array_equal(found > 0, classes == INTERIOR)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 9)] * 2), max_size=6))
def test_every_object_however_thin_has_an_interior(boxes):
    labels = np.zeros((32, 32), np.int32)
    for number, (row, column, height, width) in enumerate(boxes, 1):
        labels[row : row + height, column : column + width] = number
    classes = INSTANCES.build("border", 2, width=3.0).targets(labels, (1.0, 1.0))[0]

    for number in np.unique(labels[labels > 0]):
        assert (classes[labels == number] == INTERIOR).any()
    assert np.array_equal(classes > 0, labels > 0)
