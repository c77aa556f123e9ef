"""Facts of the losses over voxels, worked out by hand."""

from math import log

import pytest
import torch

from medseg.losses import LOSSES, CrossEntropy, DeepSupervision, DiceCE
from medseg.losses.deep_supervision import nearest_onto, supervision_weights


def certain(target: torch.Tensor, classes: int, logit: float = 50.0) -> torch.Tensor:
    """Logits that are sure of the target."""
    one_hot = torch.nn.functional.one_hot(target[:, 0], classes).movedim(-1, 1)
    return logit * one_hot.float()


@pytest.fixture
def target() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 3, (2, 1, 6, 5, 4))


@pytest.mark.parametrize("name", list(LOSSES))
def test_being_sure_and_right_costs_nothing(name: str, target: torch.Tensor):
    assert LOSSES.build(name)(certain(target, 3), target).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_finite_in_half_precision_too(name: str, target: torch.Tensor):
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(2, 3, 6, 5, 4, dtype=dtype, requires_grad=True)
        LOSSES.build(name)(logits, target).backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad != 0).any()


@pytest.mark.parametrize("name", list(LOSSES))
def test_ignored_voxels_change_nothing(name: str, target: torch.Tensor):
    loss = LOSSES.build(name, ignore_index=-1)
    logits = torch.randn(2, 3, 6, 5, 4)
    target[:, :, 3:] = -1
    elsewhere = logits.clone()
    elsewhere[:, :, 3:] += 7.0 * torch.randn(2, 3, 3, 5, 4)

    assert loss(logits, target).item() == pytest.approx(loss(elsewhere, target).item(), rel=1e-6)
    cropped = LOSSES.build(name)(logits[:, :, :3], target[:, :, :3])
    assert loss(logits, target).item() == pytest.approx(cropped.item(), rel=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_an_image_without_any_annotation_has_no_cross_entropy(name: str):
    target = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    loss = LOSSES.build(name, ignore_index=255)(torch.randn(1, 2, 4, 4), target)
    assert torch.isfinite(loss)


def test_equal_logits_cost_the_logarithm_of_the_classes(target: torch.Tensor):
    assert CrossEntropy()(torch.zeros(2, 3, 6, 5, 4), target).item() == pytest.approx(log(3))


def test_class_weights_form_a_weighted_mean():
    target = torch.tensor([0, 0, 0, 1]).reshape(1, 1, 2, 2)
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 0] = 1.0
    right, wrong = log(1 + torch.e**-1), log(1 + torch.e)
    expected = (3 * 1 * right + 1 * 3 * wrong) / 6

    assert CrossEntropy(class_weights=(1, 3))(logits, target).item() == pytest.approx(expected)
    ignoring = CrossEntropy(class_weights=(1, 3), ignore_index=9)
    assert ignoring(logits, target).item() == pytest.approx(expected)


def test_dice_of_half_the_voxels_found_is_two_thirds():
    target = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    target[..., :2] = 1
    found = target.clone()
    found[..., :1] = 0

    only_dice = DiceCE(ce_weight=0.0)
    assert only_dice(certain(found, 2), target).item() == pytest.approx(1 - 2 / 3, abs=1e-5)


def test_batch_dice_weighs_images_by_their_voxels():
    target = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    target[0] = 1
    target[1, :, 0, 0] = 1
    found = target.clone()
    found[1] = 0

    each = DiceCE(ce_weight=0.0)(certain(found, 2), target).item()
    together = DiceCE(ce_weight=0.0, batch=True)(certain(found, 2), target).item()
    assert each == pytest.approx((0 + 1) / 2, abs=1e-5)
    assert together == pytest.approx(1 - 2 * 16 / (16 + 17), abs=1e-5)


def test_background_has_no_part_in_dice_unless_asked():
    target = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    target[..., :1, :1] = 1
    missed = certain(torch.zeros_like(target), 2)

    assert DiceCE(ce_weight=0.0)(missed, target).item() == pytest.approx(1.0, abs=1e-4)
    both = DiceCE(ce_weight=0.0, include_background=True)(missed, target).item()
    assert both == pytest.approx((1 + 1 - 30 / 31) / 2, abs=1e-4)


def test_targets_may_be_small_integers(target: torch.Tensor):
    logits = torch.randn(2, 3, 6, 5, 4)
    for name in LOSSES:
        loss = LOSSES.build(name)
        assert loss(logits, target.to(torch.uint8)).item() == loss(logits, target).item()


@pytest.mark.parametrize("name", list(LOSSES))
def test_wrong_shapes_and_weights_are_refused(name: str, target: torch.Tensor):
    logits = torch.randn(2, 3, 6, 5, 4)
    with pytest.raises(ValueError, match="ask for"):
        LOSSES.build(name)(logits[..., :2], target)
    with pytest.raises(ValueError, match="two classes or more"):
        LOSSES.build(name)(logits[:, :1], target)
    with pytest.raises(ValueError, match="there are 3 classes"):
        LOSSES.build(name, class_weights=[1.0, 2.0])(logits, target)
    with pytest.raises(ValueError, match="not negative"):
        LOSSES.build(name, class_weights=[1.0, -2.0])


def test_supervision_weights_halve_and_leave_out_the_coarsest():
    assert supervision_weights(1) == (1.0,)
    assert supervision_weights(3) == pytest.approx((2 / 3, 1 / 3, 0))
    assert supervision_weights(5) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))


def test_deep_supervision_is_the_weighted_sum_over_grids():
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 1, 8, 8))
    outputs = [torch.randn(1, 2, n, n) for n in (8, 4, 2)]
    one = DiceCE()
    every_second = target[..., 1::2, 1::2]
    expected = 2 / 3 * one(outputs[0], target) + 1 / 3 * one(outputs[1], every_second)

    assert DeepSupervision(one)(outputs, target).item() == pytest.approx(expected.item())
    assert DeepSupervision(one)(outputs[0], target).item() == one(outputs[0], target).item()
    with pytest.raises(ValueError, match="2 weights"):
        DeepSupervision(one, weights=(1, 1))(outputs, target)


def test_coarser_targets_keep_whole_classes_also_on_odd_grids():
    target = torch.arange(7).reshape(1, 1, 7).expand(1, 1, 7).reshape(1, 1, 1, 7)
    coarse = nearest_onto(target, (1, 4))
    assert coarse.flatten().tolist() == [1, 3, 5, 6]  # the last cell has one voxel
    assert coarse.dtype == target.dtype


@pytest.mark.parametrize(
    ("n", "stride", "voxels"), [(17, 16, [8, 16]), (33, 16, [8, 24, 32]), (65, 32, [16, 48, 64])]
)
def test_a_coarser_target_lies_in_its_own_cell(n: int, stride: int, voxels: list[int]):
    cells = -(-n // stride)
    coarse = nearest_onto(torch.arange(n).reshape(1, 1, n, 1), (cells, 1))
    assert coarse.flatten().tolist() == voxels
