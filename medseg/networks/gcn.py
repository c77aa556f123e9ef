"""GCN, the global convolutional network: kernels as large as the map, at the price of thin ones.

A classifier sees the whole object, a segmenter used to see 3x3 cells. Here a kernel of k by k cells
is composed of two of k by 1, in both orders, and scores the classes on each of the encoder's maps;
the scores are added from coarse to fine, and small residual blocks straighten the borders.

Source: Peng et al., CVPR 2017, arXiv:1703.02719.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from medseg.networks.base import NETWORKS, Network
from medseg.networks.encoders import make_encoder
from medseg.networks.layers import (
    CONV,
    UP_CONV,
    Norm,
    Step,
    crop_end,
    init_he,
    receptive_field,
    spatial_size,
)
from medseg.networks.topology import strides_from_spacing

Kernels = Literal["gcn", "trivial", "stack"]
_TAPS = (0.0, 0.5, 1.0, 0.5)  # of linear interpolation to 2n - 1 cells


@NETWORKS.register("gcn")
class GCN(Network):
    """The global convolutional network with a residual encoder, in 2D and 3D.

    Differs from the paper: a norm that trains with a batch of one; scores of more channels than
    classes where these are few, and a 1x1 convolution after them; kernels no larger than the
    patch's map; sizes of k * stride + 1 voxels with aligned corners, so that nothing shifts. In 3D
    a block is the sum over the three cyclic orders of kernels along one axis each: it sees k^3
    cells, where their parallel sum would see a cross.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        encoder: Name of the encoder, e.g. ``resnet18`` or, for slices, ``timm:resnet18``.
        encoder_width: Channels of the encoder's stem; None for as many as published.
        pretrained: Whether an encoder of timm begins with downloaded weights.
        k: Cells along each axis of the large kernels, odd.
        kernels: What makes up a large kernel: ``gcn`` the paper's thin ones, ``trivial`` a dense
            one, ``stack`` (k - 1) / 2 dense ones of 3 cells. The paper compares the three.
        stack_channels: Channels inside a ``stack``; None for as many as enter it.
        mid_channels: Channels of the scores; None for 21, or the classes if there are more. If
            they are not the classes, a 1x1 convolution makes them so.
        boundary_refinement: Whether residual blocks follow the kernels, sums and enlargements.
        upsample: ``deconv`` learns the way up, and starts at ``linear``.
        norm: Norm of the encoder; ``auto`` is a group norm, ``batch`` that of the paper.
        spacing: Distance of neighbouring voxels per axis: a thick axis is halved late.
        patch_voxels: The training patch: along each axis, a kernel has at most as many cells as
            the patch's map, since those beyond meet only padding. None for k everywhere.

    Shape:
        (batch, in_channels, *spatial) -> (batch, out_channels, *spatial), logits.

    Raises:
        ValueError: No such encoder, one that keeps its cells' edges in place (see
            :class:`~medseg.networks.encoders.Encoder`) with ``deconv``, or an even k.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        encoder: str = "resnet18",
        encoder_width: int | None = None,
        pretrained: bool = False,
        k: int = 7,
        kernels: Kernels = "gcn",
        stack_channels: int | None = None,
        mid_channels: int | None = None,
        boundary_refinement: bool = True,
        upsample: Literal["deconv", "linear"] = "deconv",
        norm: Norm = "auto",
        spacing: Sequence[float] | None = None,
        patch_voxels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            width=encoder_width,
            norm=norm,
            strides=strides_from_spacing(spatial_dims, spacing, 5),
            pretrained=pretrained,
        )
        if upsample == "deconv" and not self.encoder.aligned_corners:
            raise ValueError(
                f'upsample "deconv" keeps the centres of cells in place, encoder "{encoder}" their '
                f'edges; set upsample to "linear"'
            )
        self.output_stride = self.encoder.grids[-1]
        if k < 1 or k % 2 == 0:
            raise ValueError(f"k is an odd number of cells, got {k}")
        self.k = [_fitting(k, grid, patch_voxels) for grid in self.encoder.grids[-4:]]
        scores = mid_channels or max(out_channels, 21)
        self.large = nn.ModuleList(
            LargeKernelBlock(
                spatial_dims,
                enters,
                scores,
                k=fitting,
                kernels=kernels,
                stack_channels=stack_channels,
            )
            for enters, fitting in zip(self.encoder.channels[-4:], self.k, strict=True)
        )
        self.upsample = upsample
        self.ups = nn.ModuleList(
            AlignedUp(spatial_dims, scores, stride)
            for stride in (self.encoder.halvings if upsample == "deconv" else ())
        )

        def refinements(number: int) -> nn.ModuleList:
            return nn.ModuleList(
                BoundaryRefinement(spatial_dims, scores) if boundary_refinement else nn.Identity()
                for _ in range(number)
            )

        self.refine_stage = refinements(len(self.k))
        self.refine_sum = refinements(len(self.k) - 1)
        self.refine_fine = refinements(2)
        self.head = nn.Sequential()
        if scores != out_channels:
            self.head.append(CONV[spatial_dims](scores, out_channels, 1))
            init_he(self.head)

    @classmethod
    def paper(cls, in_channels: int = 3, out_channels: int = 21, *, k: int = 15) -> Self:
        """Return the published 2D network, a ResNet-152 with kernels of 15 cells.

        Beside the encoder 2,579,556 parameters for 21 classes; 1,261,092 at k = 7.
        """
        return cls(
            2,
            in_channels,
            out_channels,
            encoder="resnet152",
            k=k,
            mid_channels=out_channels,
            norm="batch",
        )

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        """A narrow ResNet-18 (3D: -10), linear ways up, and 16 channels of scores (3D: 12)."""
        encoder, width, scores = {2: ("resnet18", 32, 16), 3: ("resnet10", 16, 12)}[spatial_dims]
        return {
            "encoder": encoder,
            "encoder_width": width,
            "mid_channels": scores,
            "upsample": "linear",
        }

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's own grid."""
        padded = self.encoder.pad(image)
        maps = self.encoder(padded)[-4:]
        stages = [
            refine(large(features))
            for large, refine, features in zip(self.large, self.refine_stage, maps, strict=True)
        ]
        scores = stages.pop()
        for place in reversed(range(len(stages))):
            raised = self._raise(scores, place + 2, spatial_size(stages[place]))
            scores = self.refine_sum[place](stages[place] + raised)
        for place, grid in ((1, self.encoder.halvings[0]), (0, (1,) * self.spatial_dims)):
            size = self.encoder.cells(spatial_size(padded), grid)
            scores = self.refine_fine[place](self._raise(scores, place, size))
        logits: Tensor = self.head(scores)
        return crop_end(logits, spatial_size(image))

    def _raise(self, scores: Tensor, halving: int, size: Sequence[int]) -> Tensor:
        """Undo one of the encoder's halvings: return the scores on the next finer grid."""
        if self.upsample == "linear":
            return self.encoder.resize(scores, size)
        raised: Tensor = self.ups[halving](scores)
        return raised

    def receptive_field(self) -> tuple[int, ...]:
        """Return the voxels that one output voxel sees, per axis, by way of the coarsest map."""
        refine = [Step(3)] * 2 if isinstance(self.refine_fine[0], BoundaryRefinement) else []
        fields = []
        for axis in range(self.spatial_dims):
            steps = [*self.encoder.steps(axis), Step(self.k[-1][axis]), *refine]
            for stride in reversed(self.encoder.halvings):
                up = stride[axis]
                # A deconvolution's fourth tap reaches from one cell further on.
                further = [Step(2)] if self.upsample == "deconv" and up > 1 else []
                steps += [Step(up=up, blend=True), *further, *refine]
            fields.append(receptive_field(steps))
        return tuple(fields)


