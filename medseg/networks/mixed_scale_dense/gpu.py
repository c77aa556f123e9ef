"""MS-D in fused GPU kernels, for float32 and bfloat16 planes; sums are float32.

Maps are finished in blocks, as in the CPU kernels: all later maps of one dilation take their part
from a finished block in one product, and give back the same way. Here no plane has margins: a
program looks up where a voxel beyond the edge is mirrored.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from math import prod
from typing import Any

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

__all__ = ["backward", "forward", "interpreted", "obstacle", "planes_shape"]

_BLOCK = 16  # planes of a product; tensor cores take no fewer
_VOXELS = 128
_CHUNK = 64  # blocks of voxels that one sum of the kernels' gradient runs over
_CHUNKS = 65_535  # CUDA starts no more programs along a grid's second axis


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


def forward(
    plan: Plan, image: Tensor, weights: Tensor, biases: Tensor, head: Tensor, head_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (batch, classes, *spatial), and all planes (planes, batch, *spatial).

    Raises:
        ValueError: An image of more voxels than the kernels can count.
    """
    voxels, most = prod(image.shape[2:]), _CHUNKS * _CHUNK * _VOXELS
    if voxels > most:
        raise ValueError(
            f"the triton backend of MS-D takes images of up to {most:,} voxels, got {voxels:,}: "
            "give it parts"
        )
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
    found, biases = torch.zeros_like(weights), weights.new_empty(plan.maps)
    filters, kernels_found = plan.filters(weights), plan.filters(found)
    launch = _Launch(plan, planes)
    for block in reversed(_blocks(plan)):
        begin, end = _span(plan, block)
        for maps in _alike(plan, block.stop):
            _give_back(launch, slopes, filters, maps, begin, end)
            _correlate(launch, slopes, kernels_found, maps, begin, end)
        for m in reversed(block):
            delta = slopes[plan.in_channels + m].mul_(planes[plan.in_channels + m] > 0)
            biases[m] = delta.sum()
            _give_back(launch, slopes, filters, [m], begin, plan.known(m))
            _correlate(launch, slopes, kernels_found, [m], begin, plan.known(m))
    return image_slope(plan, slopes).to(planes.dtype), found, biases, head_slope, head_bias


def _fill_maps(plan: Plan, planes: Tensor, filters: list[Tensor], biases: Tensor) -> None:
    """Compute the maps into their planes."""
    from medseg.networks.mixed_scale_dense import gpu_kernels as kernels

    # Where planes are stored in half precision, sums that are not finished are not.
    full = planes.dtype == torch.float32
    sums = planes if full else torch.empty_like(planes, dtype=torch.float32)
    launch = _Launch(plan, planes)
    for block in _blocks(plan):
        begin, end = _span(plan, block)
        for m in block:
            known = plan.known(m)
            own = filters[m][begin:known].flatten(1).T.contiguous()
            launch(
                kernels.take_one, m, planes, sums, own, biases[m : m + 1], plan.in_channels + m,
                begin, known - begin, FRESH=not block.start,
            )  # fmt: skip
        for maps in _alike(plan, block.stop):
            packed = torch.stack([filters[m][begin:end].flatten(1) for m in maps])
            launch(
                kernels.take_many, maps[0], planes, sums, packed.permute(2, 0, 1).contiguous(),
                _chosen(biases, maps), launch.numbers(maps), len(maps), begin, end - begin,
                FRESH=not block.start, PRECISION=_precision(), K=_BLOCK, S=_BLOCK,
            )  # fmt: skip


class _Launch:
    """Starts kernels on the planes of one call."""

    def __init__(self, plan: Plan, planes: Tensor) -> None:
        self.plan = plan
        self.planes = planes
        self.batch, *self.size = planes.shape[1:]
        self.blocks = -(-prod(self.size) // _VOXELS)
        self.places = torch.arange(plan.in_channels, plan.planes, device=planes.device)

    def __call__(
        self, kernel: Any, m: int, *operands: Any, grid: Any = None, **constants: Any
    ) -> None:
        lacking = 3 - len(self.size)
        size = [1] * lacking + self.size
        reach = [0] * lacking + list(self.plan.reach(m, self.size))
        # Triton starts kernels on the current GPU, which need not be that of the planes.
        with torch.cuda.device_of(self.planes):  # type: ignore[no-untyped-call]
            kernel[grid or (self.blocks, self.batch)](
                *operands, self.batch, *size, *reach, FLAT=lacking == 1, REFLECT=self.plan.reflect,
                P=_VOXELS, **constants,
            )  # fmt: skip

    def numbers(self, maps: Sequence[int]) -> Tensor:
        """Return the planes of some maps, on the device."""
        return _chosen(self.places, maps)


def _chosen(values: Tensor, maps: Sequence[int]) -> Tensor:
    """Return the values of some maps; an index made on the CPU would wait for the GPU."""
    return torch.stack([values[m] for m in maps])


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


def _blocks(plan: Plan) -> list[range]:
    """Return the numbers of the maps that are finished together, whole layers."""
    return list(plan.blocks(max(_BLOCK // plan.width, 1) * plan.width))


def _span(plan: Plan, block: range) -> tuple[int, int]:
    """Return the first plane of a block and its end; the first block has the image's, too."""
    return plan.in_channels + block.start if block.start else 0, plan.in_channels + block.stop


def _alike(plan: Plan, first: int) -> list[list[int]]:
    """Return the maps from ``first`` on in groups of one dilation, of no more than a block."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for m in range(first, plan.maps):
        groups.setdefault(plan.dilations[m], []).append(m)
    return [
        maps[start : start + _BLOCK]
        for maps in groups.values()
        for start in range(0, len(maps), _BLOCK)
    ]


def _precision() -> str:
    """Return the arithmetic of products of float32, as PyTorch is set."""
    # Not ``allow_tf32``: reading it fails where the precision was set the newer way.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
