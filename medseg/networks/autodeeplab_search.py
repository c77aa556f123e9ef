"""The search of Auto-DeepLab: every cell and every path at once, each with its probability.

Source: Liu et al., CVPR 2019, arXiv:1901.02985; the relaxation is that of DARTS, Liu et al.,
ICLR 2019, arXiv:1806.09055.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from medseg.networks.aspp import ASPP, context_rates
from medseg.networks.autodeeplab import (
    LEVELS,
    OPERATIONS,
    AutoDeepLab,
    Cell,
    Genotype,
    Operation,
    cells_of,
    entry,
    grids_from_halvings,
    onto,
    operation,
    pad_to_corners,
    stem,
)
from medseg.networks.deeplabv3 import make_head
from medseg.networks.layers import Norm, conv_norm, crop_end, init_he, spatial_size
from medseg.networks.topology import kernels_from_strides, strides_from_spacing

_STEPS = (-1, 0, 1)  # a layer is one level finer than the one before, on the same, or coarser


class AutoDeepLabSearch(nn.Module):
    """All networks of the search space at once, weighted by what the search believes of them.

    ``alpha`` says which operation each edge of the cell applies (or none, the zero operation), the
    same in all layers; ``beta`` says, for each layer and level, to which level the path goes on.
    Train the weights on one half of the training cases and alpha and beta on the other.

    Differs from the paper, so that a search that has made up its mind computes exactly what the
    network it found computes: what enters a level is weighted by how probable it is to have come
    from there, not by how probable the neighbour is to go there; a cell's second input is the
    layer before along the path, not the same level's; each transition has a cell of its own; one
    decoder reads the contexts of all levels, weighted by how probable the path is to end there,
    where the paper adds the levels' logits; its early map is the stem's at stride 2.

    Memory and time grow with layers, levels, and the square of the blocks: the paper's 12, 4 and 5
    took 3 days of a GPU, and are not for a CPU. Like the found network's, its image pooling sees
    the whole input.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        layers: Cells along a path; the paper has 12.
        levels: Resolutions, from 1/4 down; the paper has 4.
        blocks: Blocks of a cell; the paper has 5.
        filter_multiplier: Channels of each block at 1/4 of the resolution; 8 in the paper's search.
        stem_channels: Channels of the stem's first two convolutions.
        aspp_rates: Dilations of the context branches, as in :class:`AutoDeepLab`.
        aspp_channels: Channels of each context branch.
        image_pooling: Whether a context branch averages the whole image.
        low_level_channels: Channels that the decoder keeps of the early map.
        decoder_channels: Channels of the decoder's two convolutions.
        norm: Norm after every convolution; ``auto`` is a group norm, ``batch`` that of the paper.
        patch_voxels: The training patch, for ``aspp_rates``.
        spacing: Distance of neighbouring voxels per axis.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: There is no layer or block, or there are not 2 to 4 levels.
    """

    allowed: Tensor

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        layers: int = 6,
        levels: int = 3,
        blocks: int = 3,
        filter_multiplier: int = 4,
        stem_channels: int = 16,
        aspp_rates: Literal["auto"] | Sequence[int] = "auto",
        aspp_channels: int = 32,
        image_pooling: bool = True,
        low_level_channels: int = 16,
        decoder_channels: int = 32,
        norm: Norm = "auto",
        patch_voxels: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if min(layers, blocks) < 1 or not 2 <= levels <= LEVELS:
            raise ValueError(
                f"a search needs layers, blocks and 2 to {LEVELS} levels, got {layers}, {blocks} "
                f"and {levels}"
            )
        self.layers, self.levels, self.blocks = layers, levels, blocks
        self.settings = {
            "filter_multiplier": filter_multiplier,
            "stem_channels": stem_channels,
            "aspp_rates": aspp_rates,
            "aspp_channels": aspp_channels,
            "image_pooling": image_pooling,
            "low_level_channels": low_level_channels,
            "decoder_channels": decoder_channels,
            "norm": norm,
            "patch_voxels": patch_voxels,
            "spacing": spacing,
        }
        self.given = (spatial_dims, in_channels, out_channels)
        halvings = strides_from_spacing(spatial_dims, spacing, LEVELS + 1)
        kernels = kernels_from_strides(halvings)
        self.grids = grids_from_halvings(halvings)
        self.stem = stem(spatial_dims, in_channels, stem_channels, halvings, norm)

        # Of each map that a layer can read, by level: its channels.
        half, quarter = {0: stem_channels}, {0: 2 * stem_channels}
        widths = [filter_multiplier * 2**level for level in range(levels)]
        maps = [half, quarter]
        self.cells = nn.ModuleDict()
        for layer in range(layers):
            reached: dict[int, int] = {}
            for start, end in self._transitions(layer):
                down = end > start
                before = {level: n for level, n in maps[-2].items() if abs(level - start) <= 1}
                self.cells[_key(layer, start, end)] = MixedCell(
                    spatial_dims,
                    maps[-1][start],
                    before,
                    widths[end],
                    blocks,
                    kernel=kernels[end + 2],
                    stride=halvings[end + 1] if down else (1,) * spatial_dims,
                    norm=norm,
                )
                reached[end] = blocks * widths[end]
            maps.append(reached)

        self.contexts = nn.ModuleDict()
        for level, channels in maps[-1].items():
            grid = self.grids[level + 2]
            self.contexts[str(level)] = ASPP(
                spatial_dims,
                channels,
                aspp_channels,
                rates=context_rates(aspp_rates, 2 ** (level + 2), grid, patch_voxels),
                built_for=grid,
                image_pooling=image_pooling,
                separable=False,
                norm=norm,
                dropout=0.0,
            )
        self.reduce = conv_norm(spatial_dims, stem_channels, low_level_channels, 1, norm)
        self.decoder = nn.Sequential(
            conv_norm(spatial_dims, low_level_channels + aspp_channels, decoder_channels, 3, norm),
            conv_norm(spatial_dims, decoder_channels, decoder_channels, 3, norm),
        )
        init_he(self)
        self.head = make_head(spatial_dims, decoder_channels, out_channels)

        edges = sum(2 + block for block in range(blocks))
        self.alpha = nn.Parameter(1e-3 * torch.randn(edges, len(OPERATIONS) + 1))
        self.beta = nn.Parameter(1e-3 * torch.randn(layers, levels, len(_STEPS)))
        allowed = [[0 <= level + step < levels for step in _STEPS] for level in range(levels)]
        self.register_buffer("allowed", torch.tensor(allowed), persistent=False)

    def arch_parameters(self) -> list[nn.Parameter]:
        """Return what says which network it is: alpha and beta."""
        return [self.alpha, self.beta]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return all other parameters: the weights of every network in the space."""
        return [part for key, part in self.named_parameters() if key not in ("alpha", "beta")]

    def operation_probabilities(self) -> Tensor:
        """Return (edges, operations + 1), rows that sum to 1; the last column is no operation.

        Edges are ordered by block, then by the state that they read.
        """
        return self.alpha.softmax(dim=1)

    def level_probabilities(self) -> Tensor:
        """Return (layers, levels, 3), rows that sum to 1: to the finer, same and coarser level."""
        return self.beta.masked_fill(~self.allowed, -torch.inf).softmax(dim=2)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid, those of all networks mixed."""
        padded = pad_to_corners(image, self.grids[self.levels + 1])
        sizes = [cells_of(spatial_size(padded), grid) for grid in self.grids]
        alpha = self.operation_probabilities()
        came, ends = self._flow()
        fine = self.stem[0](padded)
        maps: list[dict[int, Tensor]] = [{0: fine}, {0: self.stem[1](fine)}]
        for layer in range(self.layers):
            reached: dict[int, Tensor] = {}
            for start, end in self._transitions(layer):
                before = {
                    level: (maps[-2][level], share) for level, share in came[layer][start].items()
                }
                cell = self.cells[_key(layer, start, end)]
                size = sizes[min(start, end) + 2]
                mixed = came[layer + 1][end][start] * cell(maps[-1][start], before, size, alpha)
                reached[end] = reached[end] + mixed if end in reached else mixed
            maps.append(reached)
        size = spatial_size(fine)
        context = _add(
            ends[level] * onto(self.contexts[str(level)](features.relu()), size)
            for level, features in maps[-1].items()
        )
        logits = self.head(self.decoder(torch.cat([self.reduce(fine), context], dim=1)))
        return crop_end(onto(logits, spatial_size(padded)), spatial_size(image))

    def decode(self) -> Genotype:
        """Return the most probable network: settings ``levels`` and ``cell`` of AutoDeepLab.

        Of each block the two edges whose best operation is most probable, no operation aside; of
        the paths the most probable one.
        """
        best, which = self.operation_probabilities()[:, :-1].detach().cpu().max(dim=1)
        cell = []
        for states in _edges(self.blocks):
            strongest = sorted(states, key=lambda state: -float(best[states[state]]))[:2]
            cell.append(
                tuple((OPERATIONS[int(which[states[state]])], state) for state in strongest)
            )
        return Genotype(self._best_path(), tuple(cell))

    def found_network(self) -> AutoDeepLab:
        """Return the network of :meth:`decode`, with this one's weights.

        Once alpha and beta are certain, it gives the same logits, on images that need no padding
        (k * stride + 1 voxels): the coarsest grid of all paths may be coarser than the found one's.
        """
        genotype = self.decode()
        found = AutoDeepLab(
            *self.given,
            levels=genotype.levels,
            cell=genotype.cell,
            decoder_stride=2,
            **self.settings,  # type: ignore[arg-type]  # by name, as they were given here
        )
        path = (0, *genotype.levels)
        edges = _edges(self.blocks)
        for layer in range(self.layers):
            mixed = cast(MixedCell, self.cells[_key(layer, path[layer], path[layer + 1])])
            chosen = [
                mixed.last,
                mixed.before[str(path[max(layer - 1, 0)])],
                *(
                    mixed.chosen(edges[block][state], name)
                    for block, pair in enumerate(genotype.cell)
                    for name, state in pair
                ),
            ]
            cell = cast(Cell, found.cells[layer])
            for ours, its in zip(chosen, (*cell.enter, *cell.operations), strict=True):
                its.load_state_dict(ours.state_dict())
        found.aspp.load_state_dict(self.contexts[str(path[-1])].state_dict())
        for name in ("stem", "reduce", "decoder", "head"):
            getattr(found, name).load_state_dict(getattr(self, name).state_dict())
        return found.to(self.alpha.device)

    def _transitions(self, layer: int) -> list[tuple[int, int]]:
        """Return the pairs of levels, before and after, that a layer can join."""
        starts = range(min(layer + 1, self.levels))
        return [(s, s + d) for s in starts for d in _STEPS if 0 <= s + d < self.levels]

    def _flow(self) -> tuple[list[dict[int, dict[int, Tensor]]], dict[int, Tensor]]:
        """Follow the paths' probabilities through the layers.

        Returns:
            Before the first layer and after each: by level, the probabilities of the levels that
            the path came from. And the probabilities of the levels where it ends.
        """
        go = self.level_probabilities()
        one = torch.ones_like(go[0, 0, 0])
        here = {0: one}
        came: list[dict[int, dict[int, Tensor]]] = [{0: {0: one}}]
        for layer in range(self.layers):
            joint: dict[int, dict[int, Tensor]] = {}
            for start, end in self._transitions(layer):
                joint.setdefault(end, {})[start] = here[start] * go[layer, start, end - start + 1]
            here = {level: _add(parts.values()) for level, parts in joint.items()}
            # Where no path comes by, the shares are all zero.
            came.append(
                {
                    level: {s: p / here[level].clamp(min=1e-30) for s, p in parts.items()}
                    for level, parts in joint.items()
                }
            )
        return came, here

    def _best_path(self) -> tuple[int, ...]:
        """Return the most probable path, by Viterbi's algorithm."""
        go = self.level_probabilities().detach().double().log().tolist()
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for layer in range(self.layers):
            reached: dict[int, tuple[float, tuple[int, ...]]] = {}
            for start, end in self._transitions(layer):
                score, path = best[start]
                through = score + go[layer][start][end - start + 1], (*path, end)
                reached[end] = max(reached.get(end, through), through)
            best = reached
        return max(best.values())[1]


