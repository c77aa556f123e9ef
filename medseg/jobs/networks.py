"""List the networks, and what computes MS-D on this machine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from medseg.errors import MedsegError, nearest
from medseg.networks import NETWORKS
from medseg.networks.mixed_scale_dense import backend_states


@dataclass(frozen=True)
class Listed:
    """One network.

    Attributes:
        name: Name in a job.
        summary: The first line of its description.
        parameters: Of the default network in 2D and 3D.
        small_parameters: Of its preset for little data.
    """

    name: str
    summary: str
    parameters: tuple[int, int]
    small_parameters: tuple[int, int]


@dataclass(frozen=True)
class Backend:
    """One implementation of MS-D; ``reason`` says what it is, or why it does not run here."""

    name: str
    runs: bool
    reason: str


@dataclass(frozen=True)
class Networks:
    """What ``medseg networks`` shows."""

    networks: tuple[Listed, ...] = ()
    backends: tuple[Backend, ...] = ()

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {key: value for key, value in asdict(self).items() if value}

    def show(self, console: Console) -> None:
        """Print a table."""
        if self.backends:
            table = Table("MS-D backend", "runs here", "")
            for backend in self.backends:
                table.add_row(backend.name, "yes" if backend.runs else "no", backend.reason)
        else:
            table = Table("network")
            for title in ("2D", "3D", "small 2D", "small 3D"):
                table.add_column(title, justify="right")
            table.add_column("")
            for one in self.networks:
                counts = map(short, one.parameters + one.small_parameters)
                table.add_row(one.name, *counts, one.summary)
            table.caption = "numbers of weights; --size 256,256 measures time and memory"
        console.print(table)


def networks(
    names: Sequence[str] = (), *, backends: bool = False, channels: int = 1, classes: int = 2
) -> Networks:
    """Return the networks, or every backend of MS-D; listing backends may compile one.

    Args:
        names: Which networks; all by default.
        backends: List the backends of MS-D instead of the networks.
        channels: Of the image.
        classes: Background included.

    Raises:
        MedsegError: There is no such network.
    """
    if backends:
        return Networks(backends=tuple(Backend(*state) for state in backend_states()))
    # Weights that are only counted need no memory, and no random numbers.
    with torch.device("meta"):
        return Networks(tuple(_listed(name, channels, classes) for name in chosen(names)))


def chosen(names: Sequence[str]) -> list[str]:
    """Return these networks, each once, or all of them.

    Raises:
        MedsegError: There is no such network.
    """
    for name in names:
        if name not in NETWORKS:
            raise MedsegError(f'"{name}" is no network{nearest(name, NETWORKS)}')
    return list(dict.fromkeys(names or NETWORKS))


def short(number: int) -> str:
    """Return three digits and a prefix: ``45.8 k``, ``1.93 M``, ``2.40 G``."""
    for power, prefix in ((1e9, "G"), (1e6, "M")):
        if number >= 0.9995 * power:
            return f"{number / power:#.3g}".rstrip(".") + f" {prefix}"
    return f"{number / 1e3:#.3g}".rstrip(".") + " k"


def _listed(name: str, channels: int, classes: int) -> Listed:
    part: Any = NETWORKS[name]
    full, small = (
        (_count(build(2, channels, classes)), _count(build(3, channels, classes)))
        for build in (part, part.small)
    )
    return Listed(name, (part.__doc__ or "").strip().splitlines()[0], full, small)


def _count(network: Any) -> int:
    return sum(weights.numel() for weights in network.parameters())
