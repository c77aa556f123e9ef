"""Begin a network for volumes with the weights of the same network for slices.

Source: "inflation" of Carreira & Zisserman, CVPR 2017, arXiv:1705.07750.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medseg.networks.upsample import BilinearUpsample


def inflate_weights(state_2d: Mapping[str, Tensor], network_3d: nn.Module) -> None:
    """Repeat 2D kernels along the first axis of a 3D network, so that slices give the same logits.

    A convolution's kernel is divided by its depth. Of a transposed convolution, only the taps that
    meet in the same output share the whole: with a stride of 2, the taps 0, 2, ... and 1, 3, ...
    A layer whose kernels are not centred states the shares of its taps itself, by the names of its
    weights, in an attribute ``depth_shares``, so that nothing shifts along the first axis.

    Where an image is the same in all slices, the logits of an inner slice are those of the 2D
    network; near the first and last slices zeros are padded. That needs the same settings in both,
    rates included, which are no weights and are not compared, and a norm that does not look at the
    whole image (none, or batch in evaluation). Image pooling (the default of DeepLab V3, V3+ and
    Auto-DeepLab) and PSPNet's means see the padded ends from every slice, and SegNet fills only one
    slice of two from what it pooled: these give other logits. GCN's thin kernels are refused, since
    two orders of axes do not become three.

    Counters of training steps are no weights: the network keeps its own.

    Args:
        state_2d: ``state_dict()`` of the network with ``spatial_dims`` of 2.
        network_3d: The network with ``spatial_dims`` of 3 and otherwise the same settings; its
            weights are changed.

    Raises:
        ValueError: Weights are missing on either side, or do not fit; nothing is changed then.
    """
    all_3d = network_3d.state_dict()
    state_2d, state_3d = without_counters(state_2d), without_counters(all_3d)
    for found, wanted, where in ((state_2d, state_3d, "2D"), (state_3d, state_2d, "3D")):
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ValueError(
                f"the {where} network has no {_some(missing)}; build both with the same settings"
            )
    inflated = fitting_weights(state_2d, network_3d)
    for name, weights in state_3d.items():
        if name not in inflated:
            raise ValueError(
                f"{name}: {tuple(state_2d[name].shape)} of the 2D network does not become "
                f"{tuple(weights.shape)}; build both with the same settings"
            )
    network_3d.load_state_dict({**all_3d, **inflated})


def fitting_weights(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return what fits a network: weights of its names and shapes, and 2D kernels for its 3D ones.

    Counters of training steps are left out.

    Args:
        state: ``state_dict()`` of a network.
        network: The network that may take it; not changed.

    Raises:
        ValueError: A transposed convolution would leave slices empty.
    """
    strides, stated = _up_strides(network), _stated_shares(network)
    fitting = {}
    for name, weights in without_counters(network.state_dict()).items():
        given = state.get(name)
        if given is None:
            continue
        if given.shape == weights.shape:
            fitting[name] = given
        elif weights.dim() == 5 and given.shape == weights.shape[:2] + weights.shape[3:]:
            share = stated.get(name)
            if share is None:
                share = _shares(weights.shape[2], *strides.get(name, (None, 1)))
            fitting[name] = given[:, :, None] * share.to(given)[:, None, None]
    return fitting


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without counters of training steps (single integers), which begin anew."""
    return {name: t for name, t in state.items() if t.dim() or t.is_floating_point()}


def _stated_shares(network: nn.Module) -> dict[str, Tensor]:
    """Return the shares of taps along the first axis that layers state, by name of the weights."""
    return {
        f"{name}.{weights}" if name else weights: torch.tensor(shares, dtype=torch.float64)
        for name, part in network.named_modules()
        for weights, shares in getattr(part, "depth_shares", {}).items()
    }


def _up_strides(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the stride and dilation along the first axis of each transposed convolution."""
    strides = {}
    for name, part in network.named_modules():
        key = f"{name}.weight" if name else "weight"
        if isinstance(part, nn.ConvTranspose3d):
            strides[key] = (part.stride[0], part.dilation[0])
        elif isinstance(part, BilinearUpsample):
            strides[key] = (part.scale[0], 1)
    return strides


def _shares(depth: int, stride: int | None, dilation: int) -> Tensor:
    """Return each tap's share: one over the number of taps that meet in the same output.

    Args:
        depth: Taps along the first axis.
        stride: Stride of a transposed convolution; None for a convolution, whose taps all meet.
        dilation: Distance of neighbouring taps.
    """
    meeting = [0 if stride is None else tap * dilation % stride for tap in range(depth)]
    if stride is not None and len(set(meeting)) < stride:
        raise ValueError(
            f"a transposed convolution of {depth} slices with a stride of {stride} leaves slices "
            f"empty; no weights make them equal"
        )
    shares = [1 / meeting.count(place) for place in meeting]
    return torch.tensor(shares, dtype=torch.float64)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
