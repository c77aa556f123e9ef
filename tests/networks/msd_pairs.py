"""A network of MS-D by two backends, and what both have to agree in."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg.networks import MSDNet
from medseg.networks.mixed_scale_dense import Backend


@st.composite
def configurations(
    draw: st.DrawFn,
    *,
    batch: int = 3,
    longest: tuple[int, int] = (40, 12),
    most: tuple[int, int] = (24, 12),
) -> tuple[tuple[int, ...], dict]:
    """The shape of an image, and the settings of a network.

    Args:
        batch: Most images.
        longest: Most voxels along a side, in 2D and 3D.
        most: Most maps, in 2D and 3D.
    """
    spatial_dims = draw(st.sampled_from([2, 3]))
    reflect = draw(st.booleans())
    maps = most[spatial_dims - 2]
    width = draw(st.integers(1, min(maps, 4)))
    side = st.integers(2 if reflect else 1, longest[spatial_dims - 2])
    step = st.integers(1, 12)
    dilation = step | st.lists(step, min_size=spatial_dims, max_size=spatial_dims)
    images, channels = draw(st.integers(1, batch)), draw(st.integers(1, 3))
    return (images, channels, *(draw(side) for _ in range(spatial_dims))), {
        "depth": draw(st.integers(1, maps // width)),
        "width": width,
        "dilations": draw(st.none() | st.lists(dilation, min_size=1, max_size=4)),
        "padding_mode": "reflect" if reflect else "zeros",
    }


def pair(
    spatial_dims: int, backend: Backend, *, in_channels: int = 2, **settings
) -> tuple[MSDNet, MSDNet]:
    """The reference and another backend with the same weights in float64, none of them zero."""
    torch.manual_seed(0)
    reference = MSDNet(spatial_dims, in_channels, 3, backend="reference", **settings).double()
    for key, weights in reference.named_parameters():
        connections = reference.depth * reference.width * 3**spatial_dims
        nn.init.normal_(weights, std=connections**-0.5 if "filters" in key else 0.2)
    network = MSDNet(spatial_dims, in_channels, 3, backend=backend, **settings).double()
    network.load_state_dict(reference.state_dict())
    return reference, network


def slopes(network: MSDNet, image: Tensor) -> dict[str, Tensor]:
    """The logits, and the gradients of the image and all parameters."""
    image = image.clone().requires_grad_()
    logits = network(image)
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (logits * factors.to(logits)).sum().backward()
    found = {key: weights.grad for key, weights in network.named_parameters()}
    return {**found, "image": image.grad, "logits": logits.detach()}


def assert_same(expected: dict[str, Tensor], found: dict[str, Tensor], tolerance: float) -> None:
    """Outputs and all gradients agree to a tolerance of each one's largest number."""
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        worst = (found[key] - values).abs().max()
        assert worst <= tolerance * values.abs().max() + 1e-30, f"{key}: {worst}"
