"""MS-D in fused C++ kernels, compiled on this machine at first use.

PyTorch's extension builder compiles them for this very processor and keeps the result in its
cache (``TORCH_EXTENSIONS_DIR``); that takes some ten seconds, once. The kernels are called as plain
functions on plain memory, and use as many threads as PyTorch does.
"""

import ctypes
import hashlib
import logging
import platform
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from medseg.networks.mixed_scale_dense.plan import Plan

_SOURCE = Path(__file__).with_name("cpu.cpp")
_NAMES = {torch.float32: "f32", torch.float64: "f64"}
_LANES = 16  # rows are whole vectors, and begin with one
_GUARD = 64  # what a vector may read beyond the first and the last plane
_BLOCK = 10  # maps that are finished before the later ones take from them
_log = logging.getLogger(__name__)


@cache
def obstacle() -> str:
    """Return why this backend does not run here, empty if it does; compiles it if need be."""
    try:
        _library()
    except (OSError, RuntimeError, ImportError) as error:
        return str(error).strip().splitlines()[0]
    return ""


@cache
def _library() -> ctypes.CDLL:
    """Return the compiled kernels."""
    from torch.utils import cpp_extension

    compiler = str(cast(Any, cpp_extension).get_cxx_compiler())
    if shutil.which(compiler) is None:
        raise RuntimeError(f"no C++ compiler: neither CXX is set nor is there a {compiler}")
    _log.info("compiling the MS-D kernels for this processor, once")
    path = cpp_extension.load(
        name=f"medseg_msd_{_fingerprint()}",
        sources=[str(_SOURCE)],
        extra_cflags=["-O3", "-march=native", "-fopenmp"],
        extra_ldflags=["-fopenmp"],
        is_python_module=False,
    )
    return ctypes.CDLL(str(path))


def _fingerprint() -> str:
    """Return a word for this source on this kind of processor: homes are shared."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        about = platform.processor()
    kind = [line for line in about.splitlines() if line.startswith(("model name", "flags"))]
    text = "\n".join([platform.machine(), torch.__version__, *(kind or [about])])
    return hashlib.sha256(text.encode() + _SOURCE.read_bytes()).hexdigest()[:12]


class _Grid(NamedTuple):
    """How planes lie in memory; in the order in which the kernels read it."""

    batch: int
    depth: int
    height: int
    width: int
    margin_z: int
    margin_y: int
    margin_x: int
    row: int
    slice: int
    plane: int
    start: int
    channels: int
    maps: int
    layer: int
    reflect: int
    taps: int
    block: int
    threads: int

    def all_planes(self, memory: Tensor) -> Tensor:
        """Return (planes or fewer, batch * plane) of the memory, margins included."""
        return memory[_start(self.margin_x) :][: self._kept(memory)].view(
            -1, self.batch * self.plane
        )

    def _kept(self, memory: Tensor) -> int:
        each = self.batch * self.plane
        return (memory.numel() - 2 * _GUARD) // each * each

    def inside(self, planes: Tensor, spatial_dims: int) -> Tensor:
        """Return (planes, batch, *spatial) of :meth:`all_planes`, as a view without margins."""
        slices = self.depth + 2 * self.margin_z
        whole = planes.view(len(planes), self.batch, self.plane)[..., : slices * self.slice]
        whole = whole.view(len(planes), self.batch, slices, self.slice // self.row, self.row)
        image = (
            whole.narrow(2, self.margin_z, self.depth)
            .narrow(3, self.margin_y, self.height)
            .narrow(4, self.margin_x, self.width)
        )
        return image[:, :, 0] if spatial_dims == 2 else image


def _start(margin_x: int) -> int:
    """Return where the first plane begins, so that images begin with a whole vector."""
    return _GUARD - margin_x % _LANES


def _grid(plan: Plan, batch: int, size: Sequence[int]) -> _Grid:
    reaches = [(0,) * (3 - len(size)) + plan.reach(m, size) for m in range(plan.maps)]
    margins = [max(steps) for steps in zip(*reaches, strict=True)]
    depth, height, width = (1,) * (3 - len(size)) + tuple(size)
    row = -(-(width + 2 * margins[2]) // _LANES) * _LANES
    area = (height + 2 * margins[1]) * row
    volume = (depth + 2 * margins[0]) * area
    # Planes whose distance is a multiple of 4 kB would drive each other from the cache.
    plane = volume + (96 - volume) % 1024
    return _Grid(
        batch=batch,
        depth=depth,
        height=height,
        width=width,
        margin_z=margins[0],
        margin_y=margins[1],
        margin_x=margins[2],
        row=row,
        slice=area,
        plane=plane,
        start=_start(margins[2]),
        channels=plan.in_channels,
        maps=plan.maps,
        layer=plan.width,
        reflect=int(plan.reflect),
        taps=plan.taps,
        block=_BLOCK,
        threads=torch.get_num_threads(),
    )


def planes_shape(plan: Plan, batch: int, size: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which the planes are kept for the gradient."""
    grid = _grid(plan, batch, size)
    return (plan.planes * batch * grid.plane + 2 * _GUARD,)


