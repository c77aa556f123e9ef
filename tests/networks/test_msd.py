"""What only MS-D promises."""

from math import log

import pytest
import torch
from torch import nn

from medseg.networks import MSDNet


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def lively(network: MSDNet) -> MSDNet:
    """The network with a last layer that is not zero."""
    nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize(
    ("channels", "settings", "expected"),
    [
        ((2, 1, 2), {}, 45_754),
        ((2, 1, 5), {}, 46_060),
        ((2, 3, 11), {}, 48_494),
        ((2, 5, 5), {}, 49_680),
        ((2, 3, 11), {"depth": 200}, 186_944),
        ((2, 1, 2), {"depth": 50}, 11_629),
        ((3, 1, 2), {}, 136_654),
        ((2, 1, 2), {"depth": 4, "width": 3}, 12 + 9 * 3 * (4 * 1 + 3 * 6) + 2 * (1 + 12 + 1)),
    ],
)
def test_parameters_are_as_published(channels, settings, expected: int):
    assert count(MSDNet(*channels, **settings)) == expected


def test_the_published_network():
    assert count(MSDNet.paper()) == 45_754
    assert MSDNet.paper().receptive_field() == (1101, 1101)


def test_first_logits_are_zero_and_the_first_step_moves_the_last_layer_only():
    network = MSDNet(2, 1, 3, depth=5)
    logits = network(torch.randn(1, 1, 16, 16))
    assert not logits.any()
    loss = nn.functional.cross_entropy(logits, torch.randint(0, 3, (1, 16, 16)))
    assert loss.item() == pytest.approx(log(3))
    loss.backward()
    assert network.head.weight.grad.any()
    assert not any(filters.grad.any() for filters in network.filters)


def test_kernels_are_drawn_as_published():
    torch.manual_seed(0)
    network = MSDNet(2, 1, 2, depth=100)
    drawn = torch.cat([filters.flatten() for filters in network.filters])
    assert drawn.std().item() == pytest.approx((2 / (9 * 100 + 2)) ** 0.5, rel=0.02)
    assert not network.biases.any()


def test_dilations_cycle_over_the_channels_of_all_layers():
    network = MSDNet(2, 1, 2, depth=4, width=3)
    assert network.dilations == tuple((d, d) for d in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2))
    assert MSDNet(3, 1, 2, depth=6).dilations == tuple((d,) * 3 for d in (1, 2, 3, 4, 5, 1))


def test_a_dilation_may_differ_by_axis():
    network = MSDNet(3, 1, 2, depth=4, dilations=((1, 2, 2), (1, 4, 4), 3))
    assert network.dilations == ((1, 2, 2), (1, 4, 4), (3, 3, 3), (1, 2, 2))
    assert network.receptive_field() == (1 + 2 * 6, 1 + 2 * 11, 1 + 2 * 11)
    with pytest.raises(ValueError, match="one number or 3"):
        MSDNet(3, 1, 2, dilations=((1, 2),))


def test_any_shift_of_the_image_shifts_the_logits():
    torch.manual_seed(0)
    network = lively(MSDNet(2, 1, 2, depth=4, dilations=(1, 2, 3))).double()
    image = torch.randn(1, 1, 40, 44, dtype=torch.float64)
    margin = network.receptive_field()[0] // 2
    with torch.no_grad():
        here = network(image)[..., margin + 3 : -margin, margin + 5 : -margin]
        there = network(image[..., 3:, 5:])[..., margin:-margin, margin:-margin]
    torch.testing.assert_close(here, there, rtol=0, atol=1e-12)


def test_the_last_layer_sees_the_image_and_every_layer():
    network = MSDNet(2, 2, 3, depth=5, width=2)
    assert network.head.weight.shape[:2] == (3, 2 + 10)


def test_symmetric_kernels_see_mirrored_edges_as_a_mirrored_image():
    torch.manual_seed(0)
    network = lively(MSDNet(2, 1, 2, depth=3, dilations=(1, 2))).double()
    with torch.no_grad():
        for filters in network.filters:
            filters.add_(filters.flip(2)).add_(filters.flip(3))
    image = torch.randn(1, 1, 12, 15, dtype=torch.float64)
    larger = nn.functional.pad(image, (9, 9, 9, 9), mode="reflect")
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(larger)[..., 9:-9, 9:-9])


def test_dilations_shrink_to_fit_a_small_image():
    torch.manual_seed(0)
    network = lively(MSDNet(2, 1, 2, depth=10))
    fitting = MSDNet(2, 1, 2, depth=10, dilations=(1, 2, 3, 4, 4, 4, 4, 4, 4, 4))
    fitting.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(network(image), fitting(image))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="mirroring needs 2"):
        MSDNet(2, 1, 2, depth=2)(torch.zeros(1, 1, 1, 9))
    with pytest.raises(ValueError, match="depth"):
        MSDNet(2, 1, 2, depth=0)
    with pytest.raises(ValueError, match="dilations"):
        MSDNet(2, 1, 2, dilations=(0, 1))
    assert MSDNet(2, 1, 2, depth=2, padding_mode="zeros")(torch.zeros(1, 1, 1, 1)).shape[2:] == (
        1,
        1,
    )
