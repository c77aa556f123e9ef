"""The dense prediction cell."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from medseg.networks import NETWORKS, DeepLabV3, DeepLabV3Plus
from medseg.networks.dpc import (
    CITYSCAPES_TOP1,
    Branch,
    DPCHead,
    dpc_cells,
    sample_dpc_cell,
)

TINY = {"encoder": "resnet10", "encoder_width": 4}


def plain(head: DPCHead) -> DPCHead:
    """All weights one and no norms, so that a gradient is zero only where nothing reaches."""
    for weights in head.parameters():
        nn.init.constant_(weights, 1.0 if weights.dim() > 1 else 0.0)
    return head.double().eval()


def reached(head: nn.Module, size: tuple[int, ...]) -> np.ndarray:
    """The features that the middle cell of the output sees."""
    features = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    head(features)[0, 0][tuple(n // 2 for n in size)].backward()
    return (features.grad[0, 0] != 0).numpy()


def test_parameters_are_as_published():
    with torch.device("meta"):
        head = DPCHead(2, 2048, built_for=(16, 16), norm="batch")
    kernels = [w.numel() for w in head.branches.parameters() if w.dim() == 4]
    assert sum(kernels) == 814_080
    assert sum(w.numel() for w in head.parameters()) == 1_150_976
    assert head.project[1][0].weight.shape == (256, 1280, 1, 1), "all five are put together"


def test_the_space_has_as_many_cells_as_published():
    assert dpc_cells(1) == 1 + 8 * 8 + 4 * 4
    assert dpc_cells(5) == 120 * 81**5
    assert f"{dpc_cells(5):.3e}" == "4.184e+11"


def test_a_rate_of_one_row_and_six_columns_reaches_3_by_13_cells_with_9_taps():
    head = plain(DPCHead(2, 1, 4, built_for=(16, 16), norm="none"))
    seen = reached(head.branches[0], (25, 25))
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    assert list(rows) == [11, 12, 13]
    assert list(columns) == [6, 12, 18]
    assert seen.sum() == 9


def test_the_cell_reaches_as_far_as_its_rates_add_up_along_the_widest_path():
    """Rows: branches 0, 1, 2 have 1 + 18 + 6; columns: branches 0 and 4 have 6 + 21."""
    head = plain(DPCHead(2, 1, 2, built_for=(16, 16), norm="none"))
    seen = reached(head, (61, 61))
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    assert rows[-1] - rows[0] == 2 * 25
    assert columns[-1] - columns[0] == 2 * 27
    assert [sum(step.dilation for step in head.steps(axis)) for axis in (0, 1)] == [25, 27]


def test_rates_double_at_output_stride_8_and_return():
    network = DeepLabV3Plus(2, 1, 2, context="dpc", output_stride=16, **TINY)
    published = [branch.rates for branch in CITYSCAPES_TOP1]
    assert network.context.rates == published
    network.set_output_stride(8)
    assert network.context.rates == [(2, 12), (36, 30), (12, 6), (2, 2), (12, 42)]
    built = DeepLabV3Plus(2, 1, 2, context="dpc", output_stride=8, **TINY)
    assert built.context.rates == network.context.rates
    network.set_output_stride(16)
    assert network.context.rates == published


def test_in_3d_rates_are_triplets_in_proportion_to_the_patch():
    """132 voxels in cells of 8 are half of 33 cells, 24 slices in cells of 2 are 4 / 11 of them."""
    network = DeepLabV3Plus(
        3, 1, 2, context="dpc", patch_voxels=(24, 132, 132), spacing=(5, 1, 1), **TINY
    )
    assert network.output_stride == (2, 8, 8)
    assert network.context.rates == [
        (1, 1, 3),  # 1, 1, 6
        (5, 9, 8),  # 15, 18, 15
        (1, 3, 2),  # 3, 6, 3
        (1, 1, 1),  # 1, 1, 1
        (2, 3, 10),  # 6, 6, 21; 10.5 to even
    ]
    assert network(torch.randn(1, 1, 5, 20, 33)).shape == (1, 2, 5, 20, 33)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_drawn_cells_have_no_loops_and_train(spatial_dims: int):
    rng = np.random.default_rng(7)
    for _ in range(4):
        cell = sample_dpc_cell(rng, branches=5, spatial_dims=spatial_dims)
        assert all(-1 <= branch.source < place for place, branch in enumerate(cell))
        head = DPCHead(spatial_dims, 8, 4, cell=cell, built_for=(16,) * spatial_dims)
        features = torch.randn(1, 8, *(7, 6, 5)[:spatial_dims])
        head(features).square().sum().backward()
        assert all(torch.isfinite(w.grad).all() for w in head.parameters())


def test_every_kind_of_branch_is_drawn_as_often_as_there_are_of_it():
    rng = np.random.default_rng(0)
    drawn = [sample_dpc_cell(rng, branches=1)[0] for _ in range(4000)]
    dilated = sum(branch.rates is not None for branch in drawn) / len(drawn)
    averaged = sum(branch.grid is not None for branch in drawn) / len(drawn)
    assert dilated == pytest.approx(64 / 81, abs=0.03)
    assert averaged == pytest.approx(16 / 81, abs=0.03)


def test_a_branch_that_reads_itself_or_later_ones_is_refused():
    with pytest.raises(ValueError, match="branch 1 reads -1"):
        DPCHead(2, 4, 4, cell=(Branch(-1), Branch(1)), built_for=(16, 16))
    with pytest.raises(ValueError, match="numbers for 2 axes"):
        DPCHead(2, 4, 4, cell=(Branch(-1, rates=(1, 1, 1)),), built_for=(16, 16))
    with pytest.raises(ValueError, match="not both"):
        DPCHead(2, 4, 4, cell=(Branch(-1, (1, 1), (2, 2)),), built_for=(16, 16))


def test_a_cell_has_no_rates_of_the_pyramid():
    with pytest.raises(ValueError, match="aspp_rates"):
        DeepLabV3Plus(2, 1, 2, context="dpc", aspp_rates=(1, 2), **TINY)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_averages_are_those_of_equal_parts_and_have_a_deterministic_gradient(spatial_dims: int):
    cell = (Branch(-1, grid=(2, 4)),)
    head = DPCHead(spatial_dims, 4, 4, cell=cell, built_for=(8,) * spatial_dims, norm="none")
    seen = []
    head.branches[0].pooled.register_forward_pre_hook(lambda _, entered: seen.append(entered[0]))
    features = torch.randn(2, 4, *(7, 9, 10)[-spatial_dims:], requires_grad=True)
    head(features).sum().backward()
    adaptive = {2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}
    expected = adaptive[spatial_dims](features, (2, 2, 4)[-spatial_dims:])
    torch.testing.assert_close(seen[0], expected)
    kinds, queue = set(), [seen[0].grad_fn]
    while queue:
        node = queue.pop()
        if node is not None:
            kinds.add(node.name())
            queue += [before for before, _ in node.next_functions]
    assert not any("Adaptive" in kind for kind in kinds), "not deterministic on a GPU"


CELL = [{"source": -1, "rates": [1, 6]}, {"source": 0, "grid": [2, 4]}, {"source": 1}]


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_a_job_chooses_the_cell(name: str):
    network = NETWORKS.build(name, 2, 1, 3, context="dpc", context_cell=CELL, **TINY)
    assert network.context.rates == [(2, 12), None, None]
    assert network.context.sources == [-1, 0, 1]
    assert network.context.branches[1].grid == (2, 4)
    assert network(torch.randn(1, 1, 33, 20)).shape == (1, 3, 33, 20)


def test_without_a_cell_it_is_the_published_one():
    published = [{k: v for k, v in asdict(b).items() if v is not None} for b in CITYSCAPES_TOP1]
    built, given = (
        DeepLabV3(2, 1, 2, context="dpc", context_cell=cell, **TINY) for cell in (None, published)
    )
    assert given.context.rates == built.context.rates
    given.load_state_dict(built.state_dict())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_drawn_cell_is_a_setting(spatial_dims: int):
    cell = [asdict(b) for b in sample_dpc_cell(np.random.default_rng(3), spatial_dims=spatial_dims)]
    settings = {"context": "dpc", "context_cell": cell, "output_stride": 16, **TINY}
    network = NETWORKS.build("deeplabv3", spatial_dims, 1, 2, **settings)
    assert network.context.rates == [branch["rates"] for branch in cell]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([], "context_cell has one branch or more, got none"),
        (
            [{"source": -1, "rate": [1, 6]}],
            r'context_cell\[0\]\.rate: .* did you mean "rates"',
        ),
        ([{"rates": [1, 6]}], r"context_cell\[0\] needs a source"),
        ([{"source": 0}], r"context_cell\[0\] reads -1 .*, got 0"),
        ([{"source": "features"}], r"context_cell\[0\] reads -1 .*, got 'features'"),
        ([{"source": -1, "rates": [1, 0]}], r"numbers of 1 and up, got \(1, 0\)"),
        ([{"source": -1, "grid": [0, 2]}], r"numbers of 1 and up, got \(0, 2\)"),
        ([{"source": -1, "rates": []}], r"numbers for 2 axes or 2, got \(\)"),
        ([{"source": -1, "rates": 6}], "numbers for 2 axes or 2, got 6"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(cell, said: str):
    with pytest.raises(ValueError, match=said):
        DeepLabV3(2, 1, 2, context="dpc", context_cell=cell, **TINY)


def test_a_pyramid_has_no_cell():
    with pytest.raises(ValueError, match='context_cell is for the context "dpc"'):
        DeepLabV3(2, 1, 2, context_cell=CELL, **TINY)
