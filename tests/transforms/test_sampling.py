import numpy as np
import pytest
import torch

from medseg.transforms import IGNORED, PatchSampler, PatchSource, index_foreground
from medseg.transforms.sampling import crop


def source_with(shape, places):
    labels = np.zeros(shape, np.int32)
    for value, place in places.items():
        labels[place] = value
    image = torch.arange(labels.size, dtype=torch.float32).reshape(1, *shape)
    return PatchSource.of(image, torch.from_numpy(labels)[None])


def test_the_index_holds_voxels_of_each_class_and_no_more_than_asked():
    labels = np.zeros((6, 7, 8), np.int32)
    labels[1, 2, 3], labels[4] = 5, 2
    labels[0, 0] = IGNORED
    index = index_foreground(labels, max_voxels=20, rng=np.random.default_rng(0))

    assert sorted(index) == [2, 5]
    assert index[5].tolist() == [[1, 2, 3]]
    assert index[2].shape == (20, 3)
    assert len(np.unique(index[2], axis=0)) == 20
    assert (labels[tuple(index[2].T)] == 2).all()


def test_an_image_without_structures_has_an_empty_index_and_still_gives_patches():
    source = source_with((20, 20), {})
    patch = PatchSampler((8, 8), foreground=1.0).sample(source, np.random.default_rng(0))

    assert source.voxels == {}
    assert patch["image"].shape == (1, 8, 8)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_foreground_patch_always_holds_the_structure(jitter):
    source = source_with((40, 31, 50), {3: (17, 30, 2)})
    sampler = PatchSampler((9, 8, 7), foreground=1.0, jitter=jitter)
    rng = np.random.default_rng(0)

    assert all((sampler.sample(source, rng)["label"] == 3).any() for _ in range(50))


def test_without_jitter_the_voxel_is_the_centre_and_with_it_anywhere():
    source = source_with((60, 60), {1: (30, 25)})
    rng = np.random.default_rng(0)
    still = {PatchSampler((9, 9), foreground=1.0, jitter=0).place(source, rng) for _ in range(9)}
    moved = {PatchSampler((9, 9), foreground=1.0, jitter=1).place(source, rng) for _ in range(900)}

    assert still == {(26, 21)}
    assert {start[0] for start in moved} == set(range(22, 31))


def test_small_structures_are_seen_as_often_as_large_ones_unless_weighted():
    source = source_with((64, 64), {1: (slice(0, 32), slice(None)), 2: (60, 60)})
    rng = np.random.default_rng(0)

    def share_of_small(sampler):
        return np.mean([(sampler.sample(source, rng)["label"] == 2).any() for _ in range(400)])

    assert share_of_small(PatchSampler((5, 5), foreground=1.0)) == pytest.approx(0.5, abs=0.08)
    never = PatchSampler((5, 5), foreground=1.0, class_weights={2: 0.0})
    assert share_of_small(never) == 0


def test_the_share_of_foreground_patches_is_the_one_asked_for():
    source = source_with((400, 400), {1: (5, 5)})
    sampler = PatchSampler((5, 5), foreground=0.67)
    rng = np.random.default_rng(0)
    share = np.mean([(sampler.sample(source, rng)["label"] == 1).any() for _ in range(600)])

    assert share == pytest.approx(0.67, abs=0.06)


def test_patches_stay_inside_and_reach_every_border():
    source = source_with((12, 9), {})
    sampler = PatchSampler((5, 9), foreground=0.0)
    rng = np.random.default_rng(0)
    starts = {sampler.place(source, rng) for _ in range(300)}

    assert starts == {(first, 0) for first in range(8)}


def test_a_small_image_lies_whole_in_the_patch_and_the_rest_is_ignored():
    source = source_with((6, 30), {1: (3, 15)})
    patch = PatchSampler((10, 10), foreground=1.0).sample(source, np.random.default_rng(1))

    judged = (patch["label"] != IGNORED)[0]
    assert judged.any(1).sum() == 6
    assert judged[judged.any(1)].all()
    assert (patch["image"][0][~judged] == 0).all()


def test_the_same_state_gives_the_same_patch_with_its_own_memory():
    source = source_with((20, 20), {1: (10, 10)})
    sampler = PatchSampler((20, 20))
    first, second = (sampler.sample(source, np.random.default_rng(3)) for _ in range(2))

    torch.testing.assert_close(first, second, rtol=0, atol=0)
    first["image"].zero_()
    assert source.image.any()


def test_a_crop_beyond_every_border_is_filled():
    image = torch.ones(1, 3, 3)

    assert crop(image, (-1, -1), (5, 5), fill=7).sum() == 9 + 16 * 7
    assert crop(image, (10, 0), (2, 2), fill=7).unique().tolist() == [7]


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected \(channels"):
        PatchSource(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5, dtype=torch.int32), {})


@pytest.mark.parametrize("settings", [{"foreground": 1.5}, {"jitter": -0.1}])
def test_shares_beyond_one_are_refused(settings):
    with pytest.raises(ValueError, match="share from 0 to 1"):
        PatchSampler((4, 4), **settings)
