"""MS-D in fused GPU kernels, for float32 and bfloat16 planes; sums are float32.

Maps are finished in blocks, as in the CPU kernels: all later maps of one dilation take their part
from a finished block in one product, and give back the same way. Here no plane has margins: a
program looks up where a voxel beyond the edge is mirrored.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from medseg.networks.mixed_scale_dense.plan import Plan

_BLOCK = 16  # planes of a product
_VOXELS = 128
_CHUNK = 64  # blocks of voxels that one sum of the kernels' gradient runs over


@cache
def obstacle() -> str:
    """Return why this backend does not run here; empty if it does."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreted():
        return "no GPU that triton knows"
    return ""


def interpreted() -> bool:
    """Return whether triton runs its kernels on the CPU, slowly, which is for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def planes_shape(plan: Plan, batch: int, size: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which the planes are kept for the gradient."""
    return (plan.planes, batch, *size)


def forward(
    plan: Plan, image: Tensor, weights: Tensor, biases: Tensor, head: Tensor, head_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (batch, classes, *spatial), and all planes (planes, batch, *spatial)."""
    from medseg.networks.mixed_scale_dense import gpu_kernels as kernels

    filters = plan.filters(weights)
    planes = image.new_empty(planes_shape(plan, image.shape[0], image.shape[2:]))
    planes[: plan.in_channels] = image.transpose(0, 1)
    # Where planes are stored in half precision, sums that are not finished are not.
    sums = (
        planes if planes.dtype == torch.float32 else torch.empty_like(planes, dtype=torch.float32)
    )
    launch = _Launch(plan, planes)
    for first, last in _blocks(plan):
        begin = plan.in_channels + first if first else 0
        for m in range(first, last):
            end = plan.known(m)
            own = filters[m][begin:end].flatten(1).T.contiguous()
            launch(
                kernels.take_one, m, planes, sums, own, biases[m : m + 1], plan.in_channels + m,
                begin, end - begin, FRESH=not first,
            )  # fmt: skip
        end = plan.in_channels + last
        for maps in _alike(plan, last, plan.maps):
            packed = torch.stack([filters[m][begin:end].flatten(1) for m in maps])
            launch(
                kernels.take_many, maps[0], planes, sums, packed.permute(2, 0, 1).contiguous(),
                biases[maps], launch.numbers(maps), len(maps), begin, end - begin,
                FRESH=not first, PRECISION=_precision(), K=_BLOCK, S=_BLOCK,
            )  # fmt: skip
    flat = planes.flatten(1)
    logits = torch.mm(head.to(flat.dtype), flat).to(biases.dtype) + head_bias[:, None]
    logits = logits.reshape(len(logits), *planes.shape[1:]).transpose(0, 1)
    return logits.contiguous(), planes


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
    flat = slope.transpose(0, 1).flatten(1)
    head_slope = (flat.to(planes.dtype) @ planes.flatten(1).T).to(head.dtype)
    slopes = (head.T @ flat).reshape(planes.shape)
    found, biases = torch.zeros_like(weights), weights.new_empty(plan.maps)
    filters, kernels_found = plan.filters(weights), plan.filters(found)
    launch = _Launch(plan, planes)
    for first, last in reversed(list(_blocks(plan))):
        begin, end = plan.in_channels + first if first else 0, plan.in_channels + last
        for maps in _alike(plan, last, plan.maps):
            _give_back(launch, slopes, filters, maps, begin, end)
            _correlate(launch, slopes, kernels_found, maps, begin, end)
        for m in range(last - 1, first - 1, -1):
            delta = slopes[plan.in_channels + m].mul_(planes[plan.in_channels + m] > 0)
            biases[m] = delta.sum()
            _give_back(launch, slopes, filters, [m], begin, plan.known(m))
            _correlate(launch, slopes, kernels_found, [m], begin, plan.known(m))
    image = slopes[: plan.in_channels].transpose(0, 1).to(planes.dtype)
    image = image.clone(memory_format=torch.contiguous_format)
    return image, found, biases, head_slope, flat.sum(1)


class _Launch:
    """Starts kernels on the planes of one call."""

    def __init__(self, plan: Plan, planes: Tensor) -> None:
        self.plan = plan
        self.planes = planes
        self.batch, *self.size = planes.shape[1:]
        self.blocks = -(-planes[0, 0].numel() // _VOXELS)

    def __call__(
        self, kernel: Any, m: int, *operands: Any, grid: Any = None, **constants: Any
    ) -> None:
        lacking = 3 - len(self.size)
        size = [1] * lacking + self.size
        reach = [0] * lacking + list(self.plan.reach(m, self.size))
        kernel[grid or (self.blocks, self.batch)](
            *operands, self.batch, *size, *reach, FLAT=lacking == 1, REFLECT=self.plan.reflect,
            P=_VOXELS, **constants,
        )  # fmt: skip

    def numbers(self, maps: Sequence[int]) -> Tensor:
        """Return the planes of some maps, on the device."""
        return torch.tensor(maps, device=self.planes.device) + self.plan.in_channels


def _give_back(
    launch: _Launch, slopes: Tensor, filters: list[Tensor], maps: list[int], begin: int, end: int
) -> None:
    """Add to the slopes of planes [begin, end) what the deltas of maps of one dilation give."""
    from medseg.networks.mixed_scale_dense import gpu_kernels as kernels

    for first in range(begin, end, _BLOCK):
        last = min(first + _BLOCK, end)
        packed = torch.stack([filters[m][first:last].flatten(1) for m in maps])
        launch(
            kernels.give_many, maps[0], slopes, packed.permute(2, 1, 0).contiguous(), first,
            last - first, launch.numbers(maps), len(maps),
            PRECISION=_precision(), K=_BLOCK, S=_BLOCK,
        )  # fmt: skip


def _correlate(
    launch: _Launch, slopes: Tensor, found: list[Tensor], maps: list[int], begin: int, end: int
) -> None:
    """Fill in the kernels' gradients of maps of one dilation with regard to some planes."""
    from medseg.networks.mixed_scale_dense import gpu_kernels as kernels

    parts, taps = -(-launch.blocks // _CHUNK), launch.plan.taps
    for first in range(begin, end, _BLOCK):
        last = min(first + _BLOCK, end)
        sums = slopes.new_empty(launch.batch * parts, taps, _BLOCK, _BLOCK)
        launch(
            kernels.correlate, maps[0], launch.planes, slopes, sums, launch.numbers(maps),
            len(maps), first, last - first, grid=(taps, parts, launch.batch),
            PRECISION=_precision(), K=_BLOCK, S=_BLOCK, CHUNK=_CHUNK,
        )  # fmt: skip
        total = sums.sum(0)
        for place, m in enumerate(maps):
            own = total[:, place, : last - first].T
            found[m][first:last] = own.reshape(found[m][first:last].shape)


def _blocks(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield the first map and the end of each block of whole layers."""
    size = max(_BLOCK // plan.width, 1) * plan.width
    for first in range(0, plan.maps, size):
        yield first, min(first + size, plan.maps)


def _alike(plan: Plan, first: int, last: int) -> list[list[int]]:
    """Return the maps [first, last) in groups of one dilation, of no more than a block."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for m in range(first, last):
        groups.setdefault(plan.dilations[m], []).append(m)
    return [
        maps[start : start + _BLOCK]
        for maps in groups.values()
        for start in range(0, len(maps), _BLOCK)
    ]


def _precision() -> str:
    """Return the arithmetic of products of float32, as PyTorch is set."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
