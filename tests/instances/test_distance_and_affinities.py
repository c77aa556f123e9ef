"""What only these two methods promise."""

import sys

import numpy as np
import pytest

from medseg.instances import Affinities, Distance

TWO = np.array([[0, 5, 5, 5, 9, 9, -1, 0]], np.int32).repeat(4, 0)


def test_the_deepest_voxel_of_each_object_has_one_and_its_rim_has_less():
    labels = np.zeros((11, 30), np.int32)
    labels[1:10, 1:10], labels[1:10, 10:29] = 1, 2
    foreground, depth = Distance(2).targets(labels, (1.0, 1.0))

    assert np.array_equal(foreground, labels > 0)
    assert depth[5, 1:10].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2])
    assert depth[5, 10] == pytest.approx(0.2)
    assert depth[labels == 2].max() == 1


def test_a_peak_lower_than_asked_for_is_no_object_of_its_own():
    depth = np.array([0, 0.3, 0.6, 0.9, 0.6, 0.5, 0.6, 0.7, 0.4, 0], np.float32)
    depth = np.tile(depth, (9, 1))
    scores = np.stack([depth == 0, depth > 0, depth]).astype(np.float32)
    method = Distance(2, smoothing=0.01)

    assert method.objects(scores, (1.0, 1.0), peak=0.1).max() == 2
    assert method.objects(scores, (1.0, 1.0), peak=0.3).max() == 1


def test_pairs_are_of_one_object_of_two_or_unknown():
    method = Affinities(2, reach=(3,))
    targets = method.targets(TWO, (1.0, 1.0))

    assert method.outputs == (
        "background", "foreground", "same_y-1", "same_x-1", "same_y-3", "same_x-3",
    )  # fmt: skip
    assert targets[0, 0].tolist() == [0, 1, 1, 1, 1, 1, -1, 0]
    assert targets[1, :, 1].tolist() == [-1, 1, 1, 1]
    # Beyond the image, 0 and 5, 5 and 5, ..., 5 and 9, 9 and 9, and what nobody judged.
    assert targets[2, 0].tolist() == [-1, 0, 1, 1, 0, 1, -1, -1]
    assert targets[4, 0].tolist() == [-1, -1, -1, 0, 0, 0, -1, 0]


def test_objects_thinner_than_the_long_offsets_stay_apart():
    labels = np.zeros((12, 24), np.int32)
    for number in range(1, 7):
        labels[:, 2 * number : 2 * number + 2] = number
    method = Affinities(2, reach=(9,))
    target = method.targets(labels, (1.0, 1.0))
    scores = np.concatenate([[target[0] == 0], [target[0] == 1], target[1:].clip(0)])

    assert np.array_equal(method.objects(scores.astype(np.float32), (1.0, 1.0)), labels)


def test_affinities_without_their_library_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bioimage_cpp.segmentation", None)

    with pytest.raises(ValueError, match=r"pip install 'medseg\[affinities\]'"):
        Affinities(2)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="reach holds one or more"):
        Affinities(2, reach=(1,))
    with pytest.raises(ValueError, match="smoothing is a length"):
        Distance(2, smoothing=0.0)
