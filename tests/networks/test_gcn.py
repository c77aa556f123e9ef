"""What only the global convolutional network promises."""

import pytest
import torch
from torch import nn

from medseg.networks import GCN
from medseg.networks.gcn import AlignedUp, BoundaryRefinement, LargeKernelBlock

TINY = {"encoder": "resnet10", "encoder_width": 4}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def block_of(k: int, **settings) -> LargeKernelBlock:
    """From 2048 channels to 21 scores, without biases, as the paper's table counts."""
    with torch.device("meta"):
        return LargeKernelBlock(2, 2048, 21, k=(k, k), bias=False, **settings)


@pytest.mark.parametrize(
    ("k", "thin", "dense"),
    [
        (3, 260_694, 387_072),
        (5, 434_490, 1_075_200),
        (7, 608_286, 2_107_392),
        (9, 782_082, 3_483_648),
        (11, 955_878, None),
        (13, 1_129_674, None),
        (15, 1_303_470, None),
    ],
)
def test_thin_and_dense_kernels_have_the_papers_weights(k: int, thin: int, dense: int | None):
    assert count(block_of(k)) == thin
    if dense is not None:
        assert count(block_of(k, kernels="trivial")) == dense


@pytest.mark.parametrize(
    ("width", "expected"), [(None, 75_884_544), (1024, 28_505_088), (210, 4_307_310)]
)
def test_a_stack_of_seven_cells_has_the_papers_weights(width: int | None, expected: int):
    assert count(block_of(7, kernels="stack", stack_channels=width)) == expected


@pytest.mark.parametrize(("k", "expected"), [(7, 1_261_092), (15, 2_579_556)])
def test_the_published_network_has_the_papers_weights(k: int, expected: int):
    with torch.device("meta"):
        network = GCN.paper(k=k)
        assert count(network) - count(network.encoder) == expected
        refinements = [m for m in network.modules() if isinstance(m, BoundaryRefinement)]
        assert [count(part) for part in refinements] == [7_980] * 9


def test_thin_kernels_in_3d_are_a_fifteenth_of_the_dense_one():
    k = (7, 7, 7)
    assert count(LargeKernelBlock(3, 64, 2, k=k)) == 2_874
    assert count(LargeKernelBlock(3, 64, 2, k=k, kernels="trivial")) == 43_906


