"""What a transposed convolution is, and the one that starts as linear interpolation."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.networks.layers import UP_CONV
from medseg.networks.upsample import BilinearUpsample

MODE = {2: "bilinear", 3: "trilinear"}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("scale", "cells"),
    [
        ((2, 2), (5, 3)),
        ((8, 8), (4, 1)),
        ((16, 16), (2, 3)),
        ((32, 32), (2, 2)),
        ((3, 1), (4, 2)),
        ((1, 2, 2), (3, 4, 2)),
        ((4, 4, 4), (2, 3, 1)),
    ],
)
def test_it_starts_as_linear_interpolation_up_to_the_edge(scale, cells):
    dims = len(scale)
    features = noise(2, 3, *cells)
    up = BilinearUpsample(dims, 3, scale).double()
    expected = functional.interpolate(
        features, scale_factor=tuple(map(float, scale)), mode=MODE[dims], align_corners=False
    )
    torch.testing.assert_close(up(features), expected, rtol=0, atol=1e-6)


def test_the_middle_of_a_constant_is_that_constant_and_its_edge_fades_as_published():
    up = BilinearUpsample(2, 1, 2, edges="none")
    enlarged = up(torch.full((1, 1, 4, 4), 3.0))
    assert enlarged.shape[2:] == (10, 10)
    assert (enlarged[..., 2:-2, 2:-2] == 3).all()
    assert enlarged[0, 0, 0, 0] == 3 / 16  # the outer tap, 1/4, along both axes
    assert (BilinearUpsample(2, 1, 2)(torch.full((1, 1, 4, 4), 3.0)) == 3).all()


@pytest.mark.parametrize(("scale", "kernel"), [((2, 2), (4, 4)), ((1, 2, 2), (1, 4, 4))])
def test_sizes_follow_the_formula(scale, kernel):
    cells = (3, 4, 5)[: len(scale)]
    features = torch.zeros(1, 2, *cells)
    full = BilinearUpsample(len(scale), 2, scale, edges="none")
    assert tuple(full.weight.shape) == (2, 1, *kernel)
    expected = tuple((n - 1) * s + k for n, s, k in zip(cells, scale, kernel, strict=True))
    assert tuple(full(features).shape[2:]) == expected
    repeated = BilinearUpsample(len(scale), 2, scale)(features)
    assert tuple(repeated.shape[2:]) == tuple(n * s for n, s in zip(cells, scale, strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_the_adjoint_of_the_convolution_with_its_kernels(dims: int):
    conv = {2: functional.conv2d, 3: functional.conv3d}[dims]
    up = BilinearUpsample(dims, 2, 2, edges="none").double()
    coarse = noise(1, 2, *(3,) * dims)
    fine = noise(1, 2, *(8,) * dims)
    down = conv(fine, up.weight, stride=2, groups=2)
    assert float((down * coarse).sum()) == pytest.approx(float((fine * up(coarse)).sum()))


def test_fixed_kernels_are_no_weights_and_learned_ones_are():
    fixed, learned = BilinearUpsample(2, 3, 2), BilinearUpsample(2, 3, 2, learnable=True)
    assert not list(fixed.parameters())
    assert not fixed.state_dict()
    learned(torch.ones(1, 3, 2, 2)).sum().backward()
    assert learned.weight.grad is not None
    assert torch.equal(learned.weight, fixed.weight)


@pytest.mark.parametrize("scale", [0, (2, 2, 2)])
def test_a_scale_is_one_number_or_more_an_axis(scale):
    with pytest.raises(ValueError, match="scale is 1 or more for each of 2 axes"):
        BilinearUpsample(2, 1, scale)


@pytest.mark.parametrize(("kernel", "padding", "uneven"), [(3, 1, True), (4, 1, False)])
def test_a_kernel_that_its_stride_does_not_divide_leaves_a_checkerboard(kernel, padding, uneven):
    up = UP_CONV[2](1, 1, kernel, stride=2, padding=padding, bias=False)
    nn.init.ones_(up.weight)
    with torch.no_grad():
        middle = up(torch.ones(1, 1, 6, 6))[..., 3:-3, 3:-3]
    assert bool(middle.std() > 0) == uneven
