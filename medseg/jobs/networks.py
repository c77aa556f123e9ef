"""List the networks, and what computes MS-D on this machine."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from medseg.networks import NETWORKS
from medseg.networks.msd_operator import backend_states


@dataclass(frozen=True)
class Listed:
    """One network.

    Attributes:
        name: Name in a job.
        summary: The first line of its description.
        parameters: Of the default network in 2D and 3D, one channel in and two classes out.
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
            table = Table("network", "parameters 2D / 3D", "small preset", "")
            for one in self.networks:
                counts = (_both(one.parameters), _both(one.small_parameters))
                table.add_row(one.name, *counts, one.summary)
        console.print(table)


def networks(*, backends: bool) -> Networks:
    """Return every network, or every backend of MS-D; listing backends may compile one.

    Args:
        backends: List the backends of MS-D instead of the networks.
    """
    if backends:
        return Networks(backends=tuple(Backend(*state) for state in backend_states()))
    return Networks(networks=tuple(_listed(name) for name in NETWORKS))


def _listed(name: str) -> Listed:
    part: Any = NETWORKS[name]
    full = (_count(NETWORKS.build(name, 2, 1, 2)), _count(NETWORKS.build(name, 3, 1, 2)))
    small = (_count(part.small(2, 1, 2)), _count(part.small(3, 1, 2)))
    return Listed(name, (part.__doc__ or "").strip().splitlines()[0], full, small)


def _count(network: Any) -> int:
    return sum(weights.numel() for weights in network.parameters())


def _both(counts: tuple[int, int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)