class MixedCell(nn.Module):
    """A cell whose blocks add every operation on every earlier state, weighted by alpha.

    Args:
        last: Channels of the layer before.
        before: Channels of the layer before that, by level.
        width: Channels of each block.
        blocks: Number of blocks.
        kernel: 1 along the axes that kernels leave out, else 3.
        stride: What the operations on the cell's inputs divide the grid by.
    """

    def __init__(
        self,
        spatial_dims: int,
        last: int,
        before: Mapping[int, int],
        width: int,
        blocks: int,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        norm: Norm,
    ) -> None:
        super().__init__()
        plain = (1,) * spatial_dims
        self.last = entry(spatial_dims, last, width, norm)
        self.before = nn.ModuleDict(
            {str(level): entry(spatial_dims, n, width, norm) for level, n in before.items()}
        )
        self.edges = _edges(blocks)
        self.operations = nn.ModuleList(
            operation(
                spatial_dims,
                name,
                width,
                kernel=kernel,
                stride=stride if state < 2 else plain,
                norm=norm,
            )
            for states in self.edges
            for state in states
            for name in OPERATIONS
        )

    def forward(
        self,
        last: Tensor,
        before: Mapping[int, tuple[Tensor, Tensor]],
        size: Sequence[int],
        alpha: Tensor,
    ) -> Tensor:
        """Return the blocks' outputs, joined along the channels.

        Args:
            last: Output of the layer before, on any grid.
            before: Outputs of the layer before that, by level, with the share of each.
            size: The spatial size that all are resized to.
            alpha: (edges, operations + 1), the probability of each operation.
        """
        second = _add(
            share * self.before[str(level)](onto(features, size))
            for level, (features, share) in before.items()
        )
        states = [self.last(onto(last, size)), second]
        for reads in self.edges:
            states.append(
                _add(
                    alpha[edge, index] * self.chosen(edge, name)(states[state])
                    for state, edge in reads.items()
                    for index, name in enumerate(OPERATIONS)
                )
            )
        return torch.cat(states[2:], dim=1)

    def chosen(self, edge: int, name: Operation) -> nn.Module:
        """Return one operation of one edge."""
        return self.operations[edge * len(OPERATIONS) + OPERATIONS.index(name)]


def cells_in_space(blocks: int = 5) -> int:
    """Return how many cells the paper counts: two inputs and two operations for each block."""
    return prod((2 + block) ** 2 * (len(OPERATIONS) + 1) ** 2 for block in range(blocks))


def _edges(blocks: int) -> list[dict[int, int]]:
    """Return, of each block, the number of the edge from each state that it can read."""
    edges: list[dict[int, int]] = []
    for block in range(blocks):
        first = sum(len(states) for states in edges)
        edges.append({state: first + state for state in range(2 + block)})
    return edges


def _add(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _key(layer: int, start: int, end: int) -> str:
    return f"layer{layer}_{start}to{end}"
