"""What only DeepLab V3+ and its encoders promise."""

import pytest
import torch
from torch import nn

from medseg.networks import DeepLabV3Plus
from medseg.networks.encoders import ENCODERS


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoder": "resnet50"}, 40_352_181),
        ({"encoder": "resnet101"}, 59_344_309),
        ({"encoder": "resnet101", "separable": True}, 45_688_261),
    ],
)
def test_parameters_are_as_published(settings, expected: int):
    with torch.device("meta"):
        assert count(DeepLabV3Plus.paper(3, 21, **settings)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
    ],
)
def test_encoders_have_the_published_weights_without_the_classifier(name: str, expected: int):
    with torch.device("meta"):
        assert count(ENCODERS[name](2, 3, norm="batch")) == expected


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_finer_maps_contain_the_coarser_map_of_the_same_weights(name: str, spatial_dims: int):
    torch.manual_seed(0)
    encoder = ENCODERS[name](spatial_dims, 1, width=4, multi_grid=(1, 2, 4)).eval()
    for module in encoder.modules():
        # A group norm's statistics are of its own grid; a shift and scale is not.
        for key, part in list(module.named_children()):
            if isinstance(part, nn.GroupNorm):
                setattr(module, key, nn.Identity())
    encoder = encoder.double()
    image = torch.randn(1, 1, *(129 if spatial_dims == 2 else 65,) * spatial_dims).double()
    maps = {}
    with torch.no_grad():
        for stride in (8, 16, 32):
            encoder.set_output_stride(stride)
            maps[stride] = encoder(image)[-1]
            assert encoder.grids[-1] == (stride,) * spatial_dims
    size = maps[32].abs().max()
    for stride, step in ((8, 4), (16, 2)):
        every = (..., *(slice(None, None, step) for _ in range(spatial_dims)))
        assert (maps[stride][every] - maps[32]).abs().max() < 1e-10 * size


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


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match='did you mean "resnet18"'):
        DeepLabV3Plus(2, 1, 2, encoder="resnet19")