@pytest.mark.parametrize("kernels", ["gcn", "trivial", "stack"])
@pytest.mark.parametrize("k", [(3, 3), (7, 7), (15, 15), (1, 5), (7, 7, 7), (3, 5, 1)])
def test_a_block_sees_all_of_k_cells_along_each_axis_and_none_besides(kernels, k):
    torch.manual_seed(0)
    block = LargeKernelBlock(len(k), 2, 2, k=k, kernels=kernels).double()
    features = torch.zeros(1, 2, *(side + 4 for side in k), dtype=torch.float64).requires_grad_()
    middle = tuple((side + 4) // 2 for side in k)
    block(features)[(0, 0, *middle)].backward()
    reached = features.grad[0].any(0)
    expected = torch.zeros_like(reached)
    expected[tuple(slice(2, side + 2) for side in k)] = True
    assert torch.equal(reached, expected)


@pytest.mark.parametrize("kernels", ["gcn", "trivial", "stack"])
def test_a_block_is_linear(kernels):
    torch.manual_seed(0)
    block = LargeKernelBlock(2, 3, 2, k=(5, 5), kernels=kernels, bias=False).double()
    x, y = torch.randn(2, 1, 3, 8, 9).double()
    torch.testing.assert_close(block(2 * x - 3 * y), 2 * block(x) - 3 * block(y))


@pytest.mark.parametrize("k", [(4, 5), (0, 3), (3,)])
def test_a_kernel_without_a_middle_is_refused(k: tuple[int, ...]):
    with pytest.raises(ValueError, match="odd"):
        LargeKernelBlock(2, 3, 2, k=k)


def test_an_even_k_is_refused_even_if_the_patch_would_shorten_it():
    with pytest.raises(ValueError, match="odd"):
        GCN(2, 1, 2, k=8, patch_voxels=(16, 16))


def test_a_new_boundary_refinement_changes_nothing_and_can_learn():
    torch.manual_seed(0)
    refinement = BoundaryRefinement(2, 3)
    scores = torch.randn(1, 3, 6, 5)
    assert torch.equal(refinement(scores), scores)
    refinement(scores).square().sum().backward()
    assert refinement.second.weight.grad.any()


@pytest.mark.parametrize(
    ("stride", "cells", "finer"),
    [((2, 2), (5, 4), (9, 7)), ((1, 2), (5, 1), (5, 1)), ((1, 2, 2), (3, 5, 4), (3, 9, 7))],
)
def test_a_new_way_up_interpolates_linearly_with_aligned_corners(stride, cells, finer):
    scores = torch.randn(1, 2, *cells, generator=torch.Generator().manual_seed(0))
    mode = "bilinear" if len(cells) == 2 else "trilinear"
    expected = nn.functional.interpolate(scores, size=finer, mode=mode, align_corners=True)
    torch.testing.assert_close(AlignedUp(len(cells), 2, stride)(scores), expected)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_new_network_does_the_same_with_either_way_up(spatial_dims: int):
    torch.manual_seed(0)
    learned = GCN(spatial_dims, 1, 2, **TINY).eval()
    linear = GCN(spatial_dims, 1, 2, **TINY, upsample="linear").eval()
    linear.load_state_dict({k: w for k, w in learned.state_dict().items() if "ups." not in k})
    image = torch.randn(1, 1, 40, 33, 18)[..., : 18 if spatial_dims == 3 else 1]
    image = image if spatial_dims == 3 else image[..., 0]
    with torch.no_grad():
        torch.testing.assert_close(learned(image), linear(image), rtol=1e-4, atol=1e-5)


def test_the_fourth_tap_of_a_way_up_widens_the_field_as_stated():
    torch.manual_seed(0)
    network = GCN(2, 1, 2, **TINY, mid_channels=2, k=3, norm="none").double().eval()
    network.encoder.pool = nn.AvgPool2d(3, stride=2, padding=1)
    for weights in network.parameters():
        weights.data.fill_(0.1 if weights.dim() > 1 else 0.0)
    field = network.receptive_field()[0]
    image = torch.ones(1, 1, field + 128, 5, dtype=torch.float64, requires_grad=True)
    logits = network(image)[0, 0, :, 2]
    widths = []
    for position in range(field // 2 + 64, field // 2 + 96):
        (reached,) = torch.autograd.grad(logits[position], image, retain_graph=True)
        rows = reached[0, 0].any(1).nonzero()
        widths.append(int(rows.max() - rows.min()) + 1)
    assert max(widths) == field


def test_kernels_are_no_larger_than_the_map_of_the_patch():
    # 64 voxels are 17, 9, 5 and 3 cells of 4, 8, 16 and 32; 20 are 6, 4, 3 and 2, the odd of which
    # are 5, 3, 3 and 1.
    network = GCN(2, 1, 2, **TINY, k=15, patch_voxels=(64, 20))
    assert network.k == [(15, 5), (9, 3), (5, 3), (3, 1)]
    assert GCN(2, 1, 2, **TINY, k=15).k == [(15, 15)] * 4


@pytest.mark.parametrize(
    ("classes", "asked", "scores"), [(3, None, 21), (30, None, 30), (3, 3, 3), (3, 8, 8)]
)
def test_scores_of_other_channels_than_classes_are_mapped_onto_them(classes, asked, scores):
    network = GCN(2, 1, classes, **TINY, mid_channels=asked)
    assert network.large[0].branches[0][0].out_channels == scores
    assert len(network.head) == (scores != classes)
    assert network(torch.randn(1, 1, 20, 20)).shape == (1, classes, 20, 20)


def test_boundary_refinement_can_be_left_out():
    network = GCN(2, 1, 2, **TINY, boundary_refinement=False)
    assert not any(isinstance(module, BoundaryRefinement) for module in network.modules())
    assert network(torch.randn(1, 1, 20, 20)).shape == (1, 2, 20, 20)


@pytest.mark.parametrize("upsample", ["deconv", "linear"])
def test_thick_slices_are_halved_late(upsample):
    network = GCN(3, 1, 2, **TINY, spacing=(5, 1, 1), upsample=upsample)
    assert network.output_stride == (8, 32, 32)
    assert network(torch.randn(1, 1, 5, 33, 18)).shape == (1, 2, 5, 33, 18)
