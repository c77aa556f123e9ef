"""What only the plain fully convolutional network promises."""

import pytest
import torch
from torch import nn

from medseg.networks import PlainFCN


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def saved_numbers(network: PlainFCN, image: torch.Tensor) -> int:
    """How many activations a training step keeps for its gradient, shared memory counted once."""
    kept: dict[int, int] = {}
    weights = {w.data_ptr() for w in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network.train()(image)
    del logits
    return sum(kept.values())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("channels", "depth", "kernel"), [(32, 8, 3), (5, 3, 3), (4, 1, 5)])
def test_the_parameters_are_those_of_the_formula(
    spatial_dims: int, channels: int, depth: int, kernel: int
):
    with torch.device("meta"):
        network = PlainFCN(spatial_dims, 3, 4, channels=channels, depth=depth, kernel_size=kernel,
                           norm="none")  # fmt: skip
    taps = kernel**spatial_dims
    first = taps * 3 * channels + channels
    others = (depth - 1) * (taps * channels**2 + channels)
    assert count(network) == first + others + channels * 4 + 4


@pytest.mark.parametrize(("depth", "sees"), [(3, 7), (6, 13), (10, 21)])
def test_it_sees_twice_its_depth_and_one(depth: int, sees: int):
    network = PlainFCN(2, 1, 1, channels=2, depth=depth, norm="none").double()
    for weights in network.parameters():
        nn.init.constant_(weights, 0.1)
    image = torch.ones(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    (reached,) = torch.autograd.grad(network(image)[0, 0, 15, 15], image)
    expected = torch.zeros(31, 31, dtype=torch.bool)
    expected[15 - depth : 16 + depth, 15 - depth : 16 + depth] = True
    assert torch.equal(reached[0, 0] > 0, expected)
    assert network.receptive_field() == (sees, sees)


def test_there_is_no_dilation_and_no_stride():
    with torch.device("meta"):
        convolutions = [m for m in PlainFCN(3, 1, 2).modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 9
    assert all(m.dilation == m.stride == (1, 1, 1) for m in convolutions)


@pytest.mark.parametrize("shift", [(1, 0), (3, 5), (4, 7)])
def test_any_shift_of_the_image_shifts_the_interior_exactly(shift: tuple[int, int]):
    torch.manual_seed(0)
    network = PlainFCN(2, 1, 2, channels=4, depth=4, norm="none").eval().double()
    image = torch.randn(1, 1, 40, 41, dtype=torch.float64)
    with torch.no_grad():
        before = network(image).roll(shift, dims=(2, 3))
        after = network(image.roll(shift, dims=(2, 3)))
    inside = (..., slice(12, 36), slice(12, 37))
    torch.testing.assert_close(after[inside], before[inside], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1, 3)])
def test_an_image_may_be_one_voxel_wide(size: tuple[int, ...]):
    network = PlainFCN(len(size), 1, 2, channels=4, depth=2)
    assert network(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_the_maps_kept_for_the_gradient_grow_linearly_with_the_depth():
    image = torch.randn(1, 1, 16, 20)
    three, six, nine = (
        saved_numbers(PlainFCN(2, 1, 2, channels=4, depth=depth, norm="none"), image)
        for depth in (3, 6, 9)
    )
    assert six - three == nine - six == 3 * 4 * 16 * 20


def test_checkpoints_keep_fewer_maps_and_give_the_same_gradient():
    image = torch.randn(1, 1, 16, 20)
    gradients, kept = [], []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        network = PlainFCN(2, 1, 2, channels=4, depth=9, checkpoint=checkpoint).train()
        kept.append(saved_numbers(network, image))
        network(image).square().sum().backward()
        gradients.append([weights.grad for weights in network.parameters()])
    # The image and a map after each three of nine layers.
    assert kept[1] == (1 + 3 * 4) * 16 * 20 < kept[0] / 2
    for there, here in zip(*gradients, strict=True):
        torch.testing.assert_close(here, there)


def test_checkpoints_with_a_batch_norm_are_refused():
    with pytest.raises(ValueError, match="count every image twice"):
        PlainFCN(2, 1, 2, norm="batch", checkpoint=True)


def test_thick_slices_are_looked_across_by_one_layer_in_five():
    torch.manual_seed(0)
    network = PlainFCN(3, 1, 2, channels=4, depth=10, spacing=(5.0, 1.0, 1.0))
    across = [layer[0].kernel_size for layer in network.layers]
    assert [kernel[0] for kernel in across] == [1, 1, 1, 1, 3, 1, 1, 1, 1, 3]
    assert all(kernel[1:] == (3, 3) for kernel in across)
    assert network.receptive_field() == (5, 21, 21)
    assert network(torch.randn(1, 1, 3, 12, 9)).shape == (1, 2, 3, 12, 9)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="depth"):
        PlainFCN(2, 1, 2, depth=0)
    with pytest.raises(ValueError, match="odd"):
        PlainFCN(2, 1, 2, kernel_size=4)
    with pytest.raises(ValueError, match="2 positive lengths"):
        PlainFCN(2, 1, 2, spacing=(1.0, 1.0, 1.0))
