"""What only residual encoders promise."""

import pytest
import torch
from torch import nn

from medseg.networks.encoders import ENCODERS


def count(encoder: nn.Module) -> int:
    return sum(weights.numel() for weights in encoder.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
    ],
)
def test_weights_are_the_published_ones_without_the_classifier(name: str, expected: int):
    with torch.device("meta"):
        assert count(ENCODERS[name](2, 3, norm="batch")) == expected


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_finer_maps_contain_the_coarser_map_with_multi_grid_too(name: str, spatial_dims: int):
    torch.manual_seed(0)
    settings = {"width": 4, "multi_grid": (1, 2, 4), "norm": "none"}
    encoder = ENCODERS[name](spatial_dims, 1, **settings).eval().double()
    image = torch.randn(1, 1, *(129 if spatial_dims == 2 else 65,) * spatial_dims).double()
    maps = {}
    with torch.no_grad():
        for stride in (8, 16, 32):
            encoder.set_output_stride(stride)
            maps[stride] = encoder(image)[-1]
    size = maps[32].abs().max()
    for stride, step in ((8, 4), (16, 2)):
        every = (..., *(slice(None, None, step) for _ in range(spatial_dims)))
        assert (maps[stride][every] - maps[32]).abs().max() < 1e-10 * size


@pytest.mark.parametrize("multi_grid", [(), (0,), (1, -2)])
def test_no_factors_and_those_below_one_are_refused(multi_grid: tuple[int, ...]):
    with pytest.raises(ValueError, match="multi_grid is one or more factors of 1 and up, got"):
        ENCODERS["resnet10"](2, 1, width=4, multi_grid=multi_grid)


@pytest.mark.parametrize(("deep_stem", "stem"), [(False, 16), (True, 32)])
def test_the_width_is_that_of_the_first_stage_whatever_the_stem(deep_stem: bool, stem: int):
    encoder = ENCODERS["resnet18"](2, 1, width=16, deep_stem=deep_stem)
    assert encoder.channels == (stem, 16, 32, 64, 128)
