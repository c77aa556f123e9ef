"""The GPU kernels of MS-D compute what ``reference`` does.

Where there is no GPU, ``TRITON_INTERPRET=1`` runs them on the CPU, slowly: small images only. The
configurations that are drawn are 200 on a GPU; in the interpreter 3 small ones.
"""

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg.networks import MSDNet
from medseg.networks.mixed_scale_dense import gpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(gpu.obstacle()), reason=gpu.obstacle() or "runs"),
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EXAMPLES, LONGEST, DEEPEST = (200, 40, 24) if DEVICE == "cuda" else (3, 4, 4)


def pair(spatial_dims: int, **settings) -> tuple[MSDNet, MSDNet]:
    torch.manual_seed(0)
    reference = MSDNet(spatial_dims, 2, 3, backend="reference", **settings).to(DEVICE)
    for weights in reference.parameters():
        nn.init.normal_(weights, std=0.2)
    network = MSDNet(spatial_dims, 2, 3, backend="triton", **settings).to(DEVICE)
    network.load_state_dict(reference.state_dict())
    return reference, network


def slopes(network: MSDNet, image: Tensor) -> dict[str, Tensor]:
    image = image.clone().requires_grad_()
    logits = network(image)
    logits.float().square().sum().backward()
    found = {key: weights.grad for key, weights in network.named_parameters()}
    return {**found, "image": image.grad, "logits": logits.detach()}


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 5, 4), {"depth": 3, "dilations": (1, 3)}),
        ((2, 4, 5), {"depth": 18, "dilations": (2,)}),
        ((1, 3, 4, 3), {"depth": 2, "dilations": ((1, 2, 3),)}),
    ],
)
def test_logits_and_gradients_are_those_of_the_reference(size, settings, padding_mode, monkeypatch):
    monkeypatch.setattr(gpu, "_CHUNK", 1)
    reference, network = pair(len(size) - 1, padding_mode=padding_mode, **settings)
    image = torch.randn(size[0], 2, *size[1:], device=DEVICE)
    assert_same(slopes(reference, image), slopes(network, image))


def assert_same(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for key, values in expected.items():
        assert (found[key] - values).abs().max() <= 1e-4 * values.abs().max() + 1e-6, key


@st.composite
def configurations(draw: st.DrawFn) -> tuple[tuple[int, ...], dict]:
    """The size of an image, batch first, and the settings of a network."""
    spatial_dims = draw(st.sampled_from([2, 3]))
    reflect, width = draw(st.booleans()), draw(st.integers(1, 3))
    size = [draw(st.integers(2 if reflect else 1, LONGEST)) for _ in range(spatial_dims)]
    step = st.integers(1, 7)
    dilation = step | st.lists(step, min_size=spatial_dims, max_size=spatial_dims)
    return (draw(st.integers(1, 2)), *size), {
        "depth": draw(st.integers(1, max(DEEPEST // (spatial_dims - 1) // width, 1))),
        "width": width,
        "dilations": draw(st.none() | st.lists(dilation, min_size=1, max_size=3)),
        "padding_mode": "reflect" if reflect else "zeros",
    }


@how(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(configurations(), st.sampled_from(["contiguous", "channels last", "strided"]))
def test_drawn_configurations_are_those_of_the_reference(configuration, layout: str):
    size, settings = configuration
    reference, network = pair(len(size) - 1, **settings)
    image = torch.randn(size[0], 2, *size[1:], device=DEVICE)
    if layout == "channels last":
        last = {4: torch.channels_last, 5: torch.channels_last_3d}[image.dim()]
        image = image.contiguous(memory_format=last)
    elif layout == "strided":
        image = image.repeat_interleave(2, -1)[..., ::2]
    assert_same(slopes(reference, image), slopes(network, image))


def test_planes_are_bfloat16_under_autocast_and_sums_are_not(monkeypatch):
    monkeypatch.setattr(gpu, "_CHUNK", 1)
    reference, network = pair(2, depth=3)
    image = torch.randn(1, 2, 5, 4, device=DEVICE)
    expected = slopes(reference, image)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = slopes(network, image)
    assert found["logits"].dtype == torch.float32
    for key, values in expected.items():
        assert (found[key] - values).abs().max() <= 0.05 * values.abs().max() + 1e-3, key
