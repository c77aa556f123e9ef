"""What only the VGG encoders promise."""

import pytest
import torch
from torch import nn

from medseg.networks.encoders import ENCODERS
from medseg.networks.layers import receptive_field


def field(encoder: nn.Module) -> int:
    return receptive_field(encoder.steps(0))  # type: ignore[operator]


@pytest.mark.parametrize(("name", "expected"), [("vgg11", 9_220_480), ("vgg16", 14_714_688)])
def test_the_convolutions_have_the_published_weights(name: str, expected: int):
    with torch.device("meta"):
        encoder = ENCODERS[name](2, 3, norm="none")
    assert sum(weights.numel() for weights in encoder.parameters()) == expected
    assert encoder.channels == (64, 128, 256, 512, 512)


def test_a_cell_of_the_last_map_sees_212_voxels_and_31_more_with_poolings_of_three():
    assert field(ENCODERS["vgg16"](2, 1, width=1, pool_kernel=2)) == 212
    encoder = ENCODERS["vgg16"](2, 1, width=1, pool_kernel=3)
    assert field(encoder) == 212 + 1 + 2 + 4 + 8 + 16
    encoder.set_output_stride(8)
    assert field(encoder) == 243, "dilation instead of halving sees the same"


def test_321_voxels_have_41_cells_at_output_stride_8():
    encoder = ENCODERS["vgg16"](2, 1, width=1)
    encoder.set_output_stride(8)
    sizes = [m.shape[2] for m in encoder(torch.zeros(1, 1, 321, 9))]
    assert sizes == [161, 81, 41, 41, 41]
    assert [c.dilation for c in encoder.stages[4] if isinstance(c, nn.Conv2d)] == [(2, 2)] * 3


@pytest.mark.parametrize(("spatial_dims", "n"), [(2, 97), (3, 65)])
def test_finer_maps_contain_the_coarser_map_of_the_same_weights(spatial_dims: int, n: int):
    torch.manual_seed(0)
    encoder = ENCODERS["vgg11"](spatial_dims, 1, width=2, norm="none").double()
    image = torch.randn(1, 1, *(n,) * spatial_dims, dtype=torch.float64)
    maps = {}
    with torch.no_grad():
        for stride in (8, 16, 32):
            encoder.set_output_stride(stride)
            maps[stride] = encoder(image)[-1]
    for stride, step in ((8, 4), (16, 2)):
        every = (..., *(slice(None, None, step) for _ in range(spatial_dims)))
        assert (maps[stride][every] - maps[32]).abs().max() < 1e-10 * maps[32].abs().max()


def test_poolings_of_two_cannot_keep_a_grid():
    encoder = ENCODERS["vgg11"](2, 1, width=1, pool_kernel=2)
    with pytest.raises(ValueError, match="needs pool_kernel 3"):
        encoder.set_output_stride(8)


def test_thick_slices_are_pooled_late_and_with_flat_kernels():
    strides = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    encoder = ENCODERS["vgg11"](3, 1, width=1, strides=strides)
    assert encoder.grids == [(1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32)]
    kernels = [stage[0].kernel_size for stage in encoder.stages]
    assert kernels == [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert encoder.pools[0].kernel_size == (1, 3, 3)
    encoder.set_output_stride(8)
    assert encoder.grids[-1] == (2, 8, 8)
