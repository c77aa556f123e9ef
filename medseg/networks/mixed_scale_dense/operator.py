"""The operator ``medseg::mixed_scale_dense``: a whole MS-D as one step of autograd.

As one operator the network keeps one copy of its planes and does its sums in an order that suits
the machine. It is registered with PyTorch together with its shapes and its gradient, so that
``torch.compile`` goes through it, and checkpoints and data-parallel training work. Its gradient
is an operator too, ``medseg::mixed_scale_dense_backward``, and has no gradient itself.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor

from medseg.networks.mixed_scale_dense import blocked, cpu, gpu, reference
from medseg.networks.mixed_scale_dense.plan import Plan

Backend = Literal["auto", "reference", "torch", "cpu", "triton"]

_MODULES: dict[str, ModuleType] = {"torch": blocked, "cpu": cpu, "triton": gpu}
_FULL = (torch.float32, torch.float64)
_log = logging.getLogger(__name__)


class BackendState(NamedTuple):
    """Whether a backend runs here.

    Attributes:
        name: The backend.
        runs: Whether it can be used on this machine.
        reason: What it is, or why it can't be used.
    """

    name: str
    runs: bool
    reason: str


def backend_states() -> list[BackendState]:
    """Return every backend of MS-D with whether it runs here; compiles ``cpu`` if it may."""
    no_cpu, no_gpu = cpu.obstacle(), gpu.obstacle()
    return [
        BackendState("reference", True, "plain PyTorch layer by layer, any device; for export"),
        BackendState("torch", True, "blocked matrix products, any device, no compiler"),
        BackendState("cpu", not no_cpu, no_cpu or "fused C++ kernels, compiled on this machine"),
        BackendState("triton", not no_gpu, no_gpu or "fused GPU kernels"),
    ]


def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Return the backend that ``auto`` means.

    On a GPU ``triton``, on the CPU ``cpu``, wherever these run; everywhere else ``torch``.

    Args:
        device: Type of the image's device.
        dtype: That of the weights.
    """
    if device == "cuda" and dtype == torch.float32 and not gpu.obstacle():
        return "triton"
    if device == "cpu" and dtype in _FULL and _compiled():
        return "cpu"
    return "torch"


def mixed_scale_dense(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Tensor,
    dilations: Sequence[Sequence[int]],
    padding_mode: Literal["reflect", "zeros"] = "reflect",
    *,
    head_weight: Tensor,
    head_bias: Tensor,
    width: int = 1,
    backend: Backend = "auto",
) -> Tensor:
    """Return the logits of a mixed-scale dense network.

    Sums and weights have the dtype of ``biases``, also under autocast. So have the planes, but for
    ``triton`` under an autocast to bfloat16: it stores them in bfloat16 and sums in float32. With
    ``reference``, autocast does as it does with any network.

    Args:
        x: (batch, in_channels, *spatial), any memory format.
        weights: The kernels of each map, each (1, planes seen, 3, 3[, 3]), the image's channels
            first; maps of one layer don't see each other.
        biases: Of each map.
        dilations: Of each map along each spatial axis, slowest first, in voxels; on an image with
            a side of n voxels none exceeds n - 1 there.
        padding_mode: ``reflect`` mirrors planes at the edges, ``zeros`` has zeros beyond.
        head_weight: (classes, planes, 1, 1[, 1]).
        head_bias: (classes,).
        width: Maps of a layer.
        backend: Which implementation; all give the same. A gradient can be taken once, with
            ``reference`` any number of times. While a network is exported it is ``reference``,
            whose steps other programs know.

    Returns:
        (batch, classes, *spatial).

    Raises:
        ValueError: No such backend, or one that doesn't run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {', '.join(get_args(Backend))}, got {backend!r}")
    chosen: str = backend
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        chosen = "reference"
    elif backend != "reference":
        chosen = _resolved(backend, x.device.type, biases.dtype)
    plan = Plan(x.shape[1], width, tuple(map(tuple, dilations)), padding_mode == "reflect")
    flat, head = torch.cat([w.reshape(-1) for w in weights]), head_weight.flatten(1)
    if chosen == "reference":
        return reference.forward(plan, x, flat, biases, head, head_bias)
    x = x.to(_storage(chosen, x.device.type, biases.dtype))
    tensors = (x, flat, biases, head, head_bias)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    steps = [d for steps in plan.dilations for d in steps]
    operator = cast(Callable[..., tuple[Tensor, Tensor]], _forward)
    logits, _ = operator(x, flat, biases, steps, padding_mode, head, head_bias, width, chosen, keep)
    return logits


@torch.library.custom_op("medseg::mixed_scale_dense", mutates_args=())
def _forward(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    dilations: Sequence[int],
    padding_mode: str,
    head_weight: Tensor,
    head_bias: Tensor,
    width: int,
    backend: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Return the logits, and the planes if they are kept for the gradient."""
    plan = _plan(x.dim() - 2, x.shape[1], width, dilations, padding_mode)
    with torch.autocast(x.device.type, enabled=False):
        logits, planes = _MODULES[backend].forward(plan, x, weights, biases, head_weight, head_bias)
    return logits, planes if keep else planes.new_empty(0)


