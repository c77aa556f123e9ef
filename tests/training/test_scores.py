"""Dice and IoU of whole images, from counts."""

import pytest
import torch

from medseg.training import SegmentationModule
from medseg.training.module import scores


def module(**settings) -> SegmentationModule:
    network = torch.nn.Conv2d(1, 3, 1)
    return SegmentationModule(
        network,
        torch.nn.functional.cross_entropy,
        structures={"cell": 1, "border": 2},
        window_voxels=(4, 4),
        **settings,
    )


def test_dice_is_averaged_over_images_then_over_structures():
    counts = torch.tensor(
        [
            [[6, 2, 2], [1, 0, 0]],  # cell: 12/16, 6/10; border: 1
            [[2, 0, 6], [0, 3, 0]],  # cell: 4/10, 2/8; border: drawn where there is none, 0
        ]
    )

    assert scores(counts, ["cell", "border"]) == pytest.approx(
        {
            "dice/cell": (0.75 + 0.4) / 2,
            "iou/cell": (0.6 + 0.25) / 2,
            "dice/border": 0.5,
            "iou/border": 0.5,
            "dice": (0.575 + 0.5) / 2,
            "iou": (0.425 + 0.5) / 2,
        }
    )


def test_an_image_without_a_structure_in_which_none_is_drawn_is_not_counted():
    counts = torch.tensor([[[4, 0, 0], [0, 0, 0]], [[4, 0, 0], [3, 1, 1]]])

    assert scores(counts, ["cell", "border"])["dice/border"] == 0.75


def test_a_structure_that_nobody_has_or_draws_has_no_score():
    counts = torch.tensor([[[3, 1, 1], [0, 0, 0]]])

    found = scores(counts, ["cell", "border"])

    assert "dice/border" not in found
    assert found["dice"] == 0.75
    assert scores(torch.zeros(2, 2, 3), ["cell", "border"]) == {"dice": 0.0, "iou": 0.0}


def test_hits_false_alarms_and_misses_are_counted_where_somebody_has_judged():
    classes = torch.tensor([[1, 1, 2], [0, 1, 2]])
    label = torch.tensor([[1, 0, 2], [1, -1, 0]])

    counts = module().count(classes, label)

    assert counts.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_the_optimiser_is_the_one_asked_for():
    sgd = module(optimiser="sgd", learning_rate=0.1, momentum=0.9).configure_optimizers()
    adamw = module(weight_decay=0.5).configure_optimizers()

    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["weight_decay"] == 0.5
    # Nesterov's momentum needs momentum.
    assert not module(optimiser="sgd", momentum=0.0).configure_optimizers().defaults["nesterov"]
