"""2D weights in 3D networks."""

import pytest
import torch
from torch import nn

from medseg.networks import NETWORKS, Network, UNetClassic
from medseg.networks.gcn import AlignedUp
from medseg.networks.inflate import inflate_weights


def pair(name: str, **settings) -> tuple[Network, Network]:
    torch.manual_seed(0)
    flat, deep = (NETWORKS.build(name, dims, 1, 2, **settings) for dims in (2, 3))
    for part in flat.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return flat.double().eval(), deep.double().eval()


DEEPLAB = {
    "encoder": "resnet10",
    "encoder_width": 2,
    "multi_grid": (1, 1, 1),
    "aspp_rates": (1,),
    "aspp_channels": 4,
    "decoder_channels": 4,
    "image_pooling": False,
}


# Of GCN's thin kernels there are two orders for slices and three for volumes.
GCN = {"encoder": "resnet10", "encoder_width": 2, "mid_channels": 2, "k": 3, "kernels": "trivial"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("unet", {"channels": (3, 4, 5), "norm": "none"}),
        ("unet", {"channels": (3, 4, 5), "norm": "batch", "up": "linear"}),
        ("deeplabv3plus", {**DEEPLAB, "norm": "batch"}),
        ("plain_fcn", {"channels": 3, "depth": 3, "norm": "none"}),
        ("gcn", {**GCN, "norm": "none"}),
    ],
)
def test_an_inner_slice_of_equal_slices_has_the_logits_of_the_2d_network(name, settings):
    flat, deep = pair(name, **settings)
    inflate_weights(flat.state_dict(), deep)
    slice_ = torch.rand(1, 1, 13, 18, dtype=torch.float64)
    n = deep.receptive_field()[0] + 2 * deep.output_stride[0]
    with torch.no_grad():
        logits = deep(slice_[:, :, None].expand(-1, -1, n, -1, -1))
        middle = logits[:, :, n // 2]
        torch.testing.assert_close(middle, flat(slice_), rtol=1e-9, atol=1e-12)
        assert not torch.allclose(logits[:, :, 0], flat(slice_)), "zeros are padded at the end"


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(2, 2, 1), (4, 2, 1), (3, 2, 1), (3, 2, 3)]
)
def test_taps_that_meet_in_an_output_of_a_transposed_convolution_share_the_whole(
    kernel: int, stride: int, dilation: int
):
    torch.manual_seed(0)
    settings = {"stride": stride, "dilation": dilation}
    flat = nn.ConvTranspose2d(2, 3, kernel, **settings)
    deep = nn.ConvTranspose3d(2, 3, kernel, **settings)
    inflate_weights(flat.state_dict(), deep)
    features = torch.rand(1, 2, 4, 5)
    inner = deep(features[:, :, None].expand(-1, -1, 12, -1, -1))[:, :, 9:-9]
    for each in inner.unbind(2):
        torch.testing.assert_close(each, flat(features))


def test_a_way_up_that_keeps_cells_centres_in_place_keeps_them_along_the_first_axis():
    flat, deep = AlignedUp(2, 1, (2, 2)), AlignedUp(3, 1, (2, 2, 2))
    with torch.no_grad():
        flat.conv.weight += 0.1 * torch.rand(1, 1, 4, 4)  # as if it had been trained
    inflate_weights(flat.state_dict(), deep)
    slice_, slope = torch.rand(1, 1, 5, 6), torch.arange(7.0)[:, None, None]
    with torch.no_grad():
        finer = deep(slice_[:, :, None] * slope)
        expected = flat(slice_)[:, :, None] * torch.arange(0, 6.5, 0.5)[:, None, None]
    torch.testing.assert_close(finer, expected)


def test_thick_slices_that_are_not_raised_take_2d_ways_up_as_they_are():
    flat, deep = AlignedUp(2, 1, (2, 2)), AlignedUp(3, 1, (1, 2, 2))
    inflate_weights(flat.state_dict(), deep)
    assert torch.equal(deep.conv.weight[:, :, 0], flat.conv.weight)


def test_counters_of_training_steps_stay_as_they_are():
    flat, deep = nn.BatchNorm2d(2), nn.BatchNorm3d(2)
    flat(torch.rand(1, 2, 4, 4))
    inflate_weights(flat.state_dict(), deep)
    assert torch.equal(deep.running_mean, flat.running_mean)
    assert int(deep.num_batches_tracked) == 0


def test_kernels_are_repeated_and_divided_by_their_depth():
    flat, deep = nn.Conv2d(1, 1, 3), nn.Conv3d(1, 1, (5, 3, 3))
    inflate_weights(flat.state_dict(), deep)
    for tap in range(5):
        torch.testing.assert_close(deep.weight[:, :, tap] * 5, flat.weight)
    torch.testing.assert_close(deep.bias, flat.bias)


def test_thick_slices_with_flat_kernels_take_2d_kernels_as_they_are():
    flat = UNetClassic(2, 1, 2, channels=(3, 4))
    deep = UNetClassic(3, 1, 2, channels=(3, 4), spacing=(5.0, 1.0, 1.0))
    inflate_weights(flat.state_dict(), deep)
    first = deep.state_dict()["down.0.0.0.weight"]
    assert first.shape == (3, 1, 1, 3, 3)
    assert torch.equal(first[:, :, 0], flat.state_dict()["down.0.0.0.weight"])


def test_what_does_not_fit_is_refused_and_nothing_is_changed():
    deep = pair("unet", channels=(3, 4))[1]
    before = {name: weights.clone() for name, weights in deep.state_dict().items()}
    with pytest.raises(ValueError, match=r"the 3D network has no down\.2.* and \d+ more"):
        inflate_weights(pair("unet", channels=(3, 4, 5))[0].state_dict(), deep)
    with pytest.raises(ValueError, match="the 2D network has no "):
        inflate_weights({}, deep)
    with pytest.raises(ValueError, match=r"\(6, 1, 3, 3\) of the 2D network does not become"):
        inflate_weights(pair("unet", channels=(6, 4))[0].state_dict(), deep)
    with pytest.raises(ValueError, match="leaves slices empty"):
        inflate_weights(
            nn.ConvTranspose2d(1, 1, (2, 2), stride=2).state_dict(),
            nn.ConvTranspose3d(1, 1, (1, 2, 2), stride=2),
        )
    assert all(torch.equal(before[name], w) for name, w in deep.state_dict().items())
