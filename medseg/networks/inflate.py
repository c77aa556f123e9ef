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

    Where an image is the same in all slices, the logits of an inner slice are those of the 2D
    network; near the first and last slices zeros are padded. That needs the same settings in both,
    rates included, which are no weights and are not compared, and a norm that does not look at the
    whole image (none, or batch in evaluation). SegNet fills only one slice of two from what it
    pooled, and gives other logits.

    Args:
        state_2d: ``state_dict()`` of the network with ``spatial_dims`` of 2.
        network_3d: The network with ``spatial_dims`` of 3 and otherwise the same settings; its
            weights are changed.

    Raises:
        ValueError: Weights are missing on either side, or do not fit; nothing is changed then.
    """
    state_3d = network_3d.state_dict()
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
    network_3d.load_state_dict(inflated)


def fitting_weights(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return what fits a network: weights of its names and shapes, and 2D kernels for its 3D ones.

    Args:
        state: ``state_dict()`` of a network.
        network: The network that may take it; not changed.

    Raises:
        ValueError: A transposed convolution would leave slices empty.
    """
    strides = _up_strides(network)
    fitting = {}
    for name, weights in network.state_dict().items():
        given = state.get(name)
        if given is None:
            continue
        if given.shape == weights.shape:
            fitting[name] = given
        elif weights.dim() == 5 and given.shape == weights.shape[:2] + weights.shape[3:]:
            share = _shares(weights.shape[2], *strides.get(name, (None, 1)))
            fitting[name] = given[:, :, None] * share.to(given)[:, None, None]
    return fitting


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
