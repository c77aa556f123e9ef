"""What every registered network promises; a new one is tested by being registered."""

from copy import deepcopy
from math import prod
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from medseg.networks import NETWORKS, Network
from medseg.networks.gcn import AlignedUp
from medseg.networks.segnet import IndexPool, IndexUnpool

SIZES = {2: (65, 97), 3: (33, 45, 21)}
LITTLE = {2: (31, 22), 3: (9, 14, 11)}

# Strided 3x3 convolutions see voxels 2i-1 to 2i+1, transposed ones write 2i and 2i+1: half a cell
# a level, which nnU-Net leaves to its skips and to the weights.
SHIFTED_BY_DESIGN = {"dynunet"}

# Of two almost equal voxels, rounding chooses the one where a maximum returns to.
DECIDED_BY_ROUNDING = {"segnet"}

# What the small presets leave out, as narrow as it gets.
THIN = {"encoder": "resnet10", "encoder_width": 4}
FLAT = {"aspp_channels": 4, "aspp_rates": (2, 3)}
V3PLUS = {**FLAT, "low_level_channels": 4, "decoder_channels": 4}
SEARCHED = {**V3PLUS, "depth": 5, "filter_multiplier": 2, "stem_channels": 2}
THICK = (5.0, 1.0, 1.0)
VARIANTS = [
    ("gcn", 2, {**THIN, "mid_channels": 2, "k": 3}),
    ("gcn", 3, {**THIN, "mid_channels": 2, "k": 3, "spacing": THICK}),
    ("deeplabv1", 2, {"encoder_width": 2, "fov_channels": 4, "fov_rate": 2, "fov_kernel": 4}),
    (
        "deeplabv1",
        2,
        {"encoder_width": 2, "fov_channels": 4, "multiscale_skip": True, "skip_channels": 2},
    ),
    ("deeplabv2", 2, {**THIN, "aspp_rates": (1, 2), "input_scales": (0.5,)}),
    ("deeplabv3", 2, {**THIN, "aspp_channels": 4, "context": "dpc", "output_stride": 16}),
    ("deeplabv3plus", 2, {**THIN, **V3PLUS, "decoder_stride": 4}),
    (
        "deeplabv3plus",
        2,
        {**V3PLUS, "encoder": "xception_s", "encoder_width": 4, "separable": True},
    ),
    ("deeplabv3plus", 3, {**THIN, **V3PLUS, "decoder_stride": 2, "spacing": THICK}),
    ("autodeeplab", 2, {**SEARCHED, "decoder_stride": 4}),
    ("unet", 3, {"channels": (2, 4, 4, 4), "spacing": THICK}),
]
SMALL = [(name, dims, None) for name in NETWORKS for dims in (2, 3)]

# Of scales, the network states the largest that it may see.
STATED_AT_THE_MOST = {"deeplabv2"}

every_network = pytest.mark.parametrize("name", list(NETWORKS))
both_dimensions = pytest.mark.parametrize("spatial_dims", [2, 3])


def build(
    name: str,
    spatial_dims: int,
    in_channels: int = 1,
    out_channels: int = 3,
    settings: dict | None = None,
) -> Network:
    """The small preset, or one of other settings, with a last layer that is not zero."""
    torch.manual_seed(0)
    if settings is None:
        settings = NETWORKS[name].small_settings(spatial_dims)
    network = NETWORKS.build(name, spatial_dims, in_channels, out_channels, **settings)
    for weights in network.parameters():
        if weights.dim() > 2 and not weights.any():
            nn.init.normal_(weights, std=0.1)
    return network


def image_of(size: tuple[int, ...], in_channels: int = 1, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, in_channels, *size, generator=generator)


def outputs_of(network: Network, image: Tensor) -> list[Tensor]:
    """The logits, and what else training returns."""
    outputs = network(image)
    return outputs if isinstance(outputs, list) else [outputs]


@every_network
@both_dimensions
def test_logits_lie_on_the_grid_of_an_odd_sized_image(name: str, spatial_dims: int):
    network = build(name, spatial_dims, in_channels=2).eval()
    with torch.no_grad():
        logits = network(image_of(SIZES[spatial_dims], in_channels=2))
    assert logits.shape == (1, 3, *SIZES[spatial_dims])
    assert torch.isfinite(logits).all()


@every_network
@both_dimensions
def test_the_smallest_size_and_sizes_around_it_work(name: str, spatial_dims: int):
    network = build(name, spatial_dims)
    for more in (0, 1, 4):
        size = tuple(n + more * (axis + 1) for axis, n in enumerate(network.minimum_size))
        assert outputs_of(network, image_of(size))[0].shape == (1, 3, *size)


@every_network
@both_dimensions
def test_one_image_a_batch_trains_every_weight(name: str, spatial_dims: int):
    network = build(name, spatial_dims).train()
    outputs = outputs_of(network, image_of(LITTLE[spatial_dims]))
    sum((logits * torch.randn_like(logits)).sum() for logits in outputs).backward()
    for key, weights in network.named_parameters():
        assert weights.grad is not None, key
        assert torch.isfinite(weights.grad).all(), key