def forward(
    plan: Plan, image: Tensor, weights: Tensor, biases: Tensor, head: Tensor, head_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (batch, classes, *spatial), and the memory of all planes."""
    batch, size = image.shape[0], image.shape[2:]
    grid = _grid(plan, batch, size)
    memory = image.new_zeros(planes_shape(plan, batch, size))
    planes = grid.all_planes(memory)
    grid.inside(planes[: plan.in_channels], plan.spatial_dims).copy_(image.transpose(0, 1))
    _call("forward", grid, plan, size, memory, weights.contiguous(), biases.contiguous())
    logits = torch.addmm(head_bias[:, None], head, planes)
    return grid.inside(logits, plan.spatial_dims).transpose(0, 1).contiguous(), memory


def backward(
    plan: Plan, slope: Tensor, memory: Tensor, weights: Tensor, head: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of image, weights, biases, head and its bias.

    Args:
        plan: The network's shape.
        slope: The gradient of the logits.
        memory: As :func:`forward` returned it.
        weights: All kernels, flat.
        head: (classes, planes).
    """
    size = slope.shape[2:]
    grid = _grid(plan, slope.shape[0], size)
    planes = grid.all_planes(memory)
    spread = memory.new_zeros(slope.shape[1], planes.shape[1])
    grid.inside(spread, plan.spatial_dims).copy_(slope.transpose(0, 1))
    slopes = torch.zeros_like(memory)
    every = grid.all_planes(slopes)
    torch.mm(head.T, spread, out=every)
    found, biases = torch.zeros_like(weights), weights.new_empty(plan.maps)
    _call("backward", grid, plan, size, memory, weights.contiguous(), slopes, found, biases)
    image = grid.inside(every[: plan.in_channels], plan.spatial_dims).transpose(0, 1)
    head_slope = spread @ planes.T
    flat = slope.transpose(0, 1).flatten(1)
    return image.contiguous().clone(), found, biases, head_slope, flat.sum(1)


def _call(
    name: str, grid: _Grid, plan: Plan, size: Sequence[int], memory: Tensor, weights: Tensor,
    *others: Tensor,
) -> None:  # fmt: skip
    steps = [(0,) * (3 - len(size)) + plan.reach(m, size) for m in range(plan.maps)]
    dilations = torch.tensor(steps, dtype=torch.int64)
    facts = torch.tensor(grid, dtype=torch.int64)
    function = getattr(_library(), f"msd_{name}_{_NAMES[memory.dtype]}")
    function.restype = None
    pointers = [t.data_ptr() for t in (facts, memory, weights, dilations, *others)]
    function(*(ctypes.c_void_p(pointer) for pointer in pointers))
