"""Say what each network costs at one image size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from medseg.jobs.networks import chosen, short
from medseg.networks import NETWORKS
from medseg.networks.cost import measure_cost


@dataclass(frozen=True)
class Measured:
    """One network at one image size; what could not be measured is None.

    Attributes:
        name: Name in a job.
        parameters: Its weights.
        output_stride: Voxels per cell of the coarsest feature map, x, y[, z].
        receptive_field: Voxels that one output voxel sees, x, y[, z].
        kept_bytes: What the forward pass keeps for the backward pass.
        memory_bytes: These, the weights, their gradients and the two moments of Adam.
        training_seconds: Of one training step.
        inference_seconds: Of one forward pass without gradients.
        obstacle: Why it could not be measured, if it could not.
    """

    name: str
    parameters: int | None = None
    output_stride: tuple[int, ...] | None = None
    receptive_field: tuple[int, ...] | None = None
    kept_bytes: int | None = None
    memory_bytes: int | None = None
    training_seconds: float | None = None
    inference_seconds: float | None = None
    obstacle: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (
            self.name,
            _axes(self.output_stride),
            _axes(self.receptive_field),
            "-" if self.parameters is None else short(self.parameters),
            _seconds(self.training_seconds),
            _seconds(self.inference_seconds),
            "-" if self.memory_bytes is None else f"{short(self.memory_bytes)}B",
        )


@dataclass(frozen=True)
class Costs:
    """What ``medseg networks --size`` shows; the size is x, y[, z]."""

    size: tuple[int, ...]
    channels: int
    classes: int
    batch: int
    preset: str
    threads: int
    networks: tuple[Measured, ...]

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self)

    def show(self, console: Console) -> None:
        """Print a table, and what its columns mean."""
        table = Table()
        for title in ("network", "stride", "sees", "weights", "step", "inference", "memory"):
            table.add_column(title, justify="left" if title == "network" else "right")
        for one in self.networks:
            table.add_row(*one.row)
        console.print(table)
        for one in self.networks:
            if one.obstacle:
                text = f"{one.name}: {one.obstacle}"
                console.print(text, style="yellow", markup=False, highlight=False)
        console.print(self.legend, highlight=False)

    @property
    def legend(self) -> str:
        """What was measured, and what the columns mean, for a terminal of 80 columns."""
        size = " x ".join(map(str, self.size))
        return (
            f"for {size} voxels, batch {self.batch}, channels {self.channels}, classes "
            f"{self.classes};\npreset {self.preset}, CPU threads {self.threads}\n"
            "sees       receptive field in voxels\n"
            "step       seconds of a training step: forward, backward, AdamW\n"
            "inference  seconds of a forward pass\n"
            "memory     what training holds: feature maps kept for the backward pass,\n"
            "           weights, gradients, two moments of Adam; the peak is 1.5 to 3 times that"
        )


def costs(
    names: Sequence[str] = (),
    *,
    size: Sequence[int],
    channels: int = 1,
    classes: int = 2,
    batch: int = 1,
    preset: Literal["default", "small"] = "default",
    console: Console,
) -> Costs:
    """Train each network for two steps on noise of one size, and return what that cost.

    As in a job, networks that plan themselves for a patch are planned for this size.

    Args:
        names: Which networks; all by default.
        size: Voxels of the image, x, y[, z].
        channels: Of the image.
        classes: Background included.
        batch: Images of a step.
        preset: ``small`` for the networks' presets for little data.
        console: Where progress is shown.

    Raises:
        MedsegError: There is no such network.
    """
    rows = []
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=len(chosen(names)))
        for name in chosen(names):
            progress.update(task, description=name)
            rows.append(_measured(name, size, channels, classes, batch, preset == "small"))
            progress.advance(task)
    threads = torch.get_num_threads()
    return Costs(tuple(size), channels, classes, batch, preset, threads, tuple(rows))


def _measured(
    name: str, size: Sequence[int], channels: int, classes: int, batch: int, small: bool
) -> Measured:
    part: Any = NETWORKS[name]
    voxels = tuple(reversed(size))  # arrays have their slowest axis first
    settings = part.small_settings(len(size)) if small else {}
    if "patch_voxels" in NETWORKS.settings(name):
        settings = settings | {"patch_voxels": voxels}
    row = Measured(name)
    try:
        network = NETWORKS.build(name, len(size), channels, classes, **settings)
        row = replace(
            row,
            parameters=sum(weights.numel() for weights in network.parameters()),
            output_stride=tuple(reversed(network.output_stride)),
            receptive_field=tuple(reversed(network.receptive_field())),
        )
        return replace(row, **asdict(measure_cost(network, voxels, batch=batch)))
    except (ValueError, RuntimeError) as error:
        return replace(row, obstacle=str(error).strip().splitlines()[0])


def _axes(numbers: tuple[int, ...] | None) -> str:
    """Return ``16``, or ``16 x 16 x 4`` where axes differ."""
    if numbers is None:
        return "-"
    return " x ".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def _seconds(number: float | None) -> str:
    return "-" if number is None else f"{number:#.2g}".rstrip(".")