@every_network
@both_dimensions
def test_evaluation_is_deterministic_in_deterministic_mode(name: str, spatial_dims: int):
    image = image_of(LITTLE[spatial_dims])
    torch.use_deterministic_algorithms(True)
    try:
        network = build(name, spatial_dims)
        sum(logits.sum() for logits in outputs_of(network, image)).backward()
        network.eval()
        with torch.no_grad():
            assert torch.equal(network(image), network(image))
    finally:
        torch.use_deterministic_algorithms(False)


@every_network
@both_dimensions
def test_saved_weights_make_the_same_network(name: str, spatial_dims: int):
    image = image_of(LITTLE[spatial_dims])
    network, other = build(name, spatial_dims), build(name, spatial_dims)
    for weights in other.parameters():
        nn.init.constant_(weights, 0.5)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(image), other.eval()(image))
    pointers = [weights.data_ptr() for weights in network.state_dict().values()]
    assert len(set(pointers)) == len(pointers), "safetensors refuses shared tensors"


@every_network
def test_a_network_can_be_copied_after_a_training_step(name: str):
    network = build(name, 2)
    image = image_of(LITTLE[2])
    sum(logits.sum() for logits in outputs_of(network, image)).backward()
    copied = deepcopy(network)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), copied.eval()(image))


@every_network
@both_dimensions
def test_autocast_to_bfloat16_gives_finite_logits_close_to_full_ones(name: str, spatial_dims: int):
    image = image_of(LITTLE[spatial_dims])
    network = build(name, spatial_dims).eval()
    with torch.no_grad():
        full = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image)
    assert torch.isfinite(half).all()
    share = 0.5 if name in DECIDED_BY_ROUNDING else 0.1
    assert (half.float() - full).abs().mean() < share * full.abs().mean() + 0.01


@every_network
@both_dimensions
def test_the_images_of_a_batch_do_not_mix(name: str, spatial_dims: int):
    pair = image_of(LITTLE[spatial_dims], batch=2)
    network = build(name, spatial_dims).eval()
    with torch.no_grad():
        together, alone = network(pair)[1:], network(pair[1:])
    # Rounding grows with the logits, and processors add up a batch of two and of one differently.
    rounding = 1e-4 * max(1.0, float(alone.abs().max()))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=rounding)


@every_network
def test_deep_supervision_returns_coarser_or_auxiliary_logits_while_training_only(name: str):
    if "deep_supervision" not in NETWORKS.settings(name):
        pytest.skip(f"{name} has no deep supervision")
    network = NETWORKS.build(name, 2, 1, 3, deep_supervision=True)
    image = image_of((37, 50))
    outputs = network(image)
    assert isinstance(outputs, list)
    sizes = [tuple(output.shape[2:]) for output in outputs]
    if network.supervision_weights is None:
        assert sizes[:3] == [(37, 50), (19, 25), (10, 13)]
    else:  # auxiliary heads, on the image's own grid
        assert sizes == [(37, 50)] * len(network.supervision_weights)
    sum(output.sum() for output in outputs).backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())
    network = deepcopy(network).eval()
    assert network(image).shape == (1, 3, 37, 50)


