"""Prepared cases, patches and whole images."""

import numpy as np
import pytest
import torch

from medseg.data import Case, LabelMap, Reading
from medseg.data.module import (
    DataModule,
    PreparedCase,
    count_classes,
    prepare_case,
    repeat_hard,
)
from medseg.errors import MedsegError
from medseg.geometry import Grid, Unit
from medseg.images import Image, write_image, write_labels
from medseg.transforms import (
    AUGMENTATIONS,
    NORMALISATIONS,
    PatchSampler,
    PatchSource,
    Preparation,
)


def dotted(name: str, value: float) -> PreparedCase:
    image = torch.full((1, 20, 20), value)
    label = torch.zeros((1, 20, 20), dtype=torch.int32)
    label[0, 5, 5] = 1
    return PreparedCase(name, PatchSource.of(image, label))


def loader(seed: int = 7, workers: int = 0):
    module = DataModule(
        [dotted("a", 1.0), dotted("b", 2.0)],
        [dotted("v", 3.0)],
        sampler=PatchSampler((8, 8), foreground=0.5),
        augmentation=AUGMENTATIONS.build("light", 2, (8, 8)),
        batch=3,
        iterations_per_epoch=4,
        seed=seed,
        workers=workers,
    )
    return module.train_dataloader()


def epoch(batches, number: int) -> torch.Tensor:
    batches.sampler.set_epoch(number)
    return torch.cat([batch["image"] for batch in batches])


def test_an_epoch_has_the_steps_that_the_job_asks_for():
    batches = list(loader())

    assert len(batches) == len(loader()) == 4
    assert batches[0]["image"].shape == (3, 1, 8, 8)
    assert batches[0]["label"].shape == (3, 1, 8, 8)
    assert {name for batch in batches for name in batch["case"]} == {"a", "b"}


def test_the_same_seed_and_epoch_give_the_same_patches_with_and_without_workers():
    torch.testing.assert_close(epoch(loader(), 2), epoch(loader(), 2))
    torch.testing.assert_close(epoch(loader(), 2), epoch(loader(workers=2), 2))


def test_epochs_and_seeds_differ():
    assert not torch.equal(epoch(loader(), 0), epoch(loader(), 1))
    assert not torch.equal(epoch(loader(seed=7), 0), epoch(loader(seed=8), 0))


def test_a_loader_goes_on_in_the_middle_of_an_epoch_and_starts_the_next_whole():
    whole, first, second = epoch(loader(), 5), loader(), loader()
    first.sampler.set_epoch(5)
    batches = iter(first)
    taken = torch.cat([next(batches)["image"] for _ in range(3)])

    second.load_state_dict(first.state_dict())

    torch.testing.assert_close(torch.cat([taken, epoch(second, 5)]), whole)
    torch.testing.assert_close(epoch(second, 6), epoch(loader(), 6))
    assert second.state_dict() == {"taken": 0}


@pytest.fixture
def case(tmp_path) -> Case:
    grid = Grid((6, 8), (1.0, 1.0), Unit.UM)
    ramp = Image(np.arange(48, dtype=np.uint8).reshape(6, 8), grid, "YX")
    write_image(tmp_path / "a.tif", ramp)
    write_labels(tmp_path / "a_masks.tif", (ramp.array > 40).astype(np.uint8) * 9, ramp)
    return Case("dish", (tmp_path / "a.tif",), tmp_path / "a_masks.tif", "dish")


def preparation(spacing=None, unit=Unit.PX) -> Preparation:
    return Preparation(2, spacing, unit, NORMALISATIONS.build("zscore"))


def test_a_case_is_prepared_with_its_classes(case):
    labels = LabelMap({"background": 0, "cell": 9})

    made = prepare_case(case, Reading(channels=("image",)), labels, preparation())

    assert made.source.image.shape == (1, 6, 8)
    assert float(made.source.image.mean()) == pytest.approx(0, abs=1e-5)
    assert made.source.label.sum() == 7


def test_what_is_wrong_with_a_case_is_told_with_its_name(case):
    reading, labels = Reading(channels=("image",)), LabelMap({"background": 0, "cell": 1})
    with pytest.raises(MedsegError, match=r"dish: the labels hold values .*: 9 \(7 voxels\)"):
        prepare_case(case, reading, labels, preparation())

    (case.images[0]).write_bytes(b"no image")
    with pytest.raises(MedsegError, match=r"a\.tif"):
        prepare_case(case, reading, labels, preparation())


def test_millimetres_on_an_image_without_a_pixel_size_are_refused_with_its_name(tmp_path):
    plain = Image(np.zeros((6, 8), np.uint8), Grid((6, 8), (1.0, 1.0)), "YX")
    write_image(tmp_path / "a.png", plain)
    case = Case("slide", (tmp_path / "a.png",), tmp_path / "a.png", "slide")
    labels = LabelMap({"background": 0, "cell": 1})

    with pytest.raises(MedsegError, match="slide: 2 mm cannot be expressed in px"):
        prepare_case(case, Reading(channels=("image",)), labels, preparation((2.0, 2.0), Unit.MM))


def test_images_of_a_hard_class_are_repeated_and_no_others():
    with_class, without = dotted("a", 1.0), dotted("b", 2.0)
    without = PreparedCase("b", PatchSource.of(without.source.image, without.source.label * 0))

    assert [c.name for c in repeat_hard([with_class, without], {1: 3})] == ["a", "a", "a", "b"]
    assert [c.name for c in repeat_hard([with_class, without], {2: 3})] == ["a", "b"]


def test_classes_are_counted_with_the_judged_voxels_of_the_cases_that_hold_them():
    label = torch.zeros((1, 20, 20), dtype=torch.int32)
    label[0, 0] = -1  # nobody judged the first row
    unjudged = PreparedCase("u", PatchSource.of(torch.zeros(1, 20, 20), label))

    assert count_classes([dotted("a", 1.0), unjudged], 3) == ([399 + 380, 1, 0], [780, 400, 0])
