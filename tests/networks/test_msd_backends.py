"""Every backend of MS-D computes what ``reference`` does."""

from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg.networks import MSDNet
from medseg.networks.mixed_scale_dense import backend_states

RUNS = {state.name: state for state in backend_states()}


def other(name: str):
    """A backend as a test's parameter; skipped, with its reason, where it doesn't run."""
    return pytest.param(
        name, marks=pytest.mark.skipif(not RUNS[name].runs, reason=RUNS[name].reason)
    )


both = pytest.mark.parametrize("backend", [other("torch"), other("cpu")])


def pair(spatial_dims: int, backend: str, **settings) -> tuple[MSDNet, MSDNet]:
    """The reference and another backend with the same weights, none of them zero."""
    torch.manual_seed(0)
    reference = MSDNet(spatial_dims, 2, 3, backend="reference", **settings).double()
    for key, weights in reference.named_parameters():
        connections = reference.depth * reference.width * 3**spatial_dims
        nn.init.normal_(weights, std=connections**-0.5 if "filters" in key else 0.2)
    network = MSDNet(spatial_dims, 2, 3, backend=backend, **settings).double()
    network.load_state_dict(reference.state_dict())
    return reference, network


def slopes(network: MSDNet, image: Tensor) -> dict[str, Tensor]:
    image = image.clone().requires_grad_()
    logits = network(image)
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (logits * factors.to(logits.dtype)).sum().backward()
    found = {key: weights.grad for key, weights in network.named_parameters()}
    return {**found, "image": image.grad, "logits": logits.detach()}


def assert_same(expected: dict[str, Tensor], found: dict[str, Tensor], tolerance: float) -> None:
    """Outputs and all gradients agree to a tolerance of each one's largest number."""
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        worst = (found[key] - values).abs().max()
        assert worst <= tolerance * values.abs().max() + 1e-30, f"{key}: {worst}"


@st.composite
def configurations(draw: st.DrawFn) -> tuple[tuple[int, ...], dict]:
    """The size of an image, batch first, and the settings of a network."""
    spatial_dims = draw(st.sampled_from([2, 3]))
    reflect = draw(st.booleans())
    width = draw(st.integers(1, 4))
    longest = 40 if spatial_dims == 2 else 12
    size = [draw(st.integers(2 if reflect else 1, longest)) for _ in range(spatial_dims)]
    step = st.integers(1, 12)
    dilation = step | st.lists(step, min_size=spatial_dims, max_size=spatial_dims)
    return (draw(st.integers(1, 3)), *size), {
        "depth": draw(st.integers(1, (24 if spatial_dims == 2 else 12) // width)),
        "width": width,
        "dilations": draw(st.none() | st.lists(dilation, min_size=1, max_size=4)),
        "padding_mode": "reflect" if reflect else "zeros",
    }


@both
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(configurations())
def test_logits_and_gradients_are_those_of_the_reference(backend: str, configuration):
    size, chosen = configuration
    reference, network = pair(len(size) - 1, backend, **chosen)
    generator = torch.Generator().manual_seed(prod(size))
    image = torch.randn(size[0], 2, *size[1:], generator=generator, dtype=torch.float64)
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