@_forward.register_fake
def _(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    dilations: Sequence[int],
    padding_mode: str,
    head_weight: Tensor,
    head_bias: Tensor,
    width: int,
    backend: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    plan = _plan(x.dim() - 2, x.shape[1], width, dilations, padding_mode)
    logits = x.new_empty((x.shape[0], head_weight.shape[0], *x.shape[2:]), dtype=biases.dtype)
    shape = _MODULES[backend].planes_shape(plan, x.shape[0], x.shape[2:]) if keep else (0,)
    return logits, x.new_empty(shape)


@torch.library.custom_op("medseg::mixed_scale_dense_backward", mutates_args=())
def _backward(
    slope: Tensor,
    planes: Tensor,
    weights: Tensor,
    head_weight: Tensor,
    in_channels: int,
    dilations: Sequence[int],
    padding_mode: str,
    width: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of image, weights, biases, head and its bias."""
    plan = _plan(slope.dim() - 2, in_channels, width, dilations, padding_mode)
    with torch.autocast(slope.device.type, enabled=False):
        found = _MODULES[backend].backward(plan, slope, planes, weights, head_weight)
    return cast(tuple[Tensor, Tensor, Tensor, Tensor, Tensor], found)


@_backward.register_fake
def _(
    slope: Tensor,
    planes: Tensor,
    weights: Tensor,
    head_weight: Tensor,
    in_channels: int,
    dilations: Sequence[int],
    padding_mode: str,
    width: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    maps = head_weight.shape[1] - in_channels
    image = planes.new_empty((slope.shape[0], in_channels, *slope.shape[2:]))
    biases, head_bias = weights.new_empty(maps), weights.new_empty(head_weight.shape[0])
    return (
        image,
        torch.empty_like(weights),
        biases,
        head_weight.new_empty(head_weight.shape),
        head_bias,
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weights, _, dilations, padding_mode, head_weight, _, width, backend, _ = inputs
    ctx.save_for_backward(output[1], weights, head_weight)
    ctx.settings = (x.shape[1], list(dilations), padding_mode, width, backend)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, slope: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if slope is None:
        return (None,) * 10
    operator = cast(Callable[..., tuple[Tensor, ...]], _backward)
    image, weights, biases, head, head_bias = operator(slope, *ctx.saved_tensors, *ctx.settings)
    return image, weights, biases, None, None, head, head_bias, None, None, None


def _refuse(ctx: Any, *slopes: Tensor) -> tuple[None, ...]:
    raise RuntimeError(
        "MS-D's gradient can be taken once: for second derivatives set backend='reference'"
    )


torch.library.register_autograd("medseg::mixed_scale_dense", _gradient, setup_context=_remember)
torch.library.register_autograd("medseg::mixed_scale_dense_backward", _refuse)


def _plan(
    axes: int, in_channels: int, width: int, dilations: Sequence[int], padding_mode: str
) -> Plan:
    steps = zip(*(dilations[axis::axes] for axis in range(axes)), strict=True)
    return Plan(in_channels, width, tuple(steps), padding_mode == "reflect")


def _storage(backend: str, device: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the planes."""
    half = backend == "triton" and torch.is_autocast_enabled(device)
    return torch.bfloat16 if half and torch.get_autocast_dtype(device) == torch.bfloat16 else dtype


def _resolve(backend: str, device: str, dtype: torch.dtype) -> str:
    """Return the backend to use, or raise a ``ValueError`` if it doesn't run here."""
    if backend == "auto":
        return choose_backend(device, dtype)
    found = ""
    if backend in ("cpu", "triton"):
        found = cpu.obstacle() if backend == "cpu" else gpu.obstacle()
    if found:
        raise ValueError(f"the {backend} backend of MS-D does not run here: {found}")
    if backend == "triton" and (dtype != torch.float32 or not _for_triton(device)):
        raise ValueError(
            f"the triton backend of MS-D takes float32 on a GPU, got {dtype} on {device}: set "
            "backend 'auto'"
        )
    if backend == "cpu" and (device != "cpu" or dtype not in _FULL):
        raise ValueError(
            f"the cpu backend of MS-D takes float32 and float64 on the CPU, got {dtype} on "
            f"{device}: set backend 'auto'"
        )
    return backend


def _for_triton(device: str) -> bool:
    return device == "cuda" or gpu.interpreted()


# A compiler of graphs takes the answer as it is, instead of looking for it.
_resolved = cast(
    Callable[[str, str, torch.dtype], str],
    cast(Any, torch.compiler).assume_constant_result(_resolve),
)


@cache
def _compiled() -> bool:
    """Return whether ``cpu`` runs; says once if it doesn't."""
    found = cpu.obstacle()
    if found:
        _log.warning("MS-D uses its slower torch backend on this CPU: %s", found)
    return not found
