"""What only Auto-DeepLab promises."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from medseg.networks import NETWORKS, AutoDeepLab
from medseg.networks.autodeeplab import CITYSCAPES_2019, Genotype, drop_images, operation

CELL = ((("sep3", 0), ("atr3", 1)), (("max3", 0), ("skip", 1)), (("avg3", 1), ("sep5", 3)))
TINY = {"filter_multiplier": 2, "stem_channels": 2, "aspp_channels": 4, "decoder_channels": 4}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@pytest.mark.parametrize(
    ("size", "expected"), [("S", 10_147_427), ("M", 21_622_451), ("L", 44_424_691)]
)
def test_parameters_are_as_published(size: str, expected: int):
    with torch.device("meta"):
        assert count(AutoDeepLab.paper(3, 19, size=size)) == expected


def test_the_found_path_has_the_published_strides_and_widths():
    with torch.device("meta"):
        network = AutoDeepLab.paper()
    strides = [network.grids[place][0] for place in network.places[2:]]
    assert strides == [4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8]
    assert network.channels == [64, 128, *(100 * s // 4 for s in strides)]
    assert network.aspp.rates == [(12, 12), (24, 24), (36, 36)]
    assert network.low_level == 4, "the third layer, the last one at stride 4"


def test_a_prefix_has_the_first_layers_of_the_path():
    with torch.device("meta"):
        network = AutoDeepLab(2, 1, 2, depth=6)
    assert network.levels == (0, 0, 0, 1, 2, 1)
    assert network.output_stride == (16, 16)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_strided_atrous_operation_halves_by_resizing_and_then_convolves_at_rate_1(
    spatial_dims: int,
):
    torch.manual_seed(0)
    part = operation(
        spatial_dims, "atr5", 3, kernel=(3,) * spatial_dims, stride=(2,) * spatial_dims, norm="none"
    )
    features = torch.randn(1, 3, *(17, 13, 9)[:spatial_dims])
    half = F.interpolate(
        features.relu(),
        size=(9, 7, 5)[:spatial_dims],
        mode={2: "bilinear", 3: "trilinear"}[spatial_dims],
        align_corners=True,
    )
    conv = {2: F.conv2d, 3: F.conv3d}[spatial_dims]
    torch.testing.assert_close(part(features), conv(half, part[1].weight, part[1].bias, padding=2))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_an_average_counts_no_zeros_beyond_the_edge(spatial_dims: int, size: int):
    part = operation(
        spatial_dims, "avg3", 2, kernel=(3,) * spatial_dims, stride=(2,) * spatial_dims, norm="none"
    )
    ramp = torch.arange(1.0, size + 1)
    mean = part(ramp.expand(1, 2, *(size,) * spatial_dims))
    expected = [ramp[max(i - 1, 0) : i + 2].mean() for i in range(0, size, 2)]
    torch.testing.assert_close(mean, torch.stack(expected).expand_as(mean))


def test_a_separable_operation_is_applied_twice():
    part = operation(2, "sep5", 6, kernel=(3, 3), stride=(2, 2), norm="batch")
    convs = [layer for layer in part if isinstance(layer, nn.Conv2d)]
    assert count(part) == 2 * (25 * 6 + 6 * 6 + 2 * 6)
    assert [conv.stride[0] for conv in convs] == [2, 1, 1, 1]


@pytest.mark.parametrize("levels", [(1, 2, 1, 0), (0, 0), (0, 1, 2, 2), (1, 1, 0, 1)])
@pytest.mark.parametrize("decoder_stride", [2, 4])
def test_the_receptive_field_of_other_paths_is_what_the_gradient_reaches(
    levels: tuple[int, ...], decoder_stride: int
):
    network = AutoDeepLab(
        2,
        1,
        1,
        levels=levels,
        cell=CELL,
        aspp_rates=(3,),
        image_pooling=False,
        decoder_stride=decoder_stride,
        norm="none",
        **TINY,
    )
    network = network.double().eval()
    with torch.no_grad():
        for key, weights in network.named_parameters():
            weights.fill_(0.0 if key.endswith("bias") else 1 / weights[0].numel())
    for cell in network.cells:
        for index, part in enumerate(cell.operations):
            if isinstance(part, nn.MaxPool2d):
                cell.operations[index] = nn.AvgPool2d(part.kernel_size, part.stride, part.padding)
    field, stride = network.receptive_field()[0], network.output_stride[0]
    image = torch.ones(1, 1, field + 4 * stride, 3, dtype=torch.float64, requires_grad=True)
    middle = image.shape[2] // 2
    logits = network(image)[0, 0, :, 1]
    widths = []
    for position in range(middle, middle + stride):
        (reached,) = torch.autograd.grad(logits[position], image, retain_graph=True)
        rows = reached[0, 0].abs().sum(1).nonzero()
        widths.append(int(rows.max() - rows.min()) + 1)
    assert max(widths) == field


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_another_genotype_trains_every_weight(spatial_dims: int):
    torch.manual_seed(0)
    network = AutoDeepLab(spatial_dims, 1, 2, levels=(1, 2, 1, 0), cell=CELL, **TINY)
    logits = network(torch.randn(1, 1, *(33, 20, 9)[:spatial_dims]))
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())


def test_thick_slices_are_halved_late_and_with_flat_kernels():
    network = AutoDeepLab(3, 1, 2, depth=5, spacing=(5, 1, 1), **TINY)
    assert network.grids == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32)]
    assert network.output_stride == (4, 16, 16)
    assert network.stem[0][0].kernel_size == (1, 3, 3)
    assert network(torch.randn(1, 1, 5, 33, 18)).shape == (1, 2, 5, 33, 18)


def drop_path_logits(network: nn.Module, image: Tensor, seed: int, steps: int) -> list[Tensor]:
    torch.manual_seed(seed)
    with torch.no_grad():
        return [network(image) for _ in range(steps)]


def test_drop_path_grows_with_the_steps_and_follows_the_seed():
    image = torch.randn(2, 1, 17, 17, generator=torch.Generator().manual_seed(1))
    settings = {"depth": 4, "dropout": 0.0, "norm": "group", **TINY}
    torch.manual_seed(0)
    network = AutoDeepLab(2, 1, 2, drop_path=0.9, drop_path_steps=2, **settings)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    plain = AutoDeepLab(2, 1, 2, **settings)
    plain.load_state_dict({key: v for key, v in start.items() if key != "trained_steps"})

    logits = drop_path_logits(network, image, seed=3, steps=3)
    whole = plain(image)
    assert torch.equal(logits[0], whole), "nothing is dropped in the first step"
    assert not torch.allclose(logits[2], whole)

    network.load_state_dict(start)
    again = drop_path_logits(network, image, seed=3, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(logits, again, strict=True))
    assert torch.equal(network.eval()(image), whole), "evaluation drops nothing"


def test_dropped_operations_are_made_up_for_on_average():
    torch.manual_seed(0)
    kept = drop_images(torch.ones(20_000, 1, 1, 1), 0.75)
    assert sorted(kept.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("levels", "cell", "message"),
    [
        ((0, 2), CELL, r"levels\[1\] is 2 after 0"),
        ((2, 1), CELL, r"levels\[0\] is 2"),
        ((0, 1, 2, 3, 4), CELL, r"levels\[4\] is 4"),
        ((), CELL, "need a layer"),
        ((0,), [[("sep3", 0), ("sep3", 2)]], r"cell\[0\]"),
        ((0,), [[("sep3", 0), ("sep5", 0)]], "two different states"),
        ((0,), [[("sep7", 0), ("sep5", 1)]], "sep3, sep5"),
    ],
)
def test_what_is_no_genotype_is_refused(levels, cell, message: str):
    with pytest.raises(ValueError, match=message):
        Genotype(levels, cell)


def test_a_job_file_can_hold_a_genotype():
    found = {"levels": [0, 1], "cell": [[["sep3", 0], ["skip", 1]]]}
    network = NETWORKS.build("autodeeplab", 2, 1, 2, **found, **TINY)
    assert network(torch.randn(1, 1, 9, 12)).shape == (1, 2, 9, 12)
    with pytest.raises(ValueError, match=r"network\.cell\[0\]\[0\]\[0\]"):
        NETWORKS.check("autodeeplab", {"cell": [[["sep4", 0], ["skip", 1]]]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"depth": 13}, "12 layers"), ({"depth": 0}, "12 layers"), ({"drop_path": 1.0}, "share")],
)
def test_settings_out_of_range_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        AutoDeepLab(2, 1, 2, **settings)


def test_the_published_cell_reads_both_inputs_and_every_block_but_the_last():
    read = {state for block in CITYSCAPES_2019.cell for _, state in block}
    assert read == {0, 1, 2, 3, 4, 5}
