"""What a training will need, from what a few steps of it took."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from medseg.doctor.findings import Finding

TIGHT = 0.8  # share of the free memory from which it is tight
SAFETY = 1.25  # allocators keep more than is asked for, and cases differ


@dataclass(frozen=True)
class Forecast:
    """Memory and time of a training, before it starts.

    Args:
        base_bytes: The libraries, before any case is read.
        data_bytes: All prepared training and validation cases.
        rise_bytes: What a step or a validation needs on top.
        available_bytes: What the device can give now.
        on_gpu: Whether base and rise lie in a GPU's memory, which the data do not.
        preparing_seconds: Reading and preparing all cases.
        step_seconds: One step with the loading of its batch.
        steps: How many.
        validation_seconds: One validation of all validation cases.
        validations: How many.
        prediction_seconds: Predicting the test cases once.
    """

    base_bytes: int
    data_bytes: int
    rise_bytes: int
    available_bytes: int
    on_gpu: bool
    preparing_seconds: float
    step_seconds: float
    steps: int
    validation_seconds: float
    validations: int
    prediction_seconds: float

    @property
    def peak_bytes(self) -> int:
        """Highest memory of the device, with a margin for what allocators keep."""
        held = 0 if self.on_gpu else self.data_bytes
        return int(self.base_bytes + held + SAFETY * self.rise_bytes)

    @property
    def seconds(self) -> float:
        """From the start to the predictions; judging them comes on top."""
        return (
            self.preparing_seconds
            + self.steps * self.step_seconds
            + self.validations * self.validation_seconds
            + self.prediction_seconds
        )

    @property
    def facts(self) -> Mapping[str, str]:
        """Memory and time for a person."""
        where = "GPU memory" if self.on_gpu else "memory"
        return {
            where: f"about {gigabytes(self.peak_bytes)} of {gigabytes(self.available_bytes)} free "
            f"(cases {gigabytes(self.data_bytes)}, step or validation "
            f"{gigabytes(self.rise_bytes)})",
            "time": f"about {duration(self.seconds)}: preparing "
            f"{duration(self.preparing_seconds)}, {self.steps:,} steps of "
            f"{duration(self.step_seconds)}, {self.validations} validations of "
            f"{duration(self.validation_seconds)}, predicting {duration(self.prediction_seconds)}",
        }

    @property
    def as_json(self) -> dict[str, Any]:
        """Every number, with the two sums."""
        return {**asdict(self), "peak_bytes": self.peak_bytes, "seconds": self.seconds}

    def findings(self) -> Iterator[Finding]:
        """Return whether the memory will do."""
        share = self.peak_bytes / self.available_bytes
        if share <= TIGHT:
            return
        smaller = "lower train.batch or data.patch_voxels, or take a smaller network"
        crowded = self.data_bytes > self.rise_bytes and not self.on_gpu
        yield Finding(
            "error" if share > 1 else "warning",
            "memory",
            "",
            f"training needs about {gigabytes(self.peak_bytes)}",
            f"at most the {gigabytes(self.available_bytes)} that are free",
            "set a coarser data.spacing, or train on fewer or cropped cases"
            if crowded
            else smaller,
        )


def gigabytes(count: float) -> str:
    """Return ``1.5 GB``, or ``120 MB`` below one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Return ``0:01:20`` or, below a minute, ``4.5 s``."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return str(timedelta(seconds=round(seconds)))
