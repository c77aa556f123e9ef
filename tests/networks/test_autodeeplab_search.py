"""What the search of Auto-DeepLab promises."""

from itertools import product
from math import log

import pytest
import torch
from torch import nn

from medseg.networks import AutoDeepLab
from medseg.networks.autodeeplab import OPERATIONS
from medseg.networks.autodeeplab_search import AutoDeepLabSearch, cells_in_space

TINY = {
    "filter_multiplier": 2,
    "stem_channels": 2,
    "aspp_channels": 4,
    "low_level_channels": 2,
    "decoder_channels": 4,
    "aspp_rates": (1, 2),
}


def build(spatial_dims: int = 2, *, layers: int = 2, **settings: object) -> AutoDeepLabSearch:
    torch.manual_seed(0)
    return AutoDeepLabSearch(spatial_dims, 1, 2, layers=layers, **{**TINY, **settings})


def decide(search: AutoDeepLabSearch, levels: tuple[int, ...], cell) -> None:
    """Make alpha and beta certain; the levels that are off the path lead anywhere."""
    with torch.no_grad():
        search.alpha.zero_()
        search.alpha[:, -1] = 1000.0  # no operation
        edge = 0
        for block, pair in enumerate(cell):
            for name, state in pair:
                search.alpha[edge + state, -1] = 0.0
                search.alpha[edge + state, OPERATIONS.index(name)] = 1000.0
            edge += 2 + block
        search.beta.copy_(1000.0 * torch.randn_like(search.beta))
        for layer, (start, end) in enumerate(zip((0, *levels), levels, strict=False)):
            search.beta[layer, start] = 0.0
            search.beta[layer, start, end - start + 1] = 1e6


def test_the_space_has_the_published_number_of_cells():
    assert cells_in_space(5) == 720**2 * 8**10  # two of 2 to 6 states, two of 8 operations
    assert cells_in_space(5) == pytest.approx(5.566e14, rel=1e-4)


def test_probabilities_sum_to_one_and_none_leaves_the_levels():
    search = build(layers=3)
    nn.init.normal_(search.beta, std=2.0)
    alpha, beta = search.operation_probabilities(), search.level_probabilities()
    assert alpha.shape == (2 + 3 + 4, 8)
    torch.testing.assert_close(alpha.sum(1), torch.ones(9))
    torch.testing.assert_close(beta.sum(2), torch.ones(3, 3))
    assert not beta[:, 0, 0].any()
    assert not beta[:, 2, 2].any()


def test_no_choice_has_a_head_start():
    search = build(layers=12)
    for numbers in (search.alpha, search.beta):
        assert 0.7e-3 < numbers.std().item() < 1.3e-3
        assert abs(numbers.mean().item()) < 0.5e-3


def test_weights_and_architecture_are_two_sets_of_parameters():
    search = build()
    weights = {id(part) for part in search.weight_parameters()}
    architecture = {id(part) for part in search.arch_parameters()}
    assert not weights & architecture
    assert weights | architecture == {id(part) for part in search.parameters()}
    assert architecture == {id(search.alpha), id(search.beta)}


@pytest.mark.parametrize("step", ["weights", "architecture"])
def test_a_step_of_one_set_leaves_the_other_alone(step: str):
    search = build()
    ours, others = search.weight_parameters(), search.arch_parameters()
    if step == "architecture":
        ours, others = others, ours
    before = [part.clone() for part in (*ours, *others)]
    optimiser = torch.optim.Adam(ours, lr=0.1)
    logits = search(torch.randn(1, 1, 17, 17))
    (logits * torch.randn_like(logits)).sum().backward()
    optimiser.step()
    after = [*ours, *others]
    moved = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert not any(moved[len(ours) :])
    assert any(moved[: len(ours)])
    assert all(torch.isfinite(part.grad).all() for part in after)


