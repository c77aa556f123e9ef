"""What every encoder of ours promises; a new one is tested by being registered."""

import pytest
import torch
from torch import nn

from medseg.networks import NETWORKS
from medseg.networks.encoders import ENCODERS, make_encoder

ALIGNED = [name for name in ENCODERS if name != "timm"]
IN_3D = ["resnet10", "resnet50", "vgg11", "xception_s"]
CHOOSING = [
    name
    for name in NETWORKS
    if "encoder" in NETWORKS.settings(name) and NETWORKS.settings(name)["encoder"].annotation is str
]


def without_norms(encoder: nn.Module) -> nn.Module:
    """A group norm's statistics are of its own grid; nothing is left that sees the whole map."""
    for module in list(encoder.modules()):
        for key, part in list(module.named_children()):
            if isinstance(part, nn.GroupNorm):
                setattr(module, key, nn.Identity())
    return encoder.eval().double()


@pytest.mark.parametrize(
    ("name", "spatial_dims"), [*((name, 2) for name in ALIGNED), *((name, 3) for name in IN_3D)]
)
def test_finer_maps_contain_the_coarser_map_of_the_same_weights(name: str, spatial_dims: int):
    torch.manual_seed(0)
    encoder = without_norms(make_encoder(name, spatial_dims, 1, width=4))
    image = torch.randn(1, 1, *(129 if spatial_dims == 2 else 65,) * spatial_dims).double()
    maps = {}
    with torch.no_grad():
        for stride in (8, 16, 32):
            encoder.set_output_stride(stride)
            maps[stride] = encoder(image)[-1]
            assert encoder.grids[-1] == (stride,) * spatial_dims
    size = maps[32].abs().max()
    assert size > 0
    for stride, step in ((8, 4), (16, 2)):
        every = (..., *(slice(None, None, step) for _ in range(spatial_dims)))
        assert (maps[stride][every] - maps[32]).abs().max() < 1e-10 * size


@pytest.mark.parametrize("name", ALIGNED)
def test_maps_have_the_channels_and_grids_that_are_stated(name: str):
    with torch.device("meta"):
        encoder = make_encoder(name, 2, 3, width=16)
        image = torch.empty(1, 3, 70, 100)
    for stride in (8, 32):
        encoder.set_output_stride(stride)
        maps = encoder(encoder.pad(image))
        assert tuple(m.shape[1] for m in maps) == encoder.channels
        size = encoder.padded_size(image)
        for features, grid in zip(maps, encoder.grids, strict=True):
            cells = tuple((n - 1) // g + 1 for n, g in zip(size, grid, strict=True))
            assert tuple(features.shape[2:]) == encoder.cells(size, grid) == cells


@pytest.mark.parametrize("name", IN_3D)
def test_a_thick_axis_is_halved_late_and_has_flat_kernels_until_then(name: str):
    strides = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    encoder = without_norms(make_encoder(name, 3, 1, width=4, strides=strides))
    assert encoder.grids == [(1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32)]
    image = torch.randn(1, 1, 9, 33, 33, dtype=torch.float64, requires_grad=True)
    maps = encoder(image)
    assert tuple(maps[0].shape[2:]) == (9, 17, 17)
    maps[0][0, :, 4].sum().backward()
    reached = image.grad[0, 0].abs().sum((1, 2)).nonzero().flatten().tolist()
    assert reached == [4], "kernels are flat until the axis is halved"


@pytest.mark.parametrize("encoder", ["resnet10", "vgg11", "xception_s"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("network", CHOOSING)
def test_a_network_that_lets_choose_takes_each(network: str, spatial_dims: int, encoder: str):
    built = NETWORKS.build(network, spatial_dims, 1, 3, encoder=encoder, encoder_width=8).eval()
    size = (41, 22, 17)[:spatial_dims]
    with torch.no_grad():
        assert built(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", ALIGNED)
def test_an_output_stride_that_no_halving_reaches_is_refused(name: str):
    encoder = make_encoder(name, 2, 1, width=8)
    before = encoder.grids
    with pytest.raises(ValueError, match="output_stride is 4, 8, 16 or 32, got 5"):
        encoder.set_output_stride(5)
    assert encoder.grids == before


@pytest.mark.parametrize("strides", [None, ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))])
@pytest.mark.parametrize("name", IN_3D)
def test_the_grid_of_an_output_stride_is_told_without_changing_to_it(name: str, strides):
    encoder = make_encoder(name, 3, 1, width=8, strides=strides)
    for stride in (4, 8, 16, 32):
        told = encoder.grid_at(stride)
        assert encoder.grids[-1] == encoder.grid_at(32)
        changed = make_encoder(name, 3, 1, width=8, strides=strides)
        changed.set_output_stride(stride)
        assert changed.grids[-1] == told


def test_a_setting_that_an_encoder_lacks_is_refused_under_the_name_it_has_in_a_network():
    with pytest.raises(ValueError, match=r'^multi_grid: not a setting of encoder "vgg11"'):
        make_encoder("vgg11", 2, 1, multi_grid=(1, 2, 4))
    with pytest.raises(ValueError, match=r'^encoder_width: not a setting of encoder "timm:'):
        make_encoder("timm:resnet18", 2, 1, width=8)
    with pytest.raises(ValueError, match=r'^encoder: "vgg11" has no models, got "vgg11:bn"'):
        make_encoder("vgg11:bn", 2, 1)
