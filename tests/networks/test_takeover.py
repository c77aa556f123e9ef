"""Weights taken over from another network."""

import pytest
import torch

from medseg.networks import AutoDeepLab, MSDNet, UNetClassic, take_over


def test_all_but_a_head_for_other_classes_is_taken_over():
    three, two = UNetClassic(2, 1, 3, channels=(4, 8)), UNetClassic(2, 1, 2, channels=(4, 8))

    taken = take_over(two, three)

    assert taken.left == ("head.weight", "head.bias")
    assert len(taken.taken) + 2 == len(two.state_dict())
    assert torch.equal(two.down[0][0][0].weight, three.down[0][0][0].weight)
    assert two.down[0][0][0].weight.data_ptr() != three.down[0][0][0].weight.data_ptr()
    assert "head.weight" in taken.describe()


def test_a_network_of_which_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="none of the"):
        take_over(UNetClassic(2, 1, 2, channels=(4, 8)), MSDNet(2, 3, 4, depth=3))


def test_counters_of_training_steps_begin_anew():
    torch.manual_seed(0)
    settings = {"depth": 1, "filter_multiplier": 2, "stem_channels": 2, "norm": "batch"}
    old, new = (AutoDeepLab(2, 1, 2, **settings, drop_path=0.5) for _ in range(2))
    old.train()(torch.randn(2, 1, 33, 33))
    counters = ("trained_steps", "stem.0.1.num_batches_tracked")
    assert [int(old.state_dict()[name]) for name in counters] == [1, 1]

    taken = take_over(new, old)

    assert [int(new.state_dict()[name]) for name in counters] == [0, 0]
    assert torch.equal(new.stem[0][1].running_mean, old.stem[0][1].running_mean)
    assert taken.left == ()
    assert "stem.0.1.running_mean" in taken.taken
    assert not set(counters) & set(taken.taken)


def test_a_network_for_volumes_begins_with_the_kernels_of_one_for_slices():
    flat, deep = UNetClassic(2, 1, 2, channels=(4, 8)), UNetClassic(3, 1, 3, channels=(4, 8))

    taken = take_over(deep, flat)

    assert taken.left == ("head.weight", "head.bias")
    kernel = deep.down[0][0][0].weight
    torch.testing.assert_close(kernel.sum(2), flat.down[0][0][0].weight)
