"""The blocked engine of MS-D computes what the plain one does."""

import pytest
import torch
from torch import Tensor, nn

from medseg.networks import MSDNet


def pair(spatial_dims: int, **settings) -> tuple[MSDNet, MSDNet]:
    """Both engines with the same weights, none of them zero."""
    torch.manual_seed(0)
    plain = MSDNet(spatial_dims, 2, 3, engine="plain", **settings).double()
    for weights in plain.parameters():
        nn.init.normal_(weights, std=0.2)
    blocked = MSDNet(spatial_dims, 2, 3, engine="blocked", **settings).double()
    blocked.load_state_dict(plain.state_dict())
    return plain, blocked


def slopes(network: MSDNet, image: Tensor) -> dict[str, Tensor]:
    image = image.clone().requires_grad_()
    logits = network(image)
    generator = torch.Generator().manual_seed(3)
    (logits * torch.randn(logits.shape, generator=generator, dtype=logits.dtype)).sum().backward()
    found = {key: weights.grad for key, weights in network.named_parameters()}
    return {**found, "image": image.grad, "logits": logits.detach()}


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 19, 26), {"depth": 23}),
        ((2, 9, 12), {"depth": 12, "width": 2}),
        ((2, 7, 8), {"depth": 5, "width": 13, "dilations": (3, 1, 10, 2)}),
        ((1, 2, 5), {"depth": 11}),
        ((1, 11, 3), {"depth": 1, "dilations": (4,)}),
        ((1, 8, 7, 9), {"depth": 8}),
        ((2, 5, 3, 4), {"depth": 4, "width": 2, "dilations": (2, 7, 1)}),
    ],
)
def test_logits_and_gradients_are_those_of_the_plain_engine(size, settings, padding_mode: str):
    plain, blocked = pair(len(size) - 1, padding_mode=padding_mode, **settings)
    image = torch.randn(size[0], 2, *size[1:], dtype=torch.float64)
    expected, found = slopes(plain, image), slopes(blocked, image)
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=1e-10, atol=1e-10, msg=key)


def test_the_gradient_is_that_of_finite_differences():
    _, blocked = pair(2, depth=3, dilations=(1, 3))
    image = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(blocked, (image,))


def test_single_precision_agrees_to_single_precision():
    plain, blocked = (network.float() for network in pair(2, depth=30))
    image = torch.randn(1, 2, 40, 33)
    expected, found = slopes(plain, image), slopes(blocked, image)
    for key, values in expected.items():
        assert (found[key] - values).abs().max() < 1e-4 * values.abs().max(), key


def test_half_precision_inside_does_not_reach_the_features():
    _, blocked = pair(2, depth=12)
    blocked = blocked.float()
    image = torch.randn(1, 2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = blocked(image)
    torch.testing.assert_close(logits, blocked(image))
    assert blocked(image.bfloat16()).dtype == torch.float32


def test_a_second_derivative_is_refused():
    _, blocked = pair(2, depth=2)
    image = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((blocked(image) ** 2).sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_frozen_weights_still_let_the_gradient_through():
    _, blocked = pair(2, depth=12)
    blocked.requires_grad_(False)
    image = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    blocked(image).sum().backward()
    assert image.grad.any()
