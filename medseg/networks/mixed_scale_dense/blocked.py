"""MS-D as a few large matrix products instead of many thin convolutions.

A dilated convolution is a sum of shifted planes, and shifting commutes with mixing channels: mix
first, then shift. So for a block of maps, one matrix product of their kernels' taps with all
earlier maps gives what these contribute; inside the block every map adds the little that its
nearest predecessors do; then each map is the sum of its taps' planes, each shifted by the dilation
and mirrored at the edges. The gradient runs the same way back.

Plain PyTorch: any device, no compiler. Of the planes only one copy is kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medseg.networks.mixed_scale_dense.plan import Plan
from medseg.networks.mixed_scale_dense.planes import (
    image_slope,
    lay_out,
    logits,
    planes_shape,
    through_head,
)

__all__ = ["backward", "forward", "planes_shape"]

_ROWS = 96  # of a block's matrix: 10 maps of 9 taps, 3 of 27


def forward(
    plan: Plan, image: Tensor, weights: Tensor, biases: Tensor, head: Tensor, head_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (batch, classes, *spatial), and all planes (planes, batch, *spatial)."""
    planes = lay_out(plan, image)
    _fill_maps(plan, planes, plan.filters(weights), biases)
    return logits(planes, head, head_bias), planes


def backward(
    plan: Plan, slope: Tensor, planes: Tensor, weights: Tensor, head: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of image, weights, biases, head and its bias.

    Args:
        plan: The network's shape.
        slope: The gradient of the logits.
        planes: As :func:`forward` returned them.
        weights: All kernels, flat.
        head: (classes, planes).
    """
    slopes, head_slope, head_bias = through_head(slope, planes, head)
    found = torch.empty_like(weights)
    biases = _backward_maps(plan, planes, slopes, plan.filters(weights), plan.filters(found))
    return image_slope(plan, slopes), found, biases, head_slope, head_bias


def _fill_maps(plan: Plan, planes: Tensor, filters: list[Tensor], biases: Tensor) -> None:
    """Compute the maps into their planes."""
    flat = planes.flatten(1)
    mixed = _buffer(plan, planes)
    for block in _blocks(plan):
        known = plan.known(block[0])
        rows = _taps(filters, block, known)
        torch.mm(rows, flat[:known], out=mixed[: len(rows)].flatten(1))
        for place, m in enumerate(block):
            before = plan.known(m)
            terms = mixed[place * plan.taps : (place + 1) * plan.taps]
            if before > known:
                near = _taps(filters, [m], before)[:, known:]
                terms.flatten(1).addmm_(near, flat[known:before])
            total = _gather(terms, plan.dilations[m], plan.reflect)
            torch.clamp(total.add_(biases[m]), min=0, out=planes[plan.in_channels + m])


def _backward_maps(
    plan: Plan, planes: Tensor, slopes: Tensor, filters: list[Tensor], found: list[Tensor]
) -> Tensor:
    """Return the gradient of the biases; fill ``found``, the kernels', and add to ``slopes``."""
    enters, taps = plan.in_channels, plan.taps
    flat, flat_slopes = planes.flatten(1), slopes.flatten(1)
    spread = _buffer(plan, planes)
    biases = planes.new_empty(plan.maps)
    for block in reversed(_blocks(plan)):
        known, last = plan.known(block[0]), plan.known(block[-1])
        rows = _taps(filters, block, known)
        for place, m in reversed(list(enumerate(block))):
            before = plan.known(m)
            delta = slopes[enters + m].mul_(planes[enters + m] > 0)
            biases[m] = delta.sum()
            terms = spread[place * taps : (place + 1) * taps]
            _scatter(delta, terms, plan.dilations[m], plan.reflect)
            if before > known:
                near = _taps(filters, [m], before)[:, known:]
                flat_slopes[known:before].addmm_(near.T, terms.flatten(1))
        spreads = spread[: len(rows)].flatten(1)
        flat_slopes[:known].addmm_(rows.T, spreads)
        met = spreads @ flat[:last].T
        for place, m in enumerate(block):
            own = met[place * taps : (place + 1) * taps, : plan.known(m)]
            found[m].copy_(own.T.reshape(found[m].shape))
    return biases


def _blocks(plan: Plan) -> list[range]:
    """Return the numbers of the maps that are computed together."""
    return list(plan.blocks(max(_ROWS // plan.taps, 1)))


def _buffer(plan: Plan, planes: Tensor) -> Tensor:
    """Return room for a plane of every tap of every map of a block, (rows, batch, *spatial)."""
    rows = max(map(len, _blocks(plan))) * plan.taps
    return planes.new_empty((rows, *planes.shape[1:]))


def _taps(filters: Sequence[Tensor], block: Sequence[int], known: int) -> Tensor:
    """Return the kernels of a block on the first ``known`` planes, (maps * taps, known)."""
    return torch.cat([filters[m][:known].flatten(1).T for m in block])


def _gather(planes: Tensor, dilations: Sequence[int], reflect: bool) -> Tensor:
    """Return the sum of the taps' planes, each shifted to where the kernel has it.

    Args:
        planes: (taps, batch, *spatial); overwritten.
        dilations: Distance of neighbouring taps along each axis.
        reflect: Whether the planes go on as their mirror images.
    """
    axes = len(dilations)
    planes = planes.view(*[3] * axes, *planes.shape[1:])
    for axis in range(-axes, 0):
        dilation = dilations[axis]
        before, centre, after = planes
        for step, near in ((-dilation, before), (dilation, after)):
            for strip in _strips(centre.shape[axis], step, reflect):
                _add(centre, strip.here, near, strip.there, strip, axis)
        planes = centre
    return planes


def _scatter(delta: Tensor, planes: Tensor, dilations: Sequence[int], reflect: bool) -> None:
    """Fill ``planes`` with the gradient of :func:`_gather`, given that of the sum."""
    axes = len(dilations)
    grid = planes.view(*[3] * axes, *planes.shape[1:])
    grid[(1,) * axes].copy_(delta)
    for axis in range(-1, -axes - 1, -1):
        dilation = dilations[axis]
        before, centre, after = grid[(1,) * (axes + axis)]
        for step, near in ((-dilation, before), (dilation, after)):
            near.zero_()
            for strip in _strips(centre.shape[axis], step, reflect):
                _add(near, strip.there, centre, strip.here, strip, axis)


class _Strip(NamedTuple):
    """A run of voxels along an axis, and where their neighbours at a distance are."""

    here: int
    there: int
    length: int
    mirrored: bool


def _strips(n: int, step: int, reflect: bool) -> list[_Strip]:
    """Return where voxels 0 to n - 1 find those a signed step further on."""
    d = min(abs(step), max(n - 1, 1))
    if step > 0:
        strips = [_Strip(0, d, n - d, False), _Strip(n - d, n - 1 - d, d, True)]
    else:
        strips = [_Strip(d, 0, n - d, False), _Strip(0, 1, d, True)]
    return strips if reflect else strips[:1]


def _add(onto: Tensor, start: int, what: Tensor, what_start: int, strip: _Strip, axis: int) -> None:
    added = what.narrow(axis, what_start, strip.length)
    onto.narrow(axis, start, strip.length).add_(added.flip(axis) if strip.mirrored else added)