class LargeKernelBlock(nn.Module):
    """A linear map from features to scores that sees k cells along each axis.

    Nothing stands between its convolutions, neither a norm nor a ReLU.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        enters: Channels of the features.
        leaves: Channels of the scores.
        k: Cells that it sees along each axis, each odd.
        kernels: ``gcn``: along one axis after the other, summed over the cyclic orders of the axes.
            ``trivial``: one dense kernel. ``stack``: dense kernels of at most 3 cells.
        stack_channels: Channels inside a ``stack``; None for ``enters``.
        bias: Whether convolutions have a bias.

    Shape:
        (batch, enters, *cells) -> (batch, leaves, *cells).

    Raises:
        ValueError: A side of the kernel is even: it would have no middle.
    """

    def __init__(
        self,
        spatial_dims: int,
        enters: int,
        leaves: int,
        *,
        k: Sequence[int],
        kernels: Kernels = "gcn",
        stack_channels: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(k) != spatial_dims or any(side < 1 or side % 2 == 0 for side in k):
            raise ValueError(f"k is an odd number of cells along each axis, got {tuple(k)}")
        self.k = tuple(k)
        inner = leaves if kernels == "gcn" else stack_channels or enters
        self.branches = nn.ModuleList()
        for sizes in _plan(self.k, kernels):
            channels = [enters, *[inner] * (len(sizes) - 1), leaves]
            branch = nn.Sequential()
            for (before, after), size in zip(pairwise(channels), sizes, strict=True):
                padding = tuple(side // 2 for side in size)
                branch.append(CONV[spatial_dims](before, after, size, padding=padding, bias=bias))
            self.branches.append(branch)
        for weights in self.parameters():
            if weights.dim() > 1:
                nn.init.kaiming_normal_(weights, nonlinearity="linear")
            else:
                nn.init.zeros_(weights)

    def forward(self, features: Tensor) -> Tensor:
        """Return the scores of every cell."""
        scores: Tensor = sum(branch(features) for branch in self.branches)
        return scores


def _plan(k: tuple[int, ...], kernels: Kernels) -> list[list[tuple[int, ...]]]:
    """Return the kernels of each branch, in their order."""
    if kernels == "trivial":
        return [[k]]
    if kernels == "stack":
        layers = max(max(k) // 2, 1)
        return [[tuple(3 if side // 2 > layer else 1 for side in k) for layer in range(layers)]]
    axes = range(len(k))
    thin = [tuple(k[a] if a == axis else 1 for a in axes) for axis in axes]
    return [thin[start:] + thin[:start] for start in axes]


class BoundaryRefinement(nn.Module):
    """What two 3x3 convolutions add to the scores; at the start nothing.

    Shape:
        (batch, channels, *cells) -> the same.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        conv = CONV[spatial_dims]
        self.first = conv(channels, channels, 3, padding=1)
        self.second = conv(channels, channels, 3, padding=1)
        init_he(self.first)
        for weights in self.second.parameters():
            nn.init.zeros_(weights)

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores with their correction."""
        refined: Tensor = scores + self.second(torch.relu(self.first(scores)))
        return refined


class AlignedUp(nn.Module):
    """A transposed convolution from n to 2n - 1 cells that starts as linear interpolation.

    Cell i lands on cell 2i, as grids of k * s + 1 voxels with aligned corners want it. Linear
    interpolation has three taps there, 1/2, 1, 1/2. The kernel has four, as the paper's count
    wants it: the first starts at zero.

    Attributes:
        depth_shares: What a kernel for slices becomes along the first axis of one for volumes: the
            same three taps, since four equal ones would shift it by half a cell.

    Shape:
        (batch, channels, *cells) -> (batch, channels, *finer cells).
    """

    def __init__(self, spatial_dims: int, channels: int, stride: Sequence[int]) -> None:
        super().__init__()
        halved = [s > 1 for s in stride]
        deep = spatial_dims == 3 and halved[0]
        self.depth_shares = {"conv.weight": _TAPS} if deep else {}
        self.conv = UP_CONV[spatial_dims](
            channels,
            channels,
            tuple(4 if h else 1 for h in halved),
            stride=tuple(stride),
            padding=tuple(2 if h else 0 for h in halved),
            output_padding=tuple(int(h) for h in halved),
            bias=False,
        )
        tent = torch.ones(())
        for h in halved:
            tent = tent[..., None] * torch.tensor(_TAPS if h else [1.0])
        with torch.no_grad():
            for weights in self.conv.parameters():
                weights.zero_()
                for channel in range(channels):
                    weights[channel, channel] = tent

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores on the finer grid."""
        raised: Tensor = self.conv(scores)
        return raised


def _fitting(k: int, grid: tuple[int, ...], patch_voxels: Sequence[int] | None) -> tuple[int, ...]:
    """Return the odd kernel, of at most k cells along each axis, that fits the patch's map."""
    if patch_voxels is None:
        return (k,) * len(grid)
    cells = [-(-(n - 1) // s) + 1 for n, s in zip(patch_voxels, grid, strict=True)]
    return tuple(min(k, n - 1 + n % 2) for n in cells)
