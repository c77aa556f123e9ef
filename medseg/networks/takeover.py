"""Begin with the weights of another network: to fine-tune it, or to refine it in stages."""

from dataclasses import dataclass

from torch import nn

from medseg.networks.inflate import fitting_weights, without_counters


@dataclass(frozen=True)
class TakenOver:
    """Names of the weights that were taken over, and of those that keep their initial values."""

    taken: tuple[str, ...]
    left: tuple[str, ...]

    def describe(self) -> str:
        """Say it in a line."""
        text = f"took over {len(self.taken)} of {len(self.taken) + len(self.left)} weights"
        if not self.left:
            return text
        some = ", ".join(self.left[:3]) + (", ..." if len(self.left) > 3 else "")
        return f"{text}; these start anew: {some}"


def take_over(network: nn.Module, other: nn.Module) -> TakenOver:
    """Copy every weight of ``other`` that has the same name and shape in ``network``.

    So a head for other classes starts anew, and FCN-16s goes on from FCN-32s. Kernels for slices
    are repeated along the first axis of a network for volumes, as by
    :func:`~medseg.networks.inflate.inflate_weights`. It keeps its own
    counters of training steps: a scheduled drop path starts anew.

    Args:
        network: Is changed.
        other: A trained network.

    Raises:
        ValueError: Nothing fits.
    """
    theirs = without_counters(other.state_dict())
    mine = network.state_dict()
    taken = fitting_weights(theirs, network)
    if not taken:
        raise ValueError(
            f"none of the {len(theirs)} weights of {type(other).__name__} fits "
            f"{type(network).__name__} of these settings; start from the same network"
        )
    network.load_state_dict({**mine, **taken})
    left = (name for name in without_counters(mine) if name not in taken)
    return TakenOver(tuple(taken), tuple(left))
