"""What only DeepLab V3 promises."""

import pytest
import torch
from torch import nn

from medseg.networks import DeepLabV3
from medseg.networks.aspp import ASPP

TINY = {"encoder": "resnet10", "encoder_width": 4, "norm": "none"}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("encoder", "expected"), [("resnet50", 39_048_533), ("resnet101", 58_040_661)]
)
def test_parameters_are_as_published(encoder: str, expected: int):
    with torch.device("meta"):
        network = DeepLabV3.paper(3, 21, encoder=encoder)
    assert count(network) == expected
    assert count(network.context) == 15_535_104


def test_the_published_network_is_dilated_on_several_grids_in_its_last_stage():
    with torch.device("meta"):
        network = DeepLabV3.paper()
    rates = [block.spatial[0].dilation for block in network.encoder.stages[3]]
    # The first block of a stage still has the rate of the stage before, times its own factor.
    assert rates == [(1, 1), (4, 4), (8, 8)]
    assert network.output_stride == (16, 16)


def test_the_output_stride_is_switched_after_training_and_the_rates_double():
    torch.manual_seed(0)
    network = DeepLabV3(2, 1, 2, output_stride=16, **TINY).eval()
    assert network.context.rates == [(6, 6), (12, 12), (18, 18)]
    saved = {key: weights.clone() for key, weights in network.state_dict().items()}
    network.set_output_stride(8)
    assert network.output_stride == (8, 8)
    assert network.context.rates == [(12, 12), (24, 24), (36, 36)]
    assert network(torch.randn(1, 1, 65, 40)).shape == (1, 2, 65, 40)
    DeepLabV3(2, 1, 2, output_stride=8, **TINY).load_state_dict(saved)
    with pytest.raises(ValueError, match="8 or 16"):
        network.set_output_stride(32)


def test_constant_features_have_the_same_context_in_the_middle_at_both_output_strides():
    torch.manual_seed(0)
    context = DeepLabV3(2, 1, 2, output_stride=16, **TINY).context.eval()
    features = torch.rand(1, 32, 1, 1)
    with torch.no_grad():
        coarse = context(features.expand(-1, -1, 39, 39))[..., 19, 19]
        context.set_output_stride((8, 8))
        fine = context(features.expand(-1, -1, 77, 77))[..., 38, 38]
    torch.testing.assert_close(coarse, fine)


@pytest.mark.parametrize(
    ("cells", "rates", "shares"),
    [
        ((33, 33), (6, 12, 18), (0.77, 0.57, 0.40)),
        ((12, 12, 12), (6, 12, 18), (0.30, 0.04, 0.04)),
        ((12, 12, 12), (2, 4, 7), (0.70, 0.47, 0.23)),
    ],
)
def test_a_rate_beyond_the_map_meets_only_padding(cells, rates, shares):
    """Of 3 taps an axis, 2 r of 3 n meet padding: 1 - 2 r / (3 n) see the map, for r < n."""
    dims = len(cells)
    context = ASPP(
        dims,
        1,
        1,
        rates=[(r,) * dims for r in rates],
        built_for=(8,) * dims,
        image_pooling=False,
        separable=False,
        norm="none",
        dropout=0.0,
    )
    for branch, rate, share in zip(context.far, rates, shares, strict=True):
        nn.init.constant_(branch[0].weight, 1 / 3**dims)
        nn.init.zeros_(branch[0].bias)
        seen = branch(torch.ones(1, 1, *cells)).mean().item()
        by_hand = max(1 - 2 * rate / (3 * cells[0]), 1 / 3) ** dims
        assert seen == pytest.approx(by_hand, rel=1e-4)
        assert seen == pytest.approx(share, abs=0.0051)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("image_pooling", [True, False])
def test_only_image_pooling_sees_beyond_the_receptive_field(spatial_dims: int, image_pooling: bool):
    torch.manual_seed(0)
    network = DeepLabV3(
        spatial_dims,
        1,
        2,
        multi_grid=(1, 1, 1),
        aspp_rates=(1,),
        aspp_channels=8,
        image_pooling=image_pooling,
        **TINY,
    ).double()
    field = network.receptive_field()[0]
    size = (field + 16, 9, 9)[:spatial_dims]
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0].flatten()[0].backward()
    beyond = image.grad[0, 0, field // 2 + 8 :]
    assert bool(beyond.any()) == image_pooling


@pytest.mark.parametrize("size", [(65, 97), (33, 47), (130, 70)])
def test_odd_sizes_are_fine_at_both_output_strides(size: tuple[int, int]):
    network = DeepLabV3(2, 1, 3, **TINY)
    for stride in (8, 16):
        network.set_output_stride(stride)
        assert network(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("context", ["aspp", "dpc"])
@pytest.mark.parametrize("voxels", [16, 64, 96, 128, 192, 513, None])
@pytest.mark.parametrize("spacing", [None, (5.0, 1.0, 1.0)])
def test_a_network_built_at_one_output_stride_is_the_one_switched_to_it(context, voxels, spacing):
    dims = 2 if spacing is None else 3
    settings = {**TINY, "encoder_width": 2, "aspp_channels": 2, "context": context}
    settings |= {"patch_voxels": voxels and (voxels,) * dims, "spacing": spacing}
    built = {s: DeepLabV3(dims, 1, 2, output_stride=s, **settings) for s in (8, 16)}
    rates = {stride: network.context.rates for stride, network in built.items()}
    for stride, other in ((8, 16), (16, 8)):
        built[other].load_state_dict(built[stride].state_dict())
        built[stride].set_output_stride(other)
        assert built[stride].context.rates == rates[other]
        built[stride].set_output_stride(stride)
        assert built[stride].context.rates == rates[stride]


def test_rates_are_in_proportion_to_the_map_at_output_stride_8_and_half_of_that_at_16():
    def rates(voxels: int, stride: int) -> list[int]:
        patch = (voxels, voxels)
        network = DeepLabV3(2, 1, 2, output_stride=stride, patch_voxels=patch, **TINY)
        return [first for first, _ in network.context.rates]

    # 8 of 33 cells: 1.5, 2.9 and 4.4; 16 of 33: 2.9, 5.8 and 8.7. A half is rounded to even.
    assert (rates(64, 8), rates(64, 16)) == ([1, 3, 4], [1, 2, 2])
    assert (rates(128, 8), rates(128, 16)) == ([3, 6, 9], [2, 3, 4])


@pytest.mark.parametrize("stride", [8, 16])
def test_rates_that_are_given_are_those_at_the_output_stride_given_with_them(stride: int):
    network = DeepLabV3(2, 1, 2, output_stride=stride, aspp_rates=(2, 4, 4), **TINY)
    assert network.context.rates == [(2, 2), (4, 4), (4, 4)]
    network.set_output_stride(24 - stride)
    halves, doubled = [(1, 1), (2, 2), (2, 2)], [(4, 4), (8, 8), (8, 8)]
    assert network.context.rates == (halves if stride == 8 else doubled)


def test_settings_that_would_be_changed_in_silence_are_refused():
    with pytest.raises(ValueError, match=r"aspp_rates are 1 and up, got \[0, -3\]"):
        DeepLabV3(2, 1, 2, aspp_rates=(0, -3), **TINY)
    with pytest.raises(ValueError, match=r"multi_grid is one or more factors .* got \[\]"):
        DeepLabV3(2, 1, 2, multi_grid=(), **TINY)
    with pytest.raises(ValueError, match="output_stride is 8 or 16, got 3"):
        DeepLabV3(2, 1, 2, output_stride=3, **TINY)
