"""A few real steps and one validation, to say what a training will need before it starts."""

import gc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from torch.autograd.graph import saved_tensors_hooks

from medseg.networks.cost import Kept, nbytes
from medseg.training.module import SegmentationModule

FEWEST = 2
MOST = 8
SECONDS = 5.0


@dataclass(frozen=True)
class Rehearsed:
    """What a few steps and one whole image took.

    Args:
        loading_seconds: To draw and augment one batch.
        step_seconds: Forward, backward and optimiser on it.
        validation_seconds: One whole validation image.
        base_bytes: Memory before, with the libraries and the prepared cases of the rehearsal.
        rise_bytes: What came on top at the peak, of steps or of the image, and a moving average of
            the weights.
    """

    loading_seconds: float
    step_seconds: float
    validation_seconds: float
    base_bytes: int
    rise_bytes: int


def rehearse(
    module: SegmentationModule, data: pl.LightningDataModule, *, device: str, limit: int
) -> Rehearsed:
    """Train for a step to warm up and a few more, and validate one image.

    ``FEWEST`` to ``MOST`` steps are timed, for about ``SECONDS``.

    Args:
        module: Network, loss and optimiser; is trained by these steps.
        data: Patches and whole images.
        device: ``cpu`` or ``cuda``.
        limit: Bytes that a forward pass may keep.

    Raises:
        ValueError: A step keeps more than ``limit``, or the parts do not fit together.
        RuntimeError: The device has too little memory.
    """
    module.to(device)
    peak = _CudaPeak() if device == "cuda" else _Peak()
    optimiser = module.configure_optimizers()
    batches = (batch for _ in count() for batch in data.train_dataloader())
    kept = Kept(module.network, limit=limit)
    module.train()
    with saved_tensors_hooks(kept.add, lambda tensor: tensor):
        loss = module.training_step(_on(device, next(batches)), 0)
    _learn(loss, optimiser)
    loading: list[float] = []
    stepping: list[float] = []
    while len(stepping) < FEWEST or (
        len(stepping) < MOST and sum(loading) + sum(stepping) < SECONDS
    ):
        began = perf_counter()
        batch = next(batches)
        loaded = perf_counter()
        _learn(module.training_step(_on(device, batch), 1 + len(stepping)), optimiser)
        loading.append(loaded - began)
        stepping.append(perf_counter() - loaded)
    weights = nbytes(module.network.parameters())
    module.eval()
    image = _on(device, next(iter(data.val_dataloader())))
    began = perf_counter()
    with torch.no_grad():
        module.validation_step(image, 0)
    return Rehearsed(
        loading_seconds=mean(loading),
        step_seconds=mean(stepping),
        validation_seconds=perf_counter() - began,
        base_bytes=peak.base,
        # Memory that was free before does not show as a rise, so no less than what was counted.
        rise_bytes=max(peak.rise(), kept.bytes + 3 * weights) + weights,
    )


def _learn(loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    float(loss.detach())  # waits for a GPU


def _on(device: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


class _Peak:
    """The highest memory of this process since it was made; only Linux tells."""

    def __init__(self) -> None:
        gc.collect()
        self.base = _status("VmRSS")
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")  # 5: forget the highest resident size so far

    def rise(self) -> int:
        return max(0, _status("VmHWM") - self.base)


class _CudaPeak:
    """The highest memory on the GPU since it was made."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()
        self.base = torch.cuda.memory_allocated()

    def rise(self) -> int:
        return torch.cuda.max_memory_allocated() - self.base


def _status(name: str) -> int:
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0