@pytest.mark.parametrize("layers", [1, 2, 4, 6])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_viterbi_finds_the_best_of_all_paths(layers: int, levels: int):
    with torch.device("meta"):
        search = build(layers=layers, levels=levels, blocks=1)
    search.allowed = torch.tensor(
        [[0 <= level + step < levels for step in (-1, 0, 1)] for level in range(levels)]
    )
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        beta = torch.randn(layers, levels, 3, generator=generator)
        search.beta = nn.Parameter(beta)
        search.alpha = nn.Parameter(torch.randn(2, 8, generator=generator))
        go = search.level_probabilities().tolist()
        scores = {}
        for path in product(range(levels), repeat=layers):
            moves = list(zip((0, *path), path, strict=False))
            if all(abs(end - start) <= 1 for start, end in moves):
                scores[path] = sum(
                    log(go[layer][start][end - start + 1])
                    for layer, (start, end) in enumerate(moves)
                )
        assert search.decode().levels == max(scores, key=lambda path: scores[path])


def test_decoding_keeps_the_two_most_probable_edges_that_are_operations():
    search = build(blocks=2)
    with torch.no_grad():
        search.alpha.zero_()
        search.alpha[0, OPERATIONS.index("max3")] = 1.0  # block 0, state 0
        search.alpha[1, OPERATIONS.index("skip")] = 2.0  # block 0, state 1
        search.alpha[2, -1] = 9.0  # block 1, state 0: no operation, so not its best either
        search.alpha[3, OPERATIONS.index("sep5")] = 1.0  # block 1, state 1
        search.alpha[4, OPERATIONS.index("atr3")] = 1.5  # block 1, state 2
    assert [set(pair) for pair in search.decode().cell] == [
        {("max3", 0), ("skip", 1)},
        {("sep5", 1), ("atr3", 2)},
    ]


@pytest.mark.parametrize(
    ("levels", "cell"),
    [
        ((0, 1, 2), ((("sep3", 0), ("atr5", 1)), (("max3", 1), ("skip", 0)))),
        ((1, 2, 1, 0), ((("skip", 1), ("avg3", 0)), (("atr3", 0), ("sep5", 2)))),
        ((0, 0, 1, 1), ((("atr3", 1), ("atr3", 0)), (("sep3", 2), ("sep3", 1)))),
    ],
)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_search_that_is_certain_gives_what_the_network_it_found_gives(
    levels: tuple[int, ...], cell, spatial_dims: int
):
    search = build(spatial_dims, layers=len(levels), blocks=2).eval()
    for part in search.weight_parameters():
        # Group norms must not stay plain, or a mistaken copy would not show.
        nn.init.normal_(part, mean=0.5 if part.dim() == 1 else 0.0, std=0.3)
    decide(search, levels, cell)
    found = search.found_network().eval()
    assert search.decode().levels == levels
    assert [set(pair) for pair in search.decode().cell] == [set(pair) for pair in cell]
    image = torch.randn(1, 1, *(33, 17, 17)[:spatial_dims])
    with torch.no_grad():
        ours, its = search(image), found(image)
    assert ours.std() > 1e-3
    torch.testing.assert_close(ours, its, rtol=1e-4, atol=1e-5)


def test_what_is_decoded_builds_a_network():
    found = build(layers=4).decode()
    network = AutoDeepLab(2, 1, 2, levels=found.levels, cell=found.cell, filter_multiplier=2)
    assert network(torch.randn(1, 1, 20, 31)).shape == (1, 2, 20, 31)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_odd_sizes_keep_their_grid_and_train_every_weight(spatial_dims: int):
    search = build(spatial_dims, layers=2, blocks=2)
    size = (19, 13, 6)[:spatial_dims]
    logits = search(torch.randn(1, 1, *size))
    assert logits.shape == (1, 2, *size)
    (logits * torch.randn_like(logits)).sum().backward()
    for key, part in search.named_parameters():
        assert part.grad is not None, key
        assert torch.isfinite(part.grad).all(), key


@pytest.mark.parametrize("settings", [{"layers": 0}, {"levels": 1}, {"levels": 5}, {"blocks": 0}])
def test_a_space_without_choices_is_refused(settings):
    with pytest.raises(ValueError, match="2 to 4 levels"):
        build(**settings)
