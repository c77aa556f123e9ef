"""MS-D as a few large matrix products instead of many thin convolutions.

A dilated convolution is a sum of shifted planes, and shifting commutes with mixing channels: mix
first, then shift. So for a block of maps, one matrix product of their kernels' taps with all
earlier maps gives what these contribute; inside the block every map adds the little that its
nearest predecessors do; then each map is the sum of its taps' planes, each shifted by the dilation
and mirrored at the edges. The gradient runs the same way back.

Of the features only one copy is kept: that is why the whole network is one function, with a
gradient of its own.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS = 96  # of a block's matrix: 10 maps of 9 taps, 3 of 27


class _Plan(NamedTuple):
    """What the computation needs beside the tensors."""

    dilations: tuple[int, ...]
    reflect: bool


def blocked_msd(
    image: Tensor,
    filters: Sequence[Tensor],
    biases: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    *,
    dilations: Sequence[int],
    reflect: bool,
) -> Tensor:
    """Return the logits of a mixed-scale dense network; its gradient can be taken once.

    Sums and features have the dtype of ``biases``, also under autocast: on a GPU allow TF32 for
    speed.

    Args:
        image: (batch, in_channels, *spatial).
        filters: Of each map, (1, maps before its layer, 3, 3[, 3]), the image's channels first:
            maps of one layer don't see each other.
        biases: Of each map.
        head_weight: (classes, all maps, 1, 1[, 1]).
        head_bias: (classes,).
        dilations: Of each map, in voxels; clamped to what the image's sides allow.
        reflect: Whether features are mirrored at the edges, instead of zero beyond.

    Returns:
        (batch, classes, *spatial), logits.
    """
    plan = _Plan(tuple(dilations), reflect)
    apply = cast(Any, _BlockedMSD.apply)
    logits: Tensor = apply(plan, image, biases, head_weight, head_bias, *filters)
    return logits


class _BlockedMSD(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        image: Tensor,
        biases: Tensor,
        head_weight: Tensor,
        head_bias: Tensor,
        *filters: Tensor,
    ) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            maps = _forward_maps(plan, image, biases, filters)
            logits = torch.addmm(head_bias[:, None], head_weight.flatten(1), maps.flatten(1))
        ctx.plan = plan
        ctx.image_dtype = image.dtype
        ctx.save_for_backward(maps, head_weight, *filters)
        return logits.reshape(len(logits), *maps.shape[1:]).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        maps, head_weight, *filters = ctx.saved_tensors
        with torch.autocast(slope.device.type, enabled=False):
            flat = slope.to(maps.dtype).transpose(0, 1).flatten(1)
            head = (flat @ maps.flatten(1).T).reshape(head_weight.shape)
            slopes = (head_weight.flatten(1).T @ flat).reshape(maps.shape)
            biases, weights = _backward_maps(ctx.plan, maps, slopes, filters)
        image = None
        if ctx.needs_input_grad[1]:
            first = maps.shape[0] - len(filters)
            image = slopes[:first].transpose(0, 1).to(ctx.image_dtype)
        return None, image, biases, head, flat.sum(1), *weights


def _forward_maps(plan: _Plan, image: Tensor, biases: Tensor, filters: Sequence[Tensor]) -> Tensor:
    """Return the image's channels and all maps, (maps, batch, *spatial)."""
    enters = image.shape[1]
    maps = image.new_empty(
        (enters + len(filters), image.shape[0], *image.shape[2:]), dtype=biases.dtype
    )
    maps[:enters] = image.transpose(0, 1)
    flat = maps.flatten(1)
    mixed = _buffer(maps, filters)
    for block in _blocks(filters):
        known = filters[block[0]].shape[1]
        rows = _taps(filters, block, known)
        torch.mm(rows, flat[:known], out=mixed[: len(rows)].flatten(1))
        for place, m in enumerate(block):
            before = filters[m].shape[1]
            taps = len(rows) // len(block)
            planes = mixed[place * taps : (place + 1) * taps]
            if before > known:
                near = _taps(filters, [m], before)[:, known:]
                planes.flatten(1).addmm_(near, flat[known:before])
            total = _gather(planes, plan.dilations[m], plan.reflect)
            torch.clamp(total.add_(biases[m]), min=0, out=maps[enters + m])
    return maps


