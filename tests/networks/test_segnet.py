"""What only SegNet promises."""

import pytest
import torch
from torch import nn

from medseg.networks import SegNet
from medseg.networks.segnet import IndexPool, IndexUnpool


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def tiny(spatial_dims: int = 2, **settings) -> SegNet:
    torch.manual_seed(0)
    return SegNet(spatial_dims, 1, 2, channels=(4, 8), convs=(1, 2), **settings).eval()


def test_the_published_network_has_29_million_parameters():
    with torch.device("meta"):
        network = SegNet.paper(3, 11)
    assert count(network) == 29_449_355
    way_down = [m for m in network.down.modules() if isinstance(m, nn.Conv2d)]
    assert len(way_down) == 13  # VGG-16's
    assert sum(count(m) for m in way_down) == 14_714_688


def test_the_way_up_mirrors_the_way_down_and_ends_in_bare_classes():
    with torch.device("meta"):
        network = SegNet.paper(3, 11)
    levels = [
        [m.out_channels for m in up.modules() if isinstance(m, nn.Conv2d)]
        for up in reversed(network.up)
    ]
    levels[-1].append(network.head.out_channels)
    assert levels == [[512, 512, 512], [512, 512, 256], [256, 256, 128], [128, 64], [64, 11]]
    assert network.head.kernel_size == (3, 3)


def test_no_convolution_reads_more_than_one_map():
    """Handed-over features would be concatenated; only places cross over."""
    with torch.device("meta"):
        network = SegNet.paper(3, 11)
    widths = [
        m.in_channels
        for up in reversed(network.up)
        for m in up.modules()
        if isinstance(m, nn.Conv2d)
    ]
    assert widths == [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64]


def test_segnet_basic_is_4_and_4_layers_of_64_maps_that_see_106_pixels():
    with torch.device("meta"):
        network = SegNet.basic(3, 11)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(7, 7)] * 8 + [(1, 1)]
    assert all(m.bias is None for m in convolutions)
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == 4  # the way down's
    first, others, norms, classes = 3 * 64 * 49, 7 * 64 * 64 * 49, 8 * 2 * 64, 64 * 11
    assert count(network) == first + others + norms + classes
    assert network.context() == (106, 106)


@pytest.mark.parametrize("size", [(20, 24), (8, 6, 10)])
def test_a_value_returns_to_the_place_it_came_from_and_all_else_is_zero(size: tuple[int, ...]):
    torch.manual_seed(0)
    features = torch.randn(2, 3, *size)
    pooled, places = IndexPool((2,) * len(size))(features)
    unpooled = IndexUnpool()(pooled, places, size)

    assert unpooled.count_nonzero() == pooled.numel()
    cells = features
    for axis in range(len(size)):
        cells = cells.unfold(2 + axis, 2, 2)
    assert torch.equal(pooled, cells.flatten(2 + len(size)).amax(-1))
    largest = cells.amax(tuple(range(-len(size), 0)), keepdim=True)
    kept = unpooled
    for axis in range(len(size)):
        kept = kept.unfold(2 + axis, 2, 2)
    assert torch.equal(kept, torch.where(cells == largest, cells, 0.0))


@pytest.mark.parametrize("stride", [(2, 2), (1, 2, 2), (2, 2, 2)])
def test_it_is_the_unpooling_of_pytorch_with_its_gradient(stride: tuple[int, ...]):
    torch.manual_seed(0)
    ours = torch.randn(1, 2, 6, 4, *(8,) * (len(stride) - 2), requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    dims = len(stride)
    pool, unpool = {
        2: (nn.MaxPool2d, nn.MaxUnpool2d),
        3: (nn.MaxPool3d, nn.MaxUnpool3d),
    }[dims]
    expected = unpool(stride)(*pool(stride, return_indices=True)(theirs))
    unpooled = IndexUnpool()(*IndexPool(stride)(ours), ours.shape[2:])
    weights = torch.randn_like(unpooled)
    (unpooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(unpooled, expected)
    assert torch.equal(ours.grad, theirs.grad)


def test_incomplete_cells_are_left_out_of_a_pooling():
    features = torch.arange(7 * 9 * 5, dtype=torch.float32).reshape(1, 1, 7, 9, 5) + 1
    pooled, places = IndexPool((2, 2, 2))(features)
    unpooled = IndexUnpool()(pooled, places, (7, 9, 5))
    assert pooled.shape == (1, 1, 3, 4, 2)
    # Values grow along every axis: the last voxel of each cell is its maximum.
    assert torch.equal(unpooled[..., 1:6:2, 1:8:2, 1:4:2], pooled)
    assert unpooled.count_nonzero() == 24


def test_the_places_decide_the_output():
    network = tiny()
    torch.manual_seed(1)
    with torch.no_grad():
        features, places = network.encode(torch.randn(1, 1, 16, 24))
        before = network.decode(features, places)
        for level in range(2):
            moved = [place.clone() for place in places]
            moved[level] = moved[level].roll(1, dims=-1)
            assert not torch.allclose(network.decode(features, moved), before)
        assert torch.equal(network.decode(features, places), before)


def test_given_the_places_half_precision_is_close_to_full():
    network = tiny()
    torch.manual_seed(1)
    with torch.no_grad():
        features, places = network.encode(torch.randn(1, 1, 16, 24))
        full = network.decode(features, places)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network.decode(features, places)
    assert (half.float() - full).abs().mean() < 0.02 * full.abs().mean()


@pytest.mark.parametrize("size", [(7, 9, 5), (1, 1, 1), (2, 3, 17)])
def test_odd_volumes_keep_their_grid(size: tuple[int, ...]):
    assert tiny(3)(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_thick_slices_are_pooled_late():
    torch.manual_seed(0)
    network = SegNet(3, 1, 2, channels=(4, 4, 4), convs=(1, 1, 1), spacing=(5, 1, 1))
    assert network.strides == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert network.output_stride == (2, 8, 8)
    assert [down[0][0].kernel_size for down in network.down] == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]
    network(torch.randn(1, 1, 3, 30, 17)).sum().backward()
    by_hand = SegNet(2, 1, 2, channels=(4,), convs=(2,), strides=[[1, 2]], kernel_size=7)
    assert by_hand.kernels == [(1, 7)]


def test_basic_and_big_work_in_both_dimensions():
    assert SegNet.basic(1, 2)(torch.randn(1, 1, 20, 33)).shape == (1, 2, 20, 33)
    with torch.device("meta"):
        assert SegNet.basic(1, 2, spatial_dims=3).head.kernel_size == (1, 1, 1)


@pytest.mark.parametrize("norm", ["auto", "batch", "group", "instance", "none"])
def test_every_norm_trains_on_one_tiny_image(norm: str):
    network = tiny(norm=norm).train()
    network(torch.randn(1, 1, 3, 3)).sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in network.parameters())


def test_dropout_is_at_the_two_deepest_levels_only():
    with torch.device("meta"):
        assert [drop.p for drop in SegNet.paper().drops] == [0.0, 0.0, 0.0, 0.5, 0.5]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="convs"):
        SegNet(2, 1, 2, channels=(4, 8), convs=(2,))
    with pytest.raises(ValueError, match="odd"):
        tiny(kernel_size=4)
    with pytest.raises(ValueError, match="2 numbers each"):
        tiny(strides=[[2, 2], [2, 2, 2]])
