"""What only DeepLab V1 promises."""

import pytest
import torch
from torch import nn

from medseg.networks import DeepLabV1
from medseg.networks.encoders import ENCODERS
from medseg.networks.layers import Step, receptive_field

SLIM = {"encoder": "vgg11", "encoder_width": 2, "fov_channels": 4, "norm": "none"}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("kernel", "rate", "expected", "sees"),
    [
        (3, 12, 20_505_429, 404),
        (4, 4, 65_140_565, 308),
        (4, 8, 65_140_565, 404),
        (7, 4, 134_346_581, 404),
    ],
)
def test_counts_and_fields_of_view_are_as_published(kernel, rate, expected: int, sees: int):
    with torch.device("meta"):
        network = DeepLabV1.paper(3, 21, fov_kernel=kernel, fov_rate=rate)
    assert count(network) == expected
    # The paper counts VGG's poolings of 2x2 down to 1/32, where a quarter of the rate is due.
    encoder = ENCODERS["vgg16"](2, 1, width=1, pool_kernel=2)
    classifier = Step(kernel, stride=1, dilation=rate // 4)
    assert receptive_field([*encoder.steps(0), classifier]) == sees
    # Poolings of 3x3 see 1 + 2 + 4 + 8 + 16 voxels more; dilation sees what halving would.
    ours = [*network.encoder.steps(0), Step(kernel, dilation=rate)]
    assert receptive_field(ours) == sees + 31


@pytest.mark.parametrize(("kernel", "rate"), [(3, 12), (4, 8), (7, 4)])
def test_by_default_every_kernel_reaches_as_far_as_published(kernel, rate: int):
    assert DeepLabV1(2, 1, 2, fov_kernel=kernel, **SLIM).fov_rate == (rate, rate)


@pytest.mark.parametrize("kernel", [3, 4, 7])
def test_321_voxels_have_41_cells(kernel):
    network = DeepLabV1(2, 1, 2, fov_kernel=kernel, **SLIM)
    sizes = []
    network.head.register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[2:])))
    assert network(torch.zeros(1, 1, 321, 57)).shape == (1, 2, 321, 57)
    assert sizes == [(41, 8)]
    assert network.output_stride == (8, 8)


def test_a_kernel_of_four_is_centred():
    network = DeepLabV1(2, 1, 2, fov_kernel=4, fov_rate=2, **SLIM).double()
    for weights in network.parameters():
        nn.init.constant_(weights, 0.1 if weights.dim() > 1 else 1.0)
    # A maximum would hand the gradient to one voxel of its window; a mean reaches them all.
    for number, pool in enumerate(network.encoder.pools):
        reach = [1 + d * (k - 1) for k, d in zip(pool.kernel_size, pool.dilation, strict=True)]
        network.encoder.pools[number] = nn.AvgPool2d(reach, pool.stride)
    image = torch.ones(1, 1, 601, 9, dtype=torch.float64, requires_grad=True)
    logits = network(image)
    logits[0, 0, 304, 4].backward()  # the centre of cell 38
    seen = image.grad[0, 0].abs().sum(1).nonzero()
    assert int(seen.min() + seen.max()) / 2 == 304


def test_the_rate_shrinks_with_the_patch_and_stays_even_for_a_kernel_of_four():
    assert DeepLabV1(2, 1, 2, patch_voxels=(328, 164), **SLIM).fov_rate == (12, 6)
    assert DeepLabV1(2, 1, 2, patch_voxels=(328, 8), **SLIM).fov_rate == (12, 1)
    # 8 on 41 cells is 4 on 20.5, and 2.9 on 15, of which the nearest even number is 2.
    four = DeepLabV1(2, 1, 2, fov_kernel=4, patch_voxels=(164, 120), **SLIM)
    assert four.fov_rate == (4, 2)
    assert DeepLabV1(2, 1, 2, output_stride=16, **SLIM).fov_rate == (6, 6)


def test_multiscale_skips_add_five_times_128_channels():
    with torch.device("meta"):
        plain, skips = (DeepLabV1.paper(multiscale_skip=skip) for skip in (False, True))
    first = 9 * (3 + 64 + 128 + 256 + 512) * 128 + 5 * 128
    second = 5 * (128 * 128 + 128)
    assert count(skips) - count(plain) == first + second + 640 * 21


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_multiscale_skips_lie_on_the_grid_of_the_classifier(spatial_dims: int):
    torch.manual_seed(0)
    network = DeepLabV1(spatial_dims, 1, 2, multiscale_skip=True, skip_channels=4, **SLIM)
    size = (33, 20, 12)[:spatial_dims]
    assert network(torch.randn(1, 1, *size)).shape == (1, 2, *size)
    strides = [side[0][0].stride[0] for side in network.sides]
    assert strides == [8, 4, 2, 1, 1]


def test_thick_slices_are_halved_late():
    network = DeepLabV1(3, 1, 2, spacing=(5, 1, 1), multiscale_skip=True, **SLIM)
    assert network.output_stride == (2, 8, 8)
    assert network(torch.zeros(1, 1, 5, 33, 18)).shape == (1, 2, 5, 33, 18)


def test_an_odd_rate_of_a_kernel_of_four_is_refused():
    with pytest.raises(ValueError, match="even rates, got 3"):
        DeepLabV1(2, 1, 2, fov_kernel=4, fov_rate=3, **SLIM)


@pytest.mark.parametrize("stride", [3, 4, 32])
def test_an_output_stride_other_than_8_and_16_is_refused(stride: int):
    with pytest.raises(ValueError, match=f"output_stride is 8 or 16, got {stride}"):
        DeepLabV1(2, 1, 2, output_stride=stride, **SLIM)


@pytest.mark.parametrize("rate", [0, -2])
def test_a_rate_below_one_is_refused(rate: int):
    with pytest.raises(ValueError, match=f"fov_rate is auto or 1 and up, got {rate}"):
        DeepLabV1(2, 1, 2, fov_rate=rate, **SLIM)
