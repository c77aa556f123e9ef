"""The search for a network."""

import warnings

import pytest
import torch
from torch.nn import functional

from medseg.networks import AutoDeepLab
from medseg.networks.autodeeplab_search import AutoDeepLabSearch
from medseg.training.search import halve_cases, search

TINY = {
    "filter_multiplier": 2,
    "stem_channels": 4,
    "aspp_channels": 4,
    "low_level_channels": 4,
    "decoder_channels": 4,
    "aspp_rates": (1,),
}


def build() -> AutoDeepLabSearch:
    torch.manual_seed(0)
    return AutoDeepLabSearch(2, 1, 2, layers=1, levels=2, blocks=1, **TINY)


def batches(seed: int, number: int = 2) -> list[dict[str, torch.Tensor]]:
    """Smooth images, their bright half to be found."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        noise = torch.randn(2, 1, 33, 33, generator=generator)
        image = functional.avg_pool2d(noise, 9, 1, 4) * 9
        made.append({"image": image, "label": (image > 0).long()})
    return made


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels[:, 0])


class Watched(list):
    """Batches, and the choices as they were whenever an epoch began."""

    def __init__(self, network: AutoDeepLabSearch, given: list[dict[str, torch.Tensor]]) -> None:
        super().__init__(given)
        self.network, self.seen = network, []

    def __iter__(self):
        self.seen.append([part.detach().clone() for part in self.network.arch_parameters()])
        return super().__iter__()


def test_choices_stay_as_they_are_until_their_epochs_begin():
    network = build()
    watched = Watched(network, batches(0))
    found = search(network, watched, batches(1), cross_entropy, epochs=3, choices_from=2)
    first, second, third = watched.seen
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))
    assert not any(map(torch.equal, first, network.arch_parameters()))
    assert [value != value for value in found.choice_losses] == [True, True, False], "NaN: no steps"


@pytest.mark.parametrize(("epochs", "choices_from"), [(2, 2), (10, 20), (3, -1), (0, 0)])
def test_a_search_that_would_never_train_its_choices_is_refused(epochs: int, choices_from: int):
    network = build()
    with pytest.raises(ValueError, match="choices_from"):
        search(
            network,
            batches(0),
            batches(1),
            cross_entropy,
            epochs=epochs,
            choices_from=choices_from,
        )


@pytest.mark.parametrize("which", ["weight_batches", "choice_batches"])
def test_batches_that_can_be_gone_through_once_only_are_refused_at_once(which: str):
    given = {"weight_batches": batches(0, 1), "choice_batches": batches(0, 1)}
    given[which] = iter(given[which])
    with pytest.raises(ValueError, match=f"{which}: an iterator can be gone through once only"):
        search(build(), **given, loss=cross_entropy, epochs=2, choices_from=1)


def test_a_search_learns_and_the_same_seed_finds_the_same():
    settings = {"epochs": 15, "choices_from": 8, "learning_rate": 0.1}
    ours, again = (
        search(build(), batches(0), batches(1), cross_entropy, **settings) for _ in range(2)
    )
    assert ours.weight_losses == again.weight_losses
    assert ours.genotype == again.genotype
    assert ours.weight_losses[-1] < 0.8 * ours.weight_losses[0]
    network = AutoDeepLab(2, 1, 2, levels=ours.genotype.levels, cell=ours.genotype.cell, **TINY)
    assert network(batches(2)[0]["image"]).shape == (2, 2, 33, 33)


@pytest.mark.parametrize("which", ["weight_batches", "choice_batches"])
def test_no_batches_are_refused(which: str):
    given = {"weight_batches": batches(0, 1), "choice_batches": batches(0, 1)} | {which: []}
    with pytest.raises(ValueError, match=which):
        search(build(), **given, loss=cross_entropy, epochs=1, choices_from=0)


def test_halves_share_no_group_and_hold_every_case():
    groups = [f"patient{i % 45}" for i in range(90)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = halve_cases(groups, seed=1)
    assert sorted(first + second) == list(range(90))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert (len(first), len(second)) == (46, 44)
    assert halve_cases(groups, seed=1) == (first, second)
    assert halve_cases(groups, seed=2) != (first, second)


def test_few_groups_are_warned_of_and_one_is_refused():
    with pytest.warns(UserWarning, match="10 groups.*by chance"):
        halve_cases([str(i) for i in range(10)])
    with pytest.raises(ValueError, match="two groups"):
        halve_cases(["a", "a"])
