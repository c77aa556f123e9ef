"""Encoders of the timm library, for slices, with its pretrained weights on request.

Source: Wightman, https://github.com/huggingface/pytorch-image-models.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import nearest
from medseg.networks.encoders.base import ENCODERS, Encoder, OutputStride, check_output_stride
from medseg.networks.layers import Step, spatial_size

_HALVINGS = ((2, 2),) * 5
_REDUCTIONS = [2, 4, 8, 16, 32]


@ENCODERS.register("timm")
class TimmEncoder(Encoder):
    """A network of timm without its classifier, asked for as ``timm:<model>``.

    How its cells lie on voxels is read from its layers. Those whose strided layers all have odd
    kernels, padded by half (ResNet, RegNet, EfficientNet, MobileNet, Xception), keep their cells'
    centres in place. Those whose strided layers all have kernels as wide as their stride (VGG,
    ConvNeXt) keep the outer edges; at a finer output stride than 32 such layers would shift what
    they see by half a cell, and are refused. So are networks that mix the two (ResNet-D, DenseNet)
    or whose maps are not on a grid (transformers).

    It keeps its own norms, whatever the network around it has. Squeeze and excitation see the whole
    image. VGG and ConvNeXt have fewer or other maps than ResNet; the last is always at a 32nd, or
    at the output stride.

    Args:
        spatial_dims: 2; there are no volumes in timm.
        in_channels: Channels of the image. timm fits pretrained weights to other than three.
        model: timm's name, e.g. ``resnet18`` or ``convnext_tiny.fb_in22k``.
        strides: One stride per axis for each of the five halvings; only 2 is possible.
        pretrained: Whether to download timm's weights, once, and begin with them.

    Raises:
        ValueError: timm is missing or does not know the model, the weights could not be downloaded,
            the model can't be used here (see above), or the image has three axes or thick ones.
    """

    halvings = _HALVINGS

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        model: str,
        strides: Sequence[Sequence[int]] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.in_channels = in_channels
        if spatial_dims != 2:
            raise ValueError(f"{self._name} is for slices, got spatial_dims {spatial_dims}")
        if strides is not None and any(stride != 2 for axes in strides for stride in axes):
            raise ValueError(
                f"{self._name} halves both axes each time, but the spacing asks for "
                f"{[tuple(axes) for axes in strides]}; resample to equal spacing"
            )
        self._take(self._build(32, pretrained), 32)

    def set_output_stride(self, output_stride: OutputStride) -> None:
        """Halve down to ``output_stride``; see :class:`Encoder`.

        Raises:
            ValueError: No such stride, or the model has only that of 32, or would shift at another.
        """
        check_output_stride(output_stride)
        if output_stride == self.grids[-1][0]:
            return
        trunk = self._build(output_stride, False)
        # The same parameters, not copies of them: an optimiser may hold them.
        trunk.load_state_dict(self.trunk.state_dict(keep_vars=True), assign=True)
        self._take(trunk.train(self.training), output_stride)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps, finest first."""
        maps: list[Tensor] = self.trunk(image)
        return maps[-len(self.channels) :]

    def steps(self, axis: int) -> list[Step]:
        """Return the layers in the order of their grids; of parallel paths all, an upper bound."""
        steps: list[Step] = []
        before = 1
        for grid, kernel, dilation in sorted(self._layers, key=lambda layer: layer[0]):
            steps += [Step(stride=grid // before), Step(kernel, dilation=dilation)]
            before = grid
        return [*steps, Step(stride=self.grids[-1][axis] // before)]

    @property
    def _name(self) -> str:
        return f'encoder "timm:{self.model}"'

    def _build(self, output_stride: int, pretrained: bool) -> Any:
        """Return timm's network, which returns a list of maps."""
        timm = _import_timm(self._name)
        if not timm.is_model(self.model):
            raise ValueError(
                f"timm has no {self._name[8:]}{nearest(self.model, timm.list_models())}"
            )
        # Not every model knows the word, not even for the stride that it has.
        strides = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            return timm.create_model(
                self.model,
                features_only=True,
                pretrained=pretrained,
                in_chans=self.in_channels,
                **strides,
            )
        except (TypeError, AssertionError, NotImplementedError) as error:
            asked = f"output stride {output_stride}" if strides else "maps of features"
            raise ValueError(f"{self._name} has no {asked} in timm ({error})") from error
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{self._name} could not be loaded ({error})") from error

    def _take(self, trunk: Any, output_stride: int) -> None:
        """Use this trunk, after one look at how its maps lie on an image."""
        aligned = self._keeps_centres(trunk)
        reductions = trunk.feature_info.reduction()
        kept = [place for place, reduction in enumerate(reductions) if reduction > 1]
        grids = [reductions[place] for place in kept]
        expected = [min(r, output_stride) for r in _REDUCTIONS][-len(grids) :]
        if len(grids) < 4 or grids != expected:
            raise ValueError(
                f"{self._name} has maps at strides {grids}; expected {_REDUCTIONS[1:]} or from "
                f"{_REDUCTIONS[0]} on, down to the output stride of {output_stride}"
            )
        self.aligned_corners = aligned
        self.grids = [(grid, grid) for grid in grids]
        self.channels = tuple(trunk.feature_info.channels()[place] for place in kept)
        self.trunk = trunk
        self._layers = self._look()

    def _keeps_centres(self, trunk: nn.Module) -> bool:
        """Return whether strided layers keep their cells' centres in place, or else the edges.

        Raises:
            ValueError: Some do the one and some the other, or neither.
        """
        centres, edges, neither = [], [], []
        for key, layer in trunk.named_modules():
            if next(layer.children(), None) is not None or not hasattr(layer, "stride"):
                continue
            stride = _first(layer.stride)
            kernel = _first(getattr(layer, "kernel_size", 0))
            if stride == 1 and (kernel % 2 or not kernel):
                continue
            padding = _first(getattr(layer, "padding", 0))
            # Layers of this name pad while they run: by half, on the sizes that pad() gives.
            same = type(layer).__name__.endswith("Same")
            if kernel % 2 and (same or padding == kernel // 2):
                centres.append(key)
            elif kernel == stride and padding == 0 and not same:
                edges.append(key)
            else:
                neither.append(key)
        if neither or (centres and edges):
            odd = neither or edges
            raise ValueError(
                f"{self._name} would shift what it sees by half a cell at {', '.join(odd[:3])}; "
                f"take one whose strided layers all have odd kernels, such as timm:resnet18 or "
                f"timm:efficientnet_b0, or all have kernels as wide as their stride, at output "
                f"stride 32"
            )
        return not edges

    def _look(self) -> list[tuple[int, int, int]]:
        """Run once, and return each layer's voxels a cell before it, its kernel and its rate.

        Raises:
            ValueError: The maps have other sizes or channels than stated.
        """
        weights = next(self.trunk.parameters())
        n = 96 + self.aligned_corners
        image = torch.zeros(1, self.in_channels, n, n, device=weights.device, dtype=weights.dtype)
        layers: list[tuple[int, int, int]] = []

        def note(layer: Any, entered: tuple[Tensor, ...], _: Any) -> None:
            kernel, cells = _first(layer.kernel_size), entered[0].shape[-1]
            if kernel > 1:
                last = 1 if self.aligned_corners else 0
                grid = round((n - last) / (cells - last))
                layers.append((grid, kernel, _first(getattr(layer, "dilation", 1))))

        hooks = [
            layer.register_forward_hook(note)
            for layer in self.trunk.modules()
            if hasattr(layer, "kernel_size") and next(layer.children(), None) is None
        ]
        training = self.trunk.training
        try:
            with torch.no_grad():
                self.trunk.eval()
                found = [(m.shape[1], *spatial_size(m)) for m in self.forward(image)]
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"{self._name} refuses an image of {n} x {n} ({error})") from error
        finally:
            self.trunk.train(training)
            for hook in hooks:
                hook.remove()
        cells = [n // grid + self.aligned_corners for grid, _ in self.grids]
        expected = [(wide, m, m) for wide, m in zip(self.channels, cells, strict=True)]
        if found != expected:
            raise ValueError(
                f"{self._name} makes maps of {found} of {n} x {n}; expected {expected}"
            )
        return layers


def _import_timm(wanted: str) -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"{wanted} needs timm, and a torchvision made for this torch: "
            f"pip install 'medseg[timm]' ({error})"
        ) from error
    return timm


def _first(numbers: Any) -> int:
    return int(numbers if isinstance(numbers, int) else numbers[0])
