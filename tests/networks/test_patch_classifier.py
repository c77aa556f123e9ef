"""What only the sliding-window classifier promises."""

import time

import pytest
import torch

from medseg.networks import PatchClassifier


def tiny(spatial_dims: int = 2, **settings) -> PatchClassifier:
    torch.manual_seed(0)
    settings = {"patch_size": 11, "channels": (4, 6), "fc": 8, **settings}
    return PatchClassifier(spatial_dims, 2, 3, **settings).eval()


def largest_difference(network: PatchClassifier, size: tuple[int, ...]) -> float:
    torch.manual_seed(1)
    image = torch.randn(2, 2, *size)
    with torch.no_grad():
        dense, naive = network(image), network.predict_naive(image)
    assert dense.shape == naive.shape == (2, 3, *size)
    assert naive.std() > 0.1
    return float((dense - naive).abs().max())


@pytest.mark.parametrize("size", [(16, 13), (7, 1), (1, 1), (3, 30)])
@pytest.mark.parametrize("patch", [5, 11, 13, 15, 17])
def test_all_at_once_is_one_by_one_at_every_pixel(size: tuple[int, int], patch: int):
    network = tiny(patch_size=patch, channels=(4, 6) if patch > 5 else (4,))
    assert largest_difference(network, size) < 1e-5


def test_three_levels_are_the_same_too():
    assert largest_difference(tiny(patch_size=33, channels=(4, 4, 6)), (19, 23)) < 1e-5


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (5.0, 1.0, 1.0)])
def test_all_at_once_is_one_by_one_in_volumes(spacing: tuple[float, ...] | None):
    assert largest_difference(tiny(3, spacing=spacing), (7, 6, 5)) < 1e-5


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_norm_of_each_voxel_keeps_them_the_same(spatial_dims: int):
    network = tiny(spatial_dims, norm="position").train()
    assert largest_difference(network, (6, 7, 5)[:spatial_dims]) < 1e-5


def test_one_pass_for_each_of_100_x_100_pixels():
    network = PatchClassifier(2, 1, 2, patch_size=5, channels=(2,), fc=2)
    passes = []
    network.head.register_forward_hook(lambda _, given, __: passes.append(given[0].shape[0]))
    network.predict_naive(torch.zeros(1, 1, 100, 100), passes=999)
    assert sum(passes) == 10_000
    assert max(passes) == 999


@pytest.mark.parametrize("patch", [5, 11, 13, 15, 33])
def test_a_pixel_sees_its_patch_exactly(patch: int):
    network = tiny(patch_size=patch, channels=(2, 2) if patch > 5 else (2,)).double()
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(0.1)
    image = torch.ones(1, 2, 41, 41, dtype=torch.float64, requires_grad=True)
    (reached,) = torch.autograd.grad(network(image)[0, 0, 20, 20], image)
    half = patch // 2
    expected = torch.zeros(41, 41, dtype=torch.bool)
    expected[20 - half : 21 + half, 20 - half : 21 + half] = True
    assert torch.equal(reached[0, 0] > 0, expected)
    assert network.receptive_field() == (patch, patch)


def test_a_pixel_outside_the_window_never_matters():
    network = tiny()
    torch.manual_seed(1)
    image = torch.randn(1, 2, 30, 30)
    changed = torch.randn(1, 2, 30, 30)
    changed[..., 10:21, 10:21] = image[..., 10:21, 10:21]
    with torch.no_grad():
        assert torch.equal(network(changed)[..., 15, 15], network(image)[..., 15, 15])
        assert not torch.equal(network(changed)[..., 15, 16], network(image)[..., 15, 16])


def test_a_33_voxel_patch_is_used_up_by_kernels_of_4_3_3_and_2():
    # 33 - 3 = 30, 15; 15 - 3 = 12, 6; 6 - 2 = 4, 2.
    with torch.device("meta"):
        network = PatchClassifier(2, 1, 2)
    assert [conv.kernel_size[0] for conv in network.convs] == [4, 4, 3]
    assert [conv.dilation[0] for conv in network.convs] == [1, 2, 4]
    assert (network.fc.kernel_size, network.fc.dilation) == ((2, 2), (8, 8))


def test_thick_slices_are_pooled_late_and_patches_equally_long():
    with torch.device("meta"):
        network = PatchClassifier(3, 1, 2, patch_size=33, spacing=(5.0, 1.0, 1.0))
        longest = PatchClassifier(3, 1, 2, patch_size=(1, 33, 33))
    assert network.patch_size == (7, 33, 33)  # 7 x 5 = 35
    assert network.strides == [(1, 2, 2), (1, 2, 2), (2, 2, 2)]
    assert [conv.kernel_size for conv in network.convs] == [(1, 4, 4), (1, 4, 4), (4, 3, 3)]
    assert network.fc.kernel_size == (2, 2, 2)  # 7 - 3 = 4, 2
    assert longest.strides == [(1, 2, 2)] * 3


def test_checkpoints_give_the_same_gradient():
    torch.manual_seed(1)
    image = torch.randn(1, 2, 12, 15)
    gradients = []
    for checkpoint in (False, True):
        network = tiny(checkpoint=checkpoint).train()
        network(image).square().sum().backward()
        gradients.append([weights.grad for weights in network.parameters()])
    for there, here in zip(*gradients, strict=True):
        torch.testing.assert_close(here, there)


def test_all_at_once_is_much_quicker():
    network = tiny(patch_size=33, channels=(8, 8, 8))
    image = torch.randn(1, 2, 64, 64)
    seconds = []
    for predict in (network, network.predict_naive):
        start = time.process_time()
        with torch.no_grad():
            predict(image)
        seconds.append(time.process_time() - start)
    assert seconds[0] < seconds[1] / 3


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="odd"):
        tiny(patch_size=18)
    with pytest.raises(ValueError, match="or 2 of them"):
        tiny(patch_size=(11, 11, 11))
    with pytest.raises(ValueError, match=r"\(9, 9\).*2 poolings.*needs 11"):
        tiny(patch_size=9)
    assert tiny(patch_size=23, channels=(2, 2, 2)).fc.kernel_size == (1, 1)
    with pytest.raises(ValueError, match="needs 23"):
        tiny(patch_size=21, channels=(2, 2, 2))
    with pytest.raises(ValueError, match="spacing"):
        tiny(spacing=(1.0, 1.0, 1.0))
