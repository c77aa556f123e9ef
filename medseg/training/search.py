"""The search of Auto-DeepLab: one half of the cases trains the weights, the other the choices.

Source: Liu et al., CVPR 2019, arXiv:1901.02985, after the first-order form of DARTS,
arXiv:1806.09055.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medseg.networks.autodeeplab import Genotype
from medseg.networks.autodeeplab_search import AutoDeepLabSearch
from medseg.training.module import Loss

Batches = Iterable[Mapping[str, Tensor]]

# The paper halves 2975 images. Below this, a half is too few to tell operations apart: our guess.
FEW_GROUPS = 40


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and how it went.

    Attributes:
        genotype: Settings ``levels`` and ``cell`` of the network it found.
        weight_losses: Mean loss of each epoch's steps on the weights.
        choice_losses: Mean loss of each epoch's steps on alpha and beta; NaN where there were none.
    """

    genotype: Genotype
    weight_losses: tuple[float, ...]
    choice_losses: tuple[float, ...]


def halve_cases(groups: Sequence[str], *, seed: int = 0) -> tuple[list[int], list[int]]:
    """Split the training cases for a search; a group is never divided.

    Args:
        groups: The group of each case, e.g. its patient.
        seed: The same seed gives the same halves.

    Returns:
        Places of the cases whose images train the weights, and of those that train alpha and beta.

    Raises:
        ValueError: There are fewer than two groups.

    Warns:
        UserWarning: There are few groups; the search still runs, but may well choose by chance.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(f"a search needs two groups of cases or more, got {len(names)}")
    if len(names) < FEW_GROUPS:
        warnings.warn(
            f"a search on {len(names)} groups, fewer than {FEW_GROUPS}, may well choose by chance: "
            f"compare what it finds with the published network on cases that it has not seen",
            stacklevel=2,
        )
    order = np.random.default_rng(seed).permutation(len(names))
    first = {names[i] for i in order[: (len(names) + 1) // 2]}
    places = range(len(groups))
    return [i for i in places if groups[i] in first], [i for i in places if groups[i] not in first]


def search(
    network: AutoDeepLabSearch,
    weight_batches: Batches,
    choice_batches: Batches,
    loss: Loss,
    *,
    epochs: int = 40,
    choices_from: int = 20,
    learning_rate: float = 0.025,
    last_learning_rate: float = 0.001,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    choice_learning_rate: float = 3e-3,
    choice_weight_decay: float = 1e-3,
) -> SearchResult:
    """Search for a network; the defaults are the paper's.

    Args:
        network: Is trained.
        weight_batches: Batches with ``image`` (batch, channels, *spatial) and ``label`` (batch, 1,
            *spatial), for the weights; gone through once an epoch, so not an iterator.
        choice_batches: The like, of other cases, for alpha and beta; a batch for each step.
        loss: Takes logits and labels.
        epochs: How often to go through ``weight_batches``.
        choices_from: Epochs that train the weights only, so that no choice is made by how quickly
            an operation starts to learn. Fewer than ``epochs``.
        learning_rate: Of the weights, by SGD; falls by a half cosine, epoch by epoch.
        last_learning_rate: To where it falls.
        momentum: Of the weights.
        weight_decay: Of the weights.
        choice_learning_rate: Of alpha and beta, by Adam.
        choice_weight_decay: Of alpha and beta.

    Raises:
        ValueError: There are no batches, or they can be gone through only once; or no epoch is left
            to train the choices.
    """
    if not 0 <= choices_from < epochs:
        raise ValueError(
            f"choices_from is {choices_from} of {epochs} epochs: the choices would stay as they "
            f"were drawn; set it to {epochs // 2}, or raise epochs"
        )
    for name, batches in (("weight_batches", weight_batches), ("choice_batches", choice_batches)):
        if isinstance(batches, Iterator):
            raise ValueError(
                f"{name}: an iterator can be gone through once only, and a search does so every "
                f"epoch; give a list or a DataLoader"
            )
    device = network.alpha.device
    weights, choices = network.weight_parameters(), network.arch_parameters()
    sgd = torch.optim.SGD(weights, learning_rate, momentum=momentum, weight_decay=weight_decay)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs, last_learning_rate)
    adam = torch.optim.Adam(choices, choice_learning_rate, weight_decay=choice_weight_decay)

    def step(
        batch: Mapping[str, Tensor],
        parameters: Sequence[nn.Parameter],
        optimiser: torch.optim.Optimizer,
    ) -> float:
        optimiser.zero_grad()
        value = loss(network(batch["image"].to(device)), batch["label"].to(device))
        value.backward(inputs=parameters)  # type: ignore[no-untyped-call]  # untyped in torch
        optimiser.step()
        return float(value.detach())

    network.train()
    endless = _endless(choice_batches)
    weight_losses, choice_losses = [], []
    for epoch in range(epochs):
        by_weights, by_choices = [], []
        for batch in weight_batches:
            by_weights.append(step(batch, weights, sgd))
            if epoch >= choices_from:
                by_choices.append(step(next(endless), choices, adam))
        if not by_weights:
            raise ValueError("weight_batches: a search needs batches, got none")
        fall.step()
        weight_losses.append(float(np.mean(by_weights)))
        choice_losses.append(float(np.mean(by_choices)) if by_choices else float("nan"))
    return SearchResult(network.decode(), tuple(weight_losses), tuple(choice_losses))


def _endless(batches: Batches) -> Iterator[Mapping[str, Tensor]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("choice_batches: a search needs batches, got none")
