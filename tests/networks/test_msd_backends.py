"""Every backend of MS-D computes what ``reference`` does."""

from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from msd_pairs import assert_same, configurations, pair, slopes
from torch import Tensor

from medseg.networks.mixed_scale_dense import backend_states

RUNS = {state.name: state for state in backend_states()}


def other(name: str):
    """A backend as a test's parameter; skipped, with its reason, where it doesn't run."""
    return pytest.param(
        name, marks=pytest.mark.skipif(not RUNS[name].runs, reason=RUNS[name].reason)
    )


both = pytest.mark.parametrize("backend", [other("torch"), other("cpu")])


@both
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(configurations())
def test_logits_and_gradients_are_those_of_the_reference(backend: str, configuration):
    shape, chosen = configuration
    reference, network = pair(len(shape) - 2, backend, in_channels=shape[1], **chosen)
    generator = torch.Generator().manual_seed(prod(shape))
    image = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = slopes(reference, image)
    assert_same(expected, slopes(network, image), 1e-10)
    network.zero_grad()
    single = slopes(network.float(), image.float())
    # Of a ReLU's inputs some are so close to 0 that rounding decides: outputs don't mind, a slope
    # does. Where float32 lands on the same sides, it agrees to float32.
    assert_same({"logits": expected["logits"]}, {"logits": single["logits"].double()}, 1e-4)
    reference.zero_grad()
    assert_same(slopes(reference.float(), image.float()), single, 1e-4)


@both
@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        ((1, 64, 150), {"depth": 45}),
        ((2, 7, 8), {"depth": 3, "width": 13, "dilations": (3, 1, 10, 2)}),
        ((1, 2, 5), {"depth": 11}),
        ((2, 3, 300), {"depth": 12, "dilations": ((1, 20), (2, 3))}),
        ((1, 20, 9, 33), {"depth": 12}),
        ((1, 6, 30, 31), {"depth": 14, "dilations": ((1, 4, 4), (1, 8, 8), (1, 1, 1))}),
    ],
)
def test_larger_and_odd_images(backend: str, size, chosen):
    for padding_mode in ("reflect", "zeros"):
        reference, network = pair(len(size) - 1, backend, padding_mode=padding_mode, **chosen)
        image = torch.randn(size[0], 2, *size[1:], dtype=torch.float64)
        assert_same(slopes(reference, image), slopes(network, image), 1e-10)


@both
def test_the_gradient_is_that_of_finite_differences(backend: str):
    for spatial_dims in (2, 3):
        _, network = pair(spatial_dims, backend, depth=3, dilations=(1, 3))
        parameters = dict(network.named_parameters())

        def logits(image: Tensor, *weights: Tensor, network=network, names=tuple(parameters)):
            own = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(network, own, image)

        image = torch.randn(1, 2, *(3, 4, 5)[-spatial_dims:], dtype=torch.float64)
        image.requires_grad_()
        assert torch.autograd.gradcheck(logits, (image, *parameters.values()))


@both
def test_threads_change_nothing_but_rounding(backend: str):
    _, network = pair(2, backend, depth=12)
    image = torch.randn(2, 2, 33, 40, dtype=torch.float64)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        network.zero_grad()
        found.append(slopes(network, image))
    torch.set_num_threads(before)
    assert_same(found[0], found[1], 1e-12)
    assert_same(found[0], found[2], 1e-12)


@both
def test_channels_last_and_strided_images_give_the_same(backend: str):
    reference, network = pair(2, backend, depth=12)
    wide = torch.randn(2, 4, 30, 44, dtype=torch.float64)
    for image in (
        wide[:, 1:3].contiguous(memory_format=torch.channels_last),
        wide[:, ::2, ::3, 5:-2],
        wide[:, :2].transpose(2, 3),
        wide[:1, :1].expand(3, 2, -1, -1),
    ):
        assert_same(slopes(reference, image), slopes(network, image), 1e-10)


@both
def test_a_slope_may_be_strided_and_weights_frozen(backend: str):
    _, network = pair(2, backend, depth=12)
    network.requires_grad_(False)
    image = torch.randn(1, 2, 8, 9, dtype=torch.float64, requires_grad=True)
    network(image)[:, 1:2].expand(-1, 2, -1, -1).transpose(2, 3).sum().backward()
    assert image.grad.any()
