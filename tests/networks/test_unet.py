"""What only the classic U-Net and its MONAI cousins promise."""

import pytest
import torch
from torch import nn

from medseg.networks import BasicUNet, DynUNet, UNetClassic


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def tiny(**settings) -> UNetClassic:
    torch.manual_seed(0)
    return UNetClassic(2, 1, 2, channels=(4, 8, 16), **settings).eval()


def test_the_published_network_has_31_million_parameters_and_no_norm():
    with torch.device("meta"):
        assert count(UNetClassic.paper(1, 2)) == 31_030_658
        network = UNetClassic.paper(1, 1)
    assert count(network) == 31_030_593
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 23


def test_the_published_3d_network_has_19_million_by_its_authors_count():
    with torch.device("meta"):
        network = UNetClassic.paper(3, 3, spatial_dims=3)
    counted = sum(count(m) for m in network.modules() if isinstance(m, nn.Conv3d))
    raising = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert counted + sum(m.weight.numel() for m in raising) == 19_069_955


def test_weights_start_normal_with_two_over_the_inputs():
    torch.manual_seed(0)
    network = UNetClassic(2, 1, 2, channels=(32, 64, 128))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 11
    for part in convolutions[1:]:  # the first has too few weights to judge
        inputs = part.weight[0].numel()
        assert part.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.15)
        assert part.bias is None or not part.bias.any()


def test_valid_convolutions_take_572_to_388_and_132_to_44():
    with torch.device("meta"):
        flat = UNetClassic.paper(1, 2)
        deep = UNetClassic.paper(3, 3, spatial_dims=3)
        assert flat.forward_valid(torch.empty(1, 1, 572, 572)).shape[2:] == (388, 388)
        assert flat.forward_valid(torch.empty(1, 1, 188, 204)).shape[2:] == (4, 20)
        assert deep.forward_valid(torch.empty(1, 3, 132, 132, 116)).shape[2:] == (44, 44, 28)
        with pytest.raises(ValueError, match=r"\[188, 188\].*\[16, 16\]"):
            flat.forward_valid(torch.empty(1, 1, 570, 572))
    with pytest.raises(ValueError, match="valid"):
        tiny().forward_valid(torch.zeros(1, 1, 64, 64))


def test_a_valid_tile_equals_the_same_crop_of_the_whole_image():
    network = tiny(padding="valid", norm="none")
    torch.manual_seed(1)
    image = torch.randn(1, 1, 100, 84)
    with torch.no_grad():
        whole = network.forward_valid(image)
        tile = network.forward_valid(image[..., 8:76, 12:64])
    torch.testing.assert_close(tile, whole[..., 8:36, 12:24], rtol=0, atol=1e-5)


def test_valid_logits_cover_the_image_mirrored_beyond_its_edges():
    network = tiny(padding="valid", norm="none")
    torch.manual_seed(1)
    image = torch.randn(1, 1, 30, 41)
    (top, bottom), (left, right) = network.valid_margins((30, 41))
    mirrored = nn.functional.pad(image, (left, right, top, bottom), mode="reflect")
    with torch.no_grad():
        inside = network.forward_valid(mirrored)[..., :30, :41]
        torch.testing.assert_close(network(image), inside)


def test_small_images_are_mirrored_to_and_fro():
    assert tiny(padding="valid")(torch.randn(1, 1, 5, 1)).shape == (1, 2, 5, 1)


def test_every_skip_reaches_the_output_beside_what_comes_from_below():
    network = tiny(norm="none")
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        before = network(image)
        for level, merge in enumerate(reversed(network.merge)):
            first = merge[0]
            wide = (4, 8)[level]
            assert first.weight.shape[1] == 2 * wide
            kept = first.weight.clone()
            first.weight[:, :wide] = 0
            assert not torch.equal(network(image), before)
            first.weight.copy_(kept)


def test_strides_follow_the_spacing_and_flat_kernels_the_strides():
    network = UNetClassic(3, 1, 2, channels=(4, 8, 8, 8), spacing=(5, 1, 1))
    assert network.strides == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert network.output_stride == (2, 8, 8)
    assert network.down[0][0][0].kernel_size == (1, 3, 3)
    assert network(torch.randn(1, 1, 3, 30, 17)).shape == (1, 2, 3, 30, 17)
    set_by_hand = UNetClassic(2, 1, 2, channels=(4, 8), strides=[[1, 2]], spacing=(1, 1))
    assert set_by_hand.strides == ((1, 2),)


def test_the_linear_way_up_works_too():
    assert tiny(up="linear")(torch.randn(1, 1, 21, 18)).shape == (1, 2, 21, 18)


@pytest.mark.parametrize("norm", ["auto", "batch", "group", "instance", "none"])
def test_every_norm_trains_on_one_tiny_image(norm: str):
    network = tiny(norm=norm).train()
    network(torch.randn(1, 1, 3, 3)).sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in network.parameters())


def test_dropout_is_at_the_two_deepest_levels_only():
    rates = [down[1].p for down in tiny(dropout=0.5).down]
    assert rates == [0.0, 0.5, 0.5]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="two levels"):
        UNetClassic(2, 1, 2, channels=(8,))
    with pytest.raises(ValueError, match="2 numbers each"):
        UNetClassic(2, 1, 2, channels=(8, 8), strides=[[2, 2, 2]])
    with pytest.raises(ValueError, match="deep_supervision"):
        UNetClassic(2, 1, 2, padding="valid", deep_supervision=True)


def test_basicunet_has_six_numbers_of_channels():
    with pytest.raises(ValueError, match="five levels"):
        BasicUNet(2, 1, 2, channels=(8, 8))
    assert BasicUNet(2, 1, 2, norm="group", up="linear")(torch.randn(1, 1, 20, 9)).shape[2:] == (
        20,
        9,
    )


def test_nnunets_3d_network_has_31_million_parameters():
    with torch.device("meta"):
        assert count(DynUNet.paper()) == pytest.approx(31.2e6, rel=0.01)


def test_dynunet_supervises_all_levels_but_the_deepest():
    network = DynUNet(3, 1, 2, patch_voxels=(40, 56, 40), channels=(4, 8, 8, 8), residual=True)
    assert len(network.strides) == 4
    supervised = DynUNet(
        2, 1, 2, patch_voxels=(56, 40), channels=(4, 8, 8, 8), deep_supervision=True
    )
    assert [o.shape[2] for o in supervised(torch.randn(1, 1, 56, 40))] == [56, 28, 14]


def test_dynunet_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="twice or more, here 1 times"):
        DynUNet(2, 1, 2, patch_voxels=(12, 12))
    with pytest.raises(ValueError, match="2 of kernels"):
        DynUNet(2, 1, 2, patch_voxels=(64, 64), kernels=[[3, 3]] * 2)
    with pytest.raises(ValueError, match="3 of channels"):
        DynUNet(2, 1, 2, patch_voxels=(64, 64), channels=(8, 8, 8))
    with pytest.raises(ValueError, match="strides have 2 numbers"):
        DynUNet(2, 1, 2, strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]])
