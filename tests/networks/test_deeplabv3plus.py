"""What only DeepLab V3+ promises."""

import pytest
import torch
from torch import nn

from medseg.networks import DeepLabV3Plus
from medseg.networks.layers import spatial_conv


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoder": "resnet50"}, 40_352_181),
        ({"encoder": "resnet101"}, 59_344_309),
        ({"encoder": "resnet101", "separable": True}, 45_688_261),
        ({"encoder": "xception65", "separable": True}, 41_055_413),
        ({"encoder": "xception71", "separable": True, "out_channels": 19}, 43_477_323),
    ],
)
def test_parameters_are_as_published(settings, expected: int):
    with torch.device("meta"):
        assert count(DeepLabV3Plus.paper(**settings)) == expected


def test_the_output_stride_is_switched_after_training_and_the_rates_follow():
    torch.manual_seed(0)
    network = DeepLabV3Plus(2, 1, 2, encoder="resnet10", encoder_width=8, output_stride=16).eval()
    assert network.context.rates == [(6, 6), (12, 12), (18, 18)]
    before = {key: weights.clone() for key, weights in network.state_dict().items()}
    network.set_output_stride(8)
    assert network.output_stride == (8, 8)
    assert network.context.rates == [(12, 12), (24, 24), (36, 36)]
    assert network(torch.randn(1, 1, 65, 40)).shape == (1, 2, 65, 40)
    assert all(torch.equal(before[key], w) for key, w in network.state_dict().items())
    built = DeepLabV3Plus(2, 1, 2, encoder="resnet10", encoder_width=8, output_stride=8)
    assert built.context.rates == network.context.rates
    with pytest.raises(ValueError, match="8 or 16"):
        network.set_output_stride(32)


def test_rates_shrink_with_the_patch():
    def rates(patch: tuple[int, ...]) -> list[tuple[int, ...]]:
        settings = {"encoder": "resnet10", "encoder_width": 2, "decoder_channels": 2}
        return DeepLabV3Plus(len(patch), 1, 2, patch_voxels=patch, **settings).context.rates

    assert rates((96, 96)) == [(2, 2), (4, 4), (7, 7)]
    assert rates((96, 96, 48)) == [(2, 2, 1), (4, 4, 2), (7, 7, 3)]
    assert rates((264, 264)) == [(6, 6), (12, 12), (18, 18)]
    assert rates((16, 16)) == [(1, 1)], "a branch is not built twice"


def test_thick_slices_are_halved_late_and_with_flat_kernels():
    network = DeepLabV3Plus(3, 1, 2, encoder="resnet10", encoder_width=4, spacing=(5, 1, 1))
    assert network.encoder.grids[:2] == [(1, 2, 2), (1, 4, 4)]
    assert network.output_stride == (2, 8, 8)
    assert network.encoder.stem[0].kernel_size == (1, 7, 7)
    assert network(torch.randn(1, 1, 5, 33, 18)).shape == (1, 2, 5, 33, 18)


def test_the_decoder_sees_48_early_and_256_late_channels():
    with torch.device("meta"):
        network = DeepLabV3Plus.paper()
    assert network.decoder[0][0].weight.shape[1] == 304


@pytest.mark.parametrize(("decoder_stride", "cells"), [(4, 17), (2, 33)])
def test_the_decoder_works_at_stride_4_or_2(decoder_stride: int, cells: int):
    network = DeepLabV3Plus(
        2, 1, 2, encoder="resnet10", encoder_width=4, decoder_stride=decoder_stride
    )
    seen = []
    network.decoder.register_forward_hook(lambda *args: seen.append(args[2].shape[2]))
    network(torch.randn(1, 1, 65, 65))
    assert seen == [cells]


@pytest.mark.parametrize("image_pooling", [True, False])
def test_only_image_pooling_sees_beyond_the_receptive_field(image_pooling: bool):
    torch.manual_seed(0)
    network = DeepLabV3Plus(
        2,
        1,
        2,
        encoder="resnet10",
        encoder_width=4,
        multi_grid=(1, 1, 1),
        aspp_rates=(1,),
        norm="none",
        image_pooling=image_pooling,
    ).double()
    field = network.receptive_field()[0]
    image = torch.rand(1, 1, field + 16, 9, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0, 0, 4].backward()
    beyond = image.grad[0, 0, field // 2 + 8 :]
    assert bool(beyond.any()) == image_pooling


def test_a_separable_convolution_has_two_steps():
    settings = {"encoder": "resnet10", "encoder_width": 4, "norm": "none"}
    network = DeepLabV3Plus(2, 1, 2, separable=True, **settings)
    each, across = (m for m in network.decoder[1] if isinstance(m, nn.Conv2d))
    assert each.weight.numel() == 256 * 9
    assert across.weight.numel() == 256 * 256
    assert network(torch.randn(1, 1, 20, 20)).shape == (1, 2, 20, 20)


def test_xception_has_no_multi_grid():
    settings = {"encoder": "xception_s", "encoder_width": 8}
    assert DeepLabV3Plus(2, 1, 2, **settings)(torch.randn(1, 1, 20, 20)).shape == (1, 2, 20, 20)
    with pytest.raises(ValueError, match=r'^multi_grid: not a setting of encoder "xception_s"'):
        DeepLabV3Plus(2, 1, 2, multi_grid=(1, 2, 4), **settings)


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match='did you mean "resnet18"'):
        DeepLabV3Plus(2, 1, 2, encoder="resnet19")


@pytest.mark.parametrize("rate", [1, 3])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_two_steps_are_one_dense_convolution_of_fewer_weights(spatial_dims: int, rate: int):
    """Of C channels onto C': C * 3^d and C * C' weights, instead of C * C' * 3^d."""
    torch.manual_seed(0)
    enters, leaves = 5, 7
    layers = spatial_conv(spatial_dims, enters, leaves, "none", separable=True).double()
    each, across = (part for part in layers if isinstance(part, nn.Conv2d | nn.Conv3d))
    each.dilation = each.padding = (rate,) * spatial_dims
    assert each.weight.numel() == enters * 3**spatial_dims
    assert across.weight.numel() == enters * leaves

    kernel = torch.einsum("oc,c...->oc...", across.weight.flatten(1), each.weight[:, 0])
    assert kernel.numel() == enters * leaves * 3**spatial_dims
    bias = across.weight.flatten(1) @ each.bias + across.bias
    dense = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[spatial_dims]
    features = torch.randn(2, enters, *(9, 8, 7)[:spatial_dims]).double()
    expected = dense(features, kernel, bias, padding=rate, dilation=rate)
    torch.testing.assert_close(across(each(features)), expected)
