"""What the backends without margins begin and end with: planes, (planes, batch, *spatial)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.networks.mixed_scale_dense.plan import Plan


def planes_shape(plan: Plan, batch: int, size: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which the planes are kept for the gradient."""
    return (plan.planes, batch, *size)


def lay_out(plan: Plan, image: Tensor) -> Tensor:
    """Return the planes, in the image's dtype: its channels, and room for the maps."""
    planes = image.new_empty(planes_shape(plan, image.shape[0], image.shape[2:]))
    planes[: plan.in_channels] = image.transpose(0, 1)
    return planes


def logits(planes: Tensor, head: Tensor, head_bias: Tensor) -> Tensor:
    """Return the logits, (batch, classes, *spatial), in the head's dtype."""
    found = torch.addmm(head_bias[:, None], head, planes.flatten(1).to(head.dtype))
    return found.reshape(len(head), *planes.shape[1:]).transpose(0, 1).contiguous()


def through_head(slope: Tensor, planes: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the gradient of the logits gives: those of the planes, the head and its bias.

    All have the head's dtype. The gradient of the planes is the head's part of it alone.
    """
    flat = slope.transpose(0, 1).flatten(1)
    head_slope = flat @ planes.flatten(1).to(head.dtype).T
    return (head.T @ flat).reshape(planes.shape), head_slope, flat.sum(1)


def image_slope(plan: Plan, slopes: Tensor) -> Tensor:
    """Return the image's part of the planes' gradient, as memory of its own."""
    part = slopes[: plan.in_channels].transpose(0, 1)
    return part.clone(memory_format=torch.contiguous_format)
