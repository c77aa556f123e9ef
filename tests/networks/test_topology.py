"""Strides and kernels from the spacing; anchors are nnU-Net's published plans."""

import pytest

from medseg.networks import plan_topology, strides_from_spacing
from medseg.networks.layers import Step, mirror, norm_groups, receptive_field
from medseg.networks.topology import kernels_from_strides


def test_thick_slices_are_halved_once_the_plane_has_caught_up():
    assert strides_from_spacing(3, (5, 1, 1), 3) == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert strides_from_spacing(3, (2, 1, 1), 2) == ((2, 2, 2), (2, 2, 2))
    assert strides_from_spacing(2, (0.4, 0.4), 1) == ((2, 2),)
    with pytest.raises(ValueError, match="spacing"):
        strides_from_spacing(2, (0, 1), 2)
    with pytest.raises(ValueError, match="spacing is 3 distances"):
        strides_from_spacing(3, (1, 1), 2)


def test_kernels_are_flat_until_their_axis_is_halved_and_whole_at_the_bottom():
    strides = ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert kernels_from_strides(strides) == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert kernels_from_strides(((1, 2, 2),)) == ((1, 3, 3), (3, 3, 3))


@pytest.mark.parametrize(
    ("patch", "spacing", "halvings"),
    [
        ((40, 56, 40), (1, 1, 1), (3, 3, 3)),  # hippocampus
        ((56, 40), (1, 1), (3, 3)),
        ((80, 192, 160), (1.37, 1.25, 1.25), (4, 5, 5)),  # heart
        ((20, 320, 256), (3.6, 0.62, 0.62), (2, 6, 6)),  # prostate
        ((64, 192, 160), (1.6, 0.79, 0.79), (4, 5, 5)),  # spleen
        ((512, 512), (0.79, 0.79), (7, 7)),
    ],
)
def test_topology_is_the_published_one(patch, spacing, halvings):
    strides, kernels = plan_topology(patch, spacing)
    assert strides[0] == (1,) * len(patch)
    assert tuple(sum(s > 1 for s in axis) for axis in zip(*strides, strict=True)) == halvings
    assert len(kernels) == len(strides)
    assert kernels[-1] == (3,) * len(patch)


def test_prostate_keeps_its_slices_for_two_levels():
    strides, kernels = plan_topology((20, 320, 256), (3.6, 0.62, 0.62))
    assert strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_no_pooling_leaves_fewer_cells_than_the_minimum():
    for n in range(4, 100):
        strides, _ = plan_topology((n, n), (1, 1))
        assert n / 2 ** (len(strides) - 1) > 3
    assert plan_topology((4, 4), (1, 1))[0] == ((1, 1),)


def test_an_axis_alone_needs_three_times_the_minimum():
    assert len(plan_topology((4, 11), (1, 1))[0]) == 1
    assert plan_topology((4, 12), (1, 1))[0] == ((1, 1), (1, 2))


def test_patch_and_spacing_have_the_same_axes():
    with pytest.raises(ValueError, match="per axis"):
        plan_topology((64, 64), (1, 1, 1))


def test_receptive_fields_by_hand():
    assert receptive_field([Step(3)] * 3) == 7
    assert receptive_field([Step(3, dilation=4)]) == 9
    assert receptive_field([Step(2, stride=2), Step(3), Step(up=2)]) == 6
    # U-Net's VGG cousin: 13 convolutions and 5 poolings before a 7x7 see 404 voxels.
    vgg = []
    for convolutions in (2, 2, 3, 3, 3):
        vgg += [Step(3)] * convolutions + [Step(2, stride=2)]
    assert receptive_field([*vgg, Step(7)]) == 404


def test_groups_of_a_norm_have_two_channels_or_more():
    assert [norm_groups(c) for c in (1, 2, 3, 6, 16, 48, 256, 20)] == [1, 1, 1, 3, 8, 8, 8, 5]


def test_mirroring_goes_to_and_fro_beyond_the_image():
    import torch

    line = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert mirror(line, [(0, 0), (4, 3)]).flatten().tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1, 2]
    dot = torch.tensor([[[[5.0]]]])
    assert mirror(dot, [(1, 1), (2, 0)]).tolist() == [[[[5.0] * 3] * 3]]
