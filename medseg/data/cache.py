"""Prepared cases in memory as far as it goes, the others in files of which only patches are read.

Patches are drawn from all cases alike, so none is worth more to keep than another: those that come
first stay in memory. The others are written as they were prepared, and mapped: a patch reads
its own part of the file, what was read last stays in memory while nobody else needs it (the
operating system sees to it), and loader processes share it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medseg.data.module import PreparedCase
from medseg.errors import MedsegError


class CaseCache:
    """Where prepared cases are kept; made by :func:`cache_cases`.

    Args:
        folder: Of the files.
        limit: Bytes of the cases that are kept in memory.

    Attributes:
        in_memory: Bytes of these.
        on_disk: Bytes of the others.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.limit = limit
        self.in_memory = self.on_disk = 0
        self._files = 0

    def keep(self, case: PreparedCase) -> PreparedCase:
        """Return the case, as it is while there is memory for it, else with mapped arrays.

        Raises:
            MedsegError: The disk has no room for it.
        """
        size = case.source.image.nbytes + case.source.label.nbytes
        if self.in_memory + size <= self.limit:
            self.in_memory += size
            return case
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise MedsegError(
                f"{case.name}: neither the memory nor {self.folder} has room for it as it is "
                f"prepared, {size / 1e9:.1f} GB\n  make room on that disk, give --runs another "
                f"folder, or give more of the memory, --cache 0.8"
            )
        self.on_disk += size
        source = case.source
        mapped = replace(source, image=self._map(source.image), label=self._map(source.label))
        return replace(case, source=mapped)

    def _map(self, tensor: Tensor) -> Tensor:
        self._files += 1
        file = self.folder / f"{self._files}.npy"
        np.save(file, tensor.numpy())
        # Copy on write, as torch knows no tensor that may not be written; nobody writes.
        return torch.from_numpy(np.load(file, mmap_mode="c"))


@contextmanager
def cache_cases(folder: Path, limit: float) -> Iterator[CaseCache]:
    """Give a cache whose files are removed in the end, as are those of a run that was killed.

    Args:
        folder: Of the files; nothing else may lie there.
        limit: Bytes of the cases that are kept in memory.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield CaseCache(folder, limit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
