"""Prepared cases beyond the memory's share lie on disk, and nobody sees a difference."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.data.cache import cache_cases
from medseg.data.module import DataModule, PreparedCase
from medseg.errors import MedsegError
from medseg.transforms import AUGMENTATIONS, PatchSampler, PatchSource

BYTES = 30 * 40 * (2 * 4 + 4)  # two channels of float32, labels of int32


def case(seed: int) -> PreparedCase:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.normal(size=(2, 30, 40)).astype(np.float32))
    label = torch.from_numpy(rng.integers(-1, 3, (1, 30, 40)).astype(np.int32))
    return PreparedCase(f"case_{seed}", PatchSource.of(image, label), (0.5, 0.5))


def test_cases_stay_in_memory_up_to_the_limit_and_the_others_go_to_disk(tmp_path):
    cases = [case(n) for n in range(4)]
    with cache_cases(tmp_path / "prepared", 2.5 * BYTES) as cache:
        kept = [cache.keep(one) for one in cases]

        assert [one is before for one, before in zip(kept, cases, strict=True)] == [
            True, True, False, False,
        ]  # fmt: skip
        assert (cache.in_memory, cache.on_disk) == (2 * BYTES, 2 * BYTES)
        files = sorted((tmp_path / "prepared").iterdir())
        # A header of 128 bytes each; an image and its labels of two cases.
        assert sum(file.stat().st_size for file in files) == 2 * BYTES + 4 * 128
        for one, before in zip(kept, cases, strict=True):
            assert (one.name, one.spacing) == (before.name, before.spacing)
            torch.testing.assert_close(one.source.image, before.source.image, rtol=0, atol=0)
            torch.testing.assert_close(one.source.label, before.source.label, rtol=0, atol=0)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_patches_and_whole_images_are_the_same_from_disk_whoever_loads_them(tmp_path, workers):
    def seen(keep, workers: int = 0) -> list[torch.Tensor]:
        data = DataModule(
            [keep(case(n)) for n in range(3)],
            [keep(case(9))],
            sampler=PatchSampler((16, 16), foreground=0.5),
            augmentation=AUGMENTATIONS.build("recipe", 2, (16, 16)),
            batch=2,
            iterations_per_epoch=4,
            seed=7,
            workers=workers,
        )
        batches = [*data.train_dataloader(), *data.val_dataloader()]
        return [batch[key] for batch in batches for key in ("image", "label")]

    with cache_cases(tmp_path / "prepared", 0) as cache:
        from_disk = seen(cache.keep, workers)

    for there, here in zip(from_disk, seen(lambda one: one), strict=True):
        torch.testing.assert_close(there, here, rtol=0, atol=0)


def test_what_a_run_that_was_killed_left_is_removed(tmp_path):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "77.npy").write_bytes(b"old")

    with cache_cases(tmp_path / "prepared", 0) as cache:
        cache.keep(case(0))

        assert {file.name for file in (tmp_path / "prepared").iterdir()} == {"1.npy", "2.npy"}


def test_a_case_that_fits_nowhere_is_named_with_the_remedy(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 99, 1))

    with (
        cache_cases(Path(tmp_path / "prepared"), 0) as cache,
        pytest.raises(MedsegError, match=r"case_3: neither the memory nor .*prepared has room"),
    ):
        cache.keep(case(3))
    assert not (tmp_path / "prepared").exists()
