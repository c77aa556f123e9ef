"""What a dilated convolution is, and what goes wrong when rates repeat."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.networks.encoders import ENCODERS
from medseg.networks.layers import CONV, Step, receptive_field

PLAIN = {2: functional.conv2d, 3: functional.conv3d}
both_dimensions = pytest.mark.parametrize("spatial_dims", [2, 3])


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@both_dimensions
@pytest.mark.parametrize("rate", [1, 2, 3])
def test_it_is_the_convolution_whose_filter_is_upsampled_with_zeros(spatial_dims: int, rate: int):
    dilated = CONV[spatial_dims](2, 3, 3, padding=rate, dilation=rate).double()
    side = 3 + 2 * (rate - 1)
    upsampled = torch.zeros(3, 2, *(side,) * spatial_dims, dtype=torch.float64)
    upsampled[(..., *(slice(None, None, rate),) * spatial_dims)] = dilated.weight.detach()
    image = noise(1, 2, *(9,) * spatial_dims)
    with torch.no_grad():
        expected = PLAIN[spatial_dims](image, upsampled, dilated.bias, padding=side // 2)
        torch.testing.assert_close(dilated(image), expected)


@both_dimensions
def test_its_weights_are_as_many_at_every_rate(spatial_dims: int):
    counts = {
        rate: sum(w.numel() for w in CONV[spatial_dims](4, 5, 3, dilation=rate).parameters())
        for rate in (1, 2, 12)
    }
    assert set(counts.values()) == {5 * 4 * 3**spatial_dims + 5}


@pytest.mark.parametrize("rates", [(1,), (2, 2, 2), (1, 2, 3), (1, 2, 4, 8)])
def test_a_stack_sees_one_voxel_and_twice_every_rate(rates: tuple[int, ...]):
    seen = int(reached(rates).nonzero().max() - reached(rates).nonzero().min()) + 1
    assert seen == 1 + 2 * sum(rates)
    assert receptive_field([Step(3, dilation=rate) for rate in rates]) == seen


def reached(rates: tuple[int, ...]) -> Tensor:
    """Whether each voxel along an axis reaches the middle output of layers with positive taps."""
    layers = [nn.Conv2d(1, 1, 3, padding=rate, dilation=rate, bias=False) for rate in rates]
    for layer in layers:
        nn.init.ones_(layer.weight)
    image = torch.ones(1, 1, 41, 41, requires_grad=True)
    nn.Sequential(*layers)(image)[0, 0, 20, 20].backward()
    assert image.grad is not None
    along: Tensor = image.grad[0, 0, 20] > 0
    return along


@pytest.mark.parametrize(("rates", "touched"), [((2, 2, 2), 7), ((1, 2, 3), 13)])
def test_equal_rates_leave_a_grid_of_voxels_unseen_and_growing_ones_none(rates, touched: int):
    assert receptive_field([Step(3, dilation=rate) for rate in rates]) == 13
    assert int(reached(rates).sum()) == touched
    gaps = {int(b - a) for a, b in pairwise(reached(rates).nonzero().flatten())}
    assert gaps == {12 // (touched - 1)}


@both_dimensions
def test_on_the_finer_grid_it_computes_what_halving_would(spatial_dims: int):
    """Pool, then convolve; or pool at stride 1, then convolve at rate 2 and take every second."""
    conv = CONV[spatial_dims](1, 1, 3, padding=1).double()
    image = noise(1, 1, *(13,) * spatial_dims)
    every = (..., *(slice(None, None, 2),) * spatial_dims)
    with torch.no_grad():
        halved = conv(image[every])
        conv.dilation = conv.padding = (2,) * spatial_dims
        assert (conv(image)[every] - halved).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["vgg11", "resnet10"])
def test_encoders_that_dilate_instead_of_halving_see_as_far(name: str):
    encoder = ENCODERS[name](2, 1, width=4)
    fields = []
    for stride in (32, 16, 8):
        encoder.set_output_stride(stride)
        fields.append(receptive_field(encoder.steps(0)))
    assert len(set(fields)) == 1
