"""What only FCN promises."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.networks import FCN
from medseg.networks.layers import Step, receptive_field
from medseg.networks.upsample import BilinearUpsample

SLIM = {"encoder": "vgg11", "encoder_width": 2, "fc_channels": 4, "norm": "none"}
PUBLISHED = {**SLIM, "fc_kernel": 7, "paper_padding": True}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def drawn(network: nn.Module) -> nn.Module:
    """The network with scores that are not zero, and without dropout."""
    torch.manual_seed(0)
    for weights in network.parameters():
        if weights.dim() > 2:
            nn.init.kaiming_normal_(weights)
    return network.eval()


@pytest.mark.parametrize(
    ("variant", "weights", "stored_dense", "not_zero"),
    [
        ("32s", 134_346_581, 1_806_336, 86_016),
        ("16s", 134_357_354, 458_640, 21_840),
        ("8s", 134_362_751, 127_008, 6_048),
    ],
)
def test_counts_are_as_published(variant, weights: int, stored_dense: int, not_zero: int):
    with torch.device("meta"):
        network = FCN.paper(3, 21, variant=variant)
    assert sum(w.numel() for w in network.parameters()) == weights
    kernels = [m.weight for m in network.modules() if isinstance(m, BilinearUpsample)]
    assert sum(k.numel() for k in kernels) == not_zero
    # Published with a kernel for each of the 21 x 21 pairs of classes, all zero but 21.
    assert sum(k.shape[0] ** 2 * k[0, 0].numel() for k in kernels) == stored_dense


@pytest.mark.parametrize(
    ("variant", "offsets"),
    [("32s", [19]), ("16s", [5, 27]), ("8s", [5, 9, 31])],
)
def test_crops_are_as_published(variant, offsets: list[int]):
    found = FCN(2, 1, 2, variant=variant, **PUBLISHED).crop_offsets()
    assert [tuple(offset) for offset in found.values()] == [(n, n) for n in offsets]


def test_the_classifier_sees_404_voxels_as_published():
    with torch.device("meta"):
        network = FCN.paper(variant="32s")
    assert receptive_field([*network.encoder.steps(0), Step(network.fc_kernel)]) == 404


@pytest.mark.parametrize("variant", ["32s", "16s", "8s", "4s"])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 65), (97, 131)])
def test_the_published_padding_gives_logits_for_any_size(variant, size):
    network = FCN(2, 1, 2, variant=variant, **PUBLISHED)
    assert network(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def test_the_published_padding_does_not_shift_either():
    """Averaging kernels and poolings leave a blob where it was, but for cells of 8 voxels."""
    network = drawn(FCN(2, 1, 2, variant="4s", **PUBLISHED))
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(1 / weights[0].numel() if weights.dim() > 1 else 0.0)
    place = torch.arange(161.0)
    blob = torch.exp(-((place - 80) ** 2) / (2 * 20**2))
    with torch.no_grad():
        response = network(blob.expand(1, 1, 161, 161))[0, 0, 80]
    upper = (response - 0.5 * response.max()).clamp(min=0)
    # The grid of cells begins 99 voxels before the image: mirrored, it falls between the voxels.
    assert float((upper * place).sum() / upper.sum()) == pytest.approx(80, abs=1.0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_scores_start_at_zero_so_that_the_loss_starts_at_ln_classes(spatial_dims: int):
    network = FCN.small(spatial_dims, 1, 4)
    logits = network(noise(1, 1, *(20,) * spatial_dims)).detach()
    target = torch.ones(1, *(20,) * spatial_dims, dtype=torch.long)
    loss = functional.cross_entropy(logits, target)
    assert float(loss) == pytest.approx(math.log(4))


def cascade(scores: Tensor, *scales: int) -> Tensor:
    for scale in scales:
        scores = functional.interpolate(
            scores, scale_factor=float(scale), mode="bilinear", align_corners=False
        )
    return scores


@pytest.mark.parametrize("learn_upsampling", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_finer_variant_takes_over_and_starts_as_the_coarser_one(learn_upsampling, at_once):
    settings = {**SLIM, "learn_upsampling": learn_upsampling, "at_once": at_once}
    image = noise(1, 1, 128, 96)
    coarse = drawn(FCN(2, 1, 3, variant="32s", **settings))
    with torch.no_grad():
        scores = coarse.score(coarse.classifier(coarse.encoder(image)[-1]))
        assert scores.shape[2:] == (4, 3)
        torch.testing.assert_close(coarse(image), cascade(scores, 32))
    for variant, scales in (("16s", (2, 16)), ("8s", (2, 2, 8)), ("4s", (2, 2, 2, 4))):
        finer = FCN(2, 1, 3, variant=variant, **settings).eval()
        taken = finer.load_state_dict(coarse.state_dict(), strict=False)
        assert not taken.unexpected_keys
        assert all(key.startswith(("skips", "ups")) for key in taken.missing_keys)
        with torch.no_grad():
            torch.testing.assert_close(finer(image), cascade(scores, *scales))
        coarse = finer


def test_the_cascades_differ_only_where_the_interpolation_has_kinks():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    once, twice = cascade(ramp, 32), cascade(ramp, 2, 2, 8)
    torch.testing.assert_close(once[..., 32:-32], twice[..., 32:-32])
    kinked = (ramp - 2).abs()
    apart = (cascade(kinked, 32) - cascade(kinked, 2, 16)).abs()
    # A kink of slope 2 is cut from a quarter of a cell on either side: by 1/4 at most.
    assert 0.2 < float(apart.max()) <= 0.25


def test_scores_of_earlier_maps_are_added_and_at_once_scales_these_maps():
    image = noise(1, 1, 64, 64)
    network = drawn(FCN(2, 1, 2, variant="8s", **SLIM))
    scaled = drawn(FCN(2, 1, 2, variant="8s", at_once=True, **SLIM))
    scaled.load_state_dict(network.state_dict())
    with torch.no_grad():
        maps = network.encoder(image)
        scores = network.score(network.classifier(maps[4]))
        early, earlier = network.skips["pool4"], network.skips["pool3"]
        for net, a, b in ((network, 1, 1), (scaled, 0.01, 0.0001)):
            sums = cascade(cascade(scores, 2) + early(a * maps[3]), 2) + earlier(b * maps[2])
            torch.testing.assert_close(net(image), cascade(sums, 8))


@pytest.mark.parametrize(("shift", "same"), [(32, True), (16, False), (8, False)])
def test_a_shift_by_whole_cells_shifts_the_logits_and_no_other_does(shift: int, same: bool):
    torch.manual_seed(0)
    network = drawn(FCN(2, 1, 2, variant="32s", **SLIM, fc_kernel=3))
    half = network.receptive_field()[0] // 2 + 32
    image = noise(1, 1, 2 * half + 128, 64)
    rolled = image.roll(shift, 2)
    with torch.no_grad():
        here = network(image)[..., half : half + 32, :]
        there = network(rolled)[..., half + shift : half + shift + 32, :]
    scale = here.std()
    assert bool((here - there).abs().max() < 1e-4 * scale) == same


def test_the_coarse_path_sees_more_than_200_voxels():
    assert FCN.small(2, 1, 2).receptive_field()[0] >= 200


def test_only_enlargements_by_two_are_learned():
    network = FCN(2, 1, 2, variant="8s", learn_upsampling=True, **SLIM)
    learned = [name for name, _ in network.named_parameters() if name.startswith(("ups", "last"))]
    assert learned == ["ups.pool4.weight", "ups.pool3.weight"]


def test_axes_are_halved_late_if_thick_and_never_to_less_than_two_cells_of_the_patch():
    thick = FCN(3, 1, 2, spacing=(5, 1, 1), **SLIM)
    assert thick.output_stride == (8, 32, 32)
    assert thick(torch.zeros(1, 1, 5, 33, 40)).shape == (1, 2, 5, 33, 40)
    little = FCN(3, 1, 2, patch_voxels=(12, 64, 40), **SLIM)
    assert little.output_stride == (4, 32, 16)
    assert little(torch.zeros(1, 1, 12, 64, 40)).shape == (1, 2, 12, 64, 40)


@pytest.mark.parametrize("settings", [{"fc_kernel": 4}, {"fc_kernel": 9, "paper_padding": True}])
def test_a_classifier_that_fits_no_grid_is_refused(settings):
    with pytest.raises(ValueError, match="fc_kernel is odd"):
        FCN(2, 1, 2, **settings)