def _backward_maps(
    plan: _Plan, maps: Tensor, slopes: Tensor, filters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of biases and filters, and add to ``slopes``, those of the maps."""
    enters = maps.shape[0] - len(filters)
    flat, flat_slopes = maps.flatten(1), slopes.flatten(1)
    spread = _buffer(maps, filters)
    biases = maps.new_empty(len(filters))
    weights: list[Tensor] = [maps.new_empty(0)] * len(filters)
    for block in reversed(list(_blocks(filters))):
        known, last = filters[block[0]].shape[1], filters[block[-1]].shape[1]
        rows = _taps(filters, block, known)
        taps = len(rows) // len(block)
        for place, m in reversed(list(enumerate(block))):
            before = filters[m].shape[1]
            delta = slopes[enters + m].mul_(maps[enters + m] > 0)
            biases[m] = delta.sum()
            planes = spread[place * taps : (place + 1) * taps]
            _scatter(delta, planes, plan.dilations[m], plan.reflect)
            if before > known:
                near = _taps(filters, [m], before)[:, known:]
                flat_slopes[known:before].addmm_(near.T, planes.flatten(1))
        spreads = spread[: len(rows)].flatten(1)
        flat_slopes[:known].addmm_(rows.T, spreads)
        met = spreads @ flat[:last].T
        for place, m in enumerate(block):
            before = filters[m].shape[1]
            own = met[place * taps : (place + 1) * taps, :before]
            weights[m] = own.T.reshape(filters[m].shape)
    return biases, weights


def _blocks(filters: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yield the numbers of the maps that are computed together."""
    size = max(_ROWS // filters[0][0, 0].numel(), 1)
    for first in range(0, len(filters), size):
        yield list(range(first, min(first + size, len(filters))))


def _buffer(maps: Tensor, filters: Sequence[Tensor]) -> Tensor:
    """Return room for a plane of every tap of every map of a block, (rows, batch, *spatial)."""
    rows = max(map(len, _blocks(filters))) * filters[0][0, 0].numel()
    return maps.new_empty((rows, *maps.shape[1:]))


def _taps(filters: Sequence[Tensor], block: Sequence[int], known: int) -> Tensor:
    """Return the kernels of a block on the first ``known`` maps, (maps * taps, known)."""
    return torch.cat([filters[m][0, :known].flatten(1).T for m in block])


def _gather(planes: Tensor, dilation: int, reflect: bool) -> Tensor:
    """Return the sum of the taps' planes, each shifted to where the kernel has it.

    Args:
        planes: (taps, batch, *spatial); overwritten.
        dilation: Distance of neighbouring taps.
        reflect: Whether the planes go on as their mirror images.
    """
    axes = planes.dim() - 2
    planes = planes.view(*[3] * axes, *planes.shape[1:])
    for axis in range(-axes, 0):
        before, centre, after = planes
        for step, near in ((-dilation, before), (dilation, after)):
            for strip in _strips(centre.shape[axis], step, reflect):
                _add(centre, strip.here, near, strip.there, strip, axis)
        planes = centre
    return planes


def _scatter(delta: Tensor, planes: Tensor, dilation: int, reflect: bool) -> None:
    """Fill ``planes`` with the gradient of :func:`_gather`, given that of the sum."""
    axes = planes.dim() - 2
    grid = planes.view(*[3] * axes, *planes.shape[1:])
    grid[(1,) * axes].copy_(delta)
    for axis in range(-1, -axes - 1, -1):
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
