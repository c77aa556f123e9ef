"""MS-D as the paper's words say it: the truth that the other backends are held to.

Ordinary PyTorch, one convolution a map: any device and dtype, autocast, any number of derivatives,
and what ``torch.export`` and ONNX can write down. Slow, and it keeps every copy it makes.
"""

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from medseg.networks.mixed_scale_dense.plan import Plan

_CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def forward(
    plan: Plan, image: Tensor, weights: Tensor, biases: Tensor, head: Tensor, head_bias: Tensor
) -> Tensor:
    """Return the logits, (batch, classes, *spatial).

    Args:
        plan: The network's shape.
        image: (batch, in_channels, *spatial).
        weights: All kernels, flat.
        biases: Of each map.
        head: (classes, planes).
        head_bias: (classes,).
    """
    filters = plan.filters(weights)
    features = image
    for first in range(0, plan.maps, plan.width):
        layer = range(first, min(first + plan.width, plan.maps))
        new = [_map(plan, m, features, filters[m], biases[m : m + 1]) for m in layer]
        features = torch.cat([features, *new], dim=1)
    pointwise = head.reshape(*head.shape, *(1,) * plan.spatial_dims)
    return _CONVOLVE[plan.spatial_dims](features, pointwise, head_bias)


def _map(plan: Plan, m: int, features: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    reach = plan.reach(m, features.shape[2:])
    convolve = _CONVOLVE[plan.spatial_dims]
    if plan.reflect:
        margins = [d for d in reversed(reach) for _ in range(2)]
        padded = F.pad(features, margins, mode="reflect")
        return torch.relu(convolve(padded, kernel[None], bias, dilation=reach))
    return torch.relu(convolve(features, kernel[None], bias, padding=reach, dilation=reach))
