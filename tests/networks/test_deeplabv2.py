"""What only DeepLab V2 promises."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.losses import LOSSES, DeepSupervision
from medseg.networks import DeepLabV1, DeepLabV2

SLIM = {"encoder": "resnet10", "encoder_width": 4, "aspp_rates": (1, 2, 3)}
NORMS = (nn.GroupNorm, nn.modules.batchnorm._NormBase)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def build(spatial_dims: int = 2, **settings) -> DeepLabV2:
    torch.manual_seed(0)
    network = DeepLabV2(spatial_dims, 1, 3, **{**SLIM, **settings})
    for branch in network.branches:
        nn.init.normal_(branch.weight, std=1.0)
    return network


@pytest.mark.parametrize(
    ("encoder", "expected", "branches"),
    [("vgg16", 37_877_652, 23_162_964), ("resnet101", 44_048_532, 1_548_372)],
)
def test_counts_are_as_published(encoder, expected: int, branches: int):
    with torch.device("meta"):
        network = DeepLabV2.paper(3, 21, encoder=encoder)
    assert sum(weights.numel() for weights in network.parameters()) == expected
    assert sum(weights.numel() for weights in network.branches.parameters()) == branches
    assert network.rates == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert not any(isinstance(part, NORMS) for part in network.branches.modules())


@pytest.mark.parametrize("channels", [0, 4])
def test_no_norm_in_the_branches(channels: int):
    network = DeepLabV2(2, 1, 2, aspp_channels=channels, **SLIM)
    assert any(isinstance(part, NORMS) for part in network.encoder.modules())
    assert not any(isinstance(part, NORMS) for part in network.branches.modules())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_scores_are_the_sum_of_the_branches_in_any_order(spatial_dims: int):
    network = build(spatial_dims).eval()
    image = noise(1, 1, *(17,) * spatial_dims)
    with torch.no_grad():
        features = network.encoder(image)[-1]
        parts = [branch(features) for branch in network.branches]
        size = (17,) * spatial_dims
        mode = {2: "bilinear", 3: "trilinear"}[spatial_dims]
        expected = sum(
            functional.interpolate(part, size=size, mode=mode, align_corners=True) for part in parts
        )
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
        before = network(image)
        network.branches = nn.ModuleList(reversed(list(network.branches)))
        torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-4)


def test_with_one_rate_it_is_the_first_deeplab():
    torch.manual_seed(0)
    settings = {"encoder": "vgg11", "encoder_width": 2, "norm": "none"}
    one = DeepLabV1(2, 1, 2, fov_rate=12, fov_channels=4, **settings).eval()
    two = DeepLabV2(2, 1, 2, aspp_rates=(12,), aspp_channels=4, **settings).eval()
    with torch.no_grad():
        for mine, theirs in zip(two.parameters(), one.parameters(), strict=True):
            mine.copy_(theirs)
        image = noise(1, 1, 50, 33)
        torch.testing.assert_close(two(image), one(image))


def test_one_scale_is_the_plain_network_and_several_give_the_highest_score():
    image = noise(1, 1, 45, 30)
    plain = build().eval()
    several = build(input_scales=(0.5, 0.75, 1.0)).eval()
    several.load_state_dict(plain.state_dict())
    with torch.no_grad():
        fused = several(image)
        each = [several.logits_at(image, scale) for scale in (0.5, 0.75, 1.0)]
        assert torch.equal(each[2], plain(image))
    assert all((fused >= logits).all() for logits in each)
    assert torch.equal(fused, torch.stack(each).amax(0))
    assert not torch.equal(fused, each[2])


def test_a_scale_of_a_half_shows_the_network_every_second_voxel_of_a_smooth_image():
    network = build().eval()
    ramp = torch.arange(33.0).expand(1, 1, 33, 33) / 33
    with torch.no_grad():
        small = network(ramp[..., ::2, ::2])
        expected = functional.interpolate(small, size=(33, 33), mode="bilinear", align_corners=True)
        torch.testing.assert_close(network.logits_at(ramp, 0.5), expected, rtol=1e-4, atol=1e-4)


def test_training_returns_the_fused_logits_then_those_of_every_scale_with_a_loss_each():
    network = build(input_scales=(0.5, 0.75, 1.0), deep_supervision=True).train()
    image, target = noise(2, 1, 30, 21), torch.ones(2, 1, 30, 21, dtype=torch.long)
    outputs = network(image)
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 30, 21)] * 4
    assert torch.equal(outputs[0], torch.stack(outputs[1:]).amax(0))
    assert network.supervision_weights == (1, 1, 1, 1)
    loss = LOSSES.build("cross_entropy")
    total = DeepSupervision(loss, weights=network.supervision_weights)(outputs, target)
    torch.testing.assert_close(total, sum(loss(output, target) for output in outputs))
    assert isinstance(network.eval()(image), Tensor)


def test_thick_slices_keep_their_size_at_every_scale():
    network = build(3, spacing=(5, 1, 1), input_scales=(0.5, 1.0))
    seen = []
    network.encoder.register_forward_pre_hook(lambda *args: seen.append(args[1][0].shape[2:]))
    assert network(noise(1, 1, 5, 33, 17)).shape == (1, 3, 5, 33, 17)
    assert network.output_stride == (2, 8, 8)
    assert [tuple(size) for size in seen] == [(5, 17, 9), (5, 33, 17)]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 1)])
def test_scales_leave_one_voxel_at_least(size):
    network = build(input_scales=(0.25, 1.0)).eval()
    assert network(noise(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_a_smaller_scale_sees_no_further_than_stated(scale: float):
    network = build(input_scales=(scale,), norm="none").double().eval()
    field = network.receptive_field()[0]
    assert field > build().receptive_field()[0]
    image = torch.rand(1, 1, field + 64, 9, dtype=torch.float64, requires_grad=True)
    for row in range(field // 2 + 16, field // 2 + 32):
        (reached,) = torch.autograd.grad(network(image)[0, :, row].sum(), image)
        rows = reached[0, 0].abs().sum(1).nonzero()
        assert int(rows.max() - rows.min()) + 1 <= field


def test_rates_shrink_with_the_patch_and_with_coarser_maps():
    def rates(**settings) -> list[tuple[int, ...]]:
        return DeepLabV2(2, 1, 2, encoder="resnet10", encoder_width=2, **settings).rates

    # 20.5 cells are half of the published 41.
    assert rates(patch_voxels=(164, 164)) == [(3, 3), (6, 6), (9, 9), (12, 12)]
    assert rates(patch_voxels=(16, 16)) == [(1, 1)], "a branch is not built twice"
    assert rates(output_stride=16) == [(3, 3), (6, 6), (9, 9), (12, 12)]


@pytest.mark.parametrize(
    "settings", [{"input_scales": ()}, {"input_scales": (0.0, 1.0)}, {"aspp_rates": ()}]
)
def test_no_scale_and_no_rate_are_refused(settings):
    with pytest.raises(ValueError, match="one or more"):
        build(**settings)


def test_a_rate_below_one_is_refused():
    with pytest.raises(ValueError, match=r"aspp_rates are 1 and up, got \[3, 0\]"):
        build(aspp_rates=(3, 0))


@pytest.mark.parametrize("stride", [4, 5, 32])
def test_an_output_stride_other_than_8_and_16_is_refused(stride: int):
    with pytest.raises(ValueError, match=f"output_stride is 8 or 16, got {stride}"):
        build(output_stride=stride)


@pytest.mark.parametrize("voxels", [16, 64, 96, 128, 192, 321, None])
def test_weights_fit_at_both_output_strides(voxels: int | None):
    patch = None if voxels is None else (voxels, voxels)
    fine, coarse = (
        build(output_stride=stride, aspp_rates="auto", patch_voxels=patch) for stride in (8, 16)
    )
    coarse.load_state_dict(fine.state_dict())
    # A coarser cell is twice as wide, and one cell is the least.
    for near, far in zip(fine.rates, coarse.rates, strict=True):
        assert all(abs(f - n / 2) <= 0.5 for n, f in zip(near, far, strict=True))