class MeanPool(nn.Module):
    """The mean of each cell, whose place is the whole cell."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[len(stride)](stride)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(features), torch.empty(0)


class Spread(nn.Module):
    """Unpooling onto every voxel of a cell."""

    def forward(self, features: Tensor, places: Tensor, size: tuple[int, ...]) -> Tensor:
        return nn.functional.interpolate(features, size=tuple(size), mode="nearest")


class MeanWindow(nn.Module):
    """The mean of what a max-pooling, perhaps a dilated one, takes the largest of."""

    def __init__(self, pool: nn.MaxPool2d | nn.MaxPool3d) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = pool.kernel_size, pool.stride, pool.dilation
        self.padding = pool.padding

    def forward(self, features: Tensor) -> Tensor:
        channels, dims = features.shape[1], features.dim() - 2
        size = self.kernel_size
        sides = size if isinstance(size, tuple) else (size,) * dims
        window = features.new_full((channels, 1, *sides), 1 / prod(sides))
        convolve = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[dims]
        return convolve(
            features, window, None, self.stride, self.padding, self.dilation, groups=channels
        )


@every_network
@both_dimensions
def test_an_exported_network_gives_the_same_logits(name: str, spatial_dims: int):
    image = image_of(LITTLE[spatial_dims])
    network = build(name, spatial_dims).eval()
    with torch.no_grad():
        exported = torch.export.export(network, (image,))
        torch.testing.assert_close(exported.module()(image), network(image), rtol=1e-5, atol=1e-5)
    own = [node for node in exported.graph.nodes if "medseg" in str(node.target)]
    assert not own, "an operator that other programs do not know"


@pytest.mark.slow
@every_network
@both_dimensions
def test_onnx_runtime_gives_the_same_logits(name: str, spatial_dims: int, tmp_path: Path):
    image = image_of(LITTLE[spatial_dims])
    network = build(name, spatial_dims).eval()
    file = tmp_path / "network.onnx"
    torch.onnx.export(network, (image,), file, dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        expected = network(image)
    rounding = 2e-5 * float(expected.abs().max())
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=rounding)


def bare(network: Network, side: float) -> Network:
    """The network without norms and with positive kernels: what is left is where things go.

    A way up that starts as linear interpolation, of taps that are not centred, stays as it starts.

    Args:
        network: Is changed.
        side: Weight of a kernel's outer taps; the middle one, or two, have 1. Image-wide pooling
            gets 0.
    """
    for parent in list(network.modules()):
        for key, part in list(parent.named_children()):
            if isinstance(part, nn.GroupNorm | nn.modules.batchnorm._NormBase):
                setattr(parent, key, nn.Identity())
            elif isinstance(part, IndexPool):
                setattr(parent, key, MeanPool(part.pool.stride))
            elif isinstance(part, IndexUnpool):
                setattr(parent, key, Spread())
    kept = {id(part.conv.weight) for part in network.modules() if isinstance(part, AlignedUp)}
    with torch.no_grad():
        for key, weights in network.named_parameters():
            if id(weights) in kept:
                continue
            if weights.dim() < 3:
                weights.fill_(0.0)
                continue
            kernel = torch.ones(())
            for n in weights.shape[2:]:
                taps = torch.full((n,), side)
                taps[(n - 1) // 2 : n // 2 + 1] = 1.0
                kernel = kernel[..., None] * taps
            weights.copy_(kernel.expand_as(weights) / kernel.sum() / weights.shape[1])
            weights.mul_(0.0 if ".pooled." in key else 1.0)
    return network.eval()


def case_name(case: tuple[str, int, dict | None]) -> str:
    name, spatial_dims, settings = case
    return f"{name}-{spatial_dims}d" + ("" if settings is None else f"-{VARIANTS.index(case)}")


@pytest.mark.parametrize("case", [*SMALL, *VARIANTS], ids=case_name)
@pytest.mark.parametrize("n", [128, 129, 137])
def test_nothing_shifts(case: tuple[str, int, dict | None], n: int):
    name, spatial_dims, settings = case
    if name in SHIFTED_BY_DESIGN:
        pytest.skip(f"{name}: half a cell a level, by design")
    network = bare(build(name, spatial_dims, settings=settings), side=0.05)
    place = torch.arange(n, dtype=torch.float32)
    # Places all over a coarse cell: what its map sees of one narrow blob hangs on the place.
    stride = round(max(network.output_stride) / min(getattr(network, "input_scales", [1])))
    middle = 0.35 * n + torch.arange(0, stride, -(-stride // 4))[:, None]
    blobs = torch.exp(-((place - middle) ** 2) / (2 * 9.0**2))

    def centre(along: Tensor) -> float:
        upper_half = (along - 0.5 * along.amax(1, keepdim=True)).clamp(min=0)
        return float(((upper_half * place).sum(1) / upper_half.sum(1)).mean())

    for axis in range(2, spatial_dims + 2):
        image = blobs.reshape(-1, *(n if a == axis else 1 for a in range(1, spatial_dims + 2)))
        image = image.expand(-1, 1, *(n if a == axis else 7 for a in range(2, spatial_dims + 2)))
        with torch.no_grad():
            response = network(image)[:, :1].transpose(axis, -1).flatten(1, -2).mean(1)
        assert centre(response) == pytest.approx(centre(blobs), abs=0.1)


@pytest.mark.parametrize(
    "case", [*(case for case in SMALL if case[1] == 2), *VARIANTS], ids=case_name
)
def test_the_receptive_field_is_what_the_gradient_reaches(case: tuple[str, int, dict | None]):
    name, spatial_dims, settings = case
    network = bare(build(name, spatial_dims, settings=settings), side=1.0).double()
    for parent in list(network.modules()):
        for key, part in list(parent.named_children()):
            if isinstance(part, nn.MaxPool2d | nn.MaxPool3d):
                setattr(parent, key, MeanWindow(part))
        if isinstance(parent, AlignedUp):
            nn.init.ones_(parent.conv.weight)  # its first tap, too, as if it had learned
    field, stride = network.receptive_field()[0], network.output_stride[0]
    others = (12,) * (spatial_dims - 1)
    image = torch.ones(1, 1, field + 4 * stride, *others, dtype=torch.float64, requires_grad=True)
    middle = image.shape[2] // 2
    logits = network(image)[(0, 0, slice(None), *(6 for _ in others))]
    widths = []
    for position in range(middle, middle + stride):
        (reached,) = torch.autograd.grad(logits[position], image, retain_graph=True)
        rows = reached[0, 0].flatten(1).abs().sum(1).nonzero()
        widths.append(int(rows.max() - rows.min()) + 1)
    if settings is not None and name in STATED_AT_THE_MOST:
        assert 0.9 * field < max(widths) <= field
    else:
        assert max(widths) == field


@every_network
def test_two_or_three_dimensions_only(name: str):
    for make in (NETWORKS[name], NETWORKS[name].small):
        with pytest.raises(ValueError, match="spatial_dims"):
            make(4, 1, 2)
    with pytest.raises(ValueError, match="channels"):
        NETWORKS[name](2, 0, 2)
