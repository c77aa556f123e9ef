"""What only PSPNet promises."""

import pytest
import torch
from torch import nn

from medseg.losses import DeepSupervision, DiceCE
from medseg.networks import PSPNet
from medseg.networks.layers import bin_means
from medseg.networks.pspnet import PyramidPooling

TINY = {"encoder": "resnet10", "encoder_width": 4, "head_channels": 8}
ADAPTIVE = {2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("encoder", "trunk", "with_auxiliary", "without"),
    [
        ("resnet50", 23_631_808, 49_081_578, 46_716_373),
        ("resnet101", 42_623_936, 68_073_706, 65_708_501),
    ],
)
def test_parameters_are_as_published(encoder: str, trunk: int, with_auxiliary: int, without: int):
    with torch.device("meta"):
        network = PSPNet.paper(encoder=encoder)
        assert count(network) == with_auxiliary
        assert count(network.encoder) == trunk
        assert count(network.pyramid) == 4_198_400
        assert count(PSPNet.paper(encoder=encoder, deep_supervision=False)) == without


def test_the_pyramid_doubles_the_channels_and_hands_on_the_map_untouched():
    torch.manual_seed(0)
    pyramid = PyramidPooling(2, 16, 4, bins=(1, 2, 3, 6), norm="auto")
    features = torch.randn(2, 16, 9, 7)
    context = pyramid(features)
    assert context.shape == (2, 32, 9, 7)
    assert torch.equal(context[:, :16], features)


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (60, 61), (6, 11, 8)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_bins_are_the_means_that_adaptive_pooling_takes(size: tuple[int, ...], bins: int):
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    means = bin_means(features, (bins,) * len(size))
    assert means.shape == (2, 3, *(bins,) * len(size))
    torch.testing.assert_close(means, ADAPTIVE[len(size)](features, bins))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bins_have_the_precision_of_the_map_under_autocast_too(dtype: torch.dtype):
    features = 10 + torch.randn(1, 3, 11, 8, 7, generator=torch.Generator().manual_seed(0))
    features = features.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = bin_means(features, (3, 3, 3))
    assert means.dtype == dtype
    expected = ADAPTIVE[3](features.double(), (3, 3, 3))
    # A rounding after each of the three axes, of a half of the last place at most.
    assert (means.double() - expected).abs().max() <= 2 * torch.finfo(dtype).eps * expected.max()


def test_there_are_no_more_bins_than_cells_along_an_axis():
    pyramid = PyramidPooling(3, 4, 4, bins=(1, 2, 3, 6), norm="auto")
    sizes = []
    for branch in pyramid.pooled:
        branch.register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[2:])))
    pyramid(torch.randn(1, 4, 2, 7, 9))
    assert sizes == [(1, 1, 1), (2, 2, 2), (2, 3, 3), (2, 6, 6)]


def test_the_pyramid_of_a_mirrored_map_is_the_mirrored_pyramid():
    torch.manual_seed(0)
    pyramid = PyramidPooling(2, 4, 4, bins=(1, 2, 3, 6), norm="none").double()
    features = torch.randn(1, 4, 11, 8).double()
    torch.testing.assert_close(pyramid(features.flip(2, 3)), pyramid(features).flip(2, 3))


def test_every_branch_of_a_constant_map_is_constant():
    torch.manual_seed(0)
    pyramid = PyramidPooling(2, 4, 4, bins=(1, 2, 3, 6), norm="none")
    context = pyramid(torch.rand(1, 4, 1, 1).expand(-1, -1, 7, 10))
    torch.testing.assert_close(context, context[..., :1, :1].expand_as(context))


@pytest.mark.parametrize("bins", [(1, 2, 3, 6), ()])
def test_only_the_pyramid_sees_the_whole_image(bins: tuple[int, ...]):
    torch.manual_seed(0)
    network = PSPNet(2, 1, 2, **TINY, bins=bins, norm="none").double().eval()
    for module in network.modules():
        # A ReLU would hide some voxels from the gradient, and a maximum most.
        for key, part in list(module.named_children()):
            if isinstance(part, nn.ReLU):
                setattr(module, key, nn.Identity())
            elif isinstance(part, nn.MaxPool2d):
                setattr(module, key, nn.AvgPool2d(3, stride=2, padding=1))
    for weights in network.parameters():
        weights.data.abs_()
    side = network.receptive_field()[0] + 16
    image = torch.rand(1, 1, side, 17, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0, 0, 8].backward()
    reached = image.grad[0, 0] != 0
    assert bool(reached.all()) == bool(bins)
    assert bool(reached[side // 2 + 8 :].any()) == bool(bins)


def test_training_adds_four_tenths_of_the_auxiliary_heads_loss():
    torch.manual_seed(0)
    network = PSPNet(2, 1, 2, **TINY)
    target = torch.randint(0, 2, (2, 1, 33, 20))
    main, auxiliary = outputs = network(torch.randn(2, 1, 33, 20))
    loss = DiceCE()
    total = DeepSupervision(loss, weights=network.supervision_weights)(outputs, target)
    torch.testing.assert_close(total, loss(main, target) + 0.4 * loss(auxiliary, target))


def test_evaluation_does_not_compute_the_auxiliary_head():
    network = PSPNet(2, 1, 2, **TINY)
    calls = []
    network.auxiliary.register_forward_hook(lambda *args: calls.append(1))
    network(torch.randn(1, 1, 16, 16))
    assert calls == [1]
    assert network.eval()(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)
    assert calls == [1]


def test_without_deep_supervision_training_returns_the_logits_alone():
    network = PSPNet(2, 1, 2, **TINY, deep_supervision=False)
    assert network(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)
    assert not any("auxiliary" in key for key in network.state_dict())


@pytest.mark.parametrize(("output_stride", "cells"), [(4, 17), (8, 9), (16, 5)])
def test_the_last_map_has_the_output_stride_asked_for(output_stride: int, cells: int):
    network = PSPNet(2, 1, 2, **TINY, output_stride=output_stride)
    seen = []
    network.pyramid.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape[2:])))
    network(torch.randn(1, 1, 65, 65))
    assert network.output_stride == (output_stride,) * 2
    assert seen == [(cells, cells)]


def test_thick_slices_are_halved_late():
    network = PSPNet(3, 1, 2, **TINY, spacing=(5, 1, 1))
    assert network.output_stride == (2, 8, 8)
    assert network.eval()(torch.randn(1, 1, 5, 33, 18)).shape == (1, 2, 5, 33, 18)


def test_an_encoder_without_the_deep_stem_is_refused():
    with pytest.raises(ValueError, match="deep_stem"):
        PSPNet(2, 1, 2, encoder="xception_s", deep_stem=True)
