"""The sliding window against a plain computation on the whole image."""

from itertools import product

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from medseg.inference import probabilities_of, sliding_window
from medseg.inference.sliding import voxels_in_windows


def whole(rows) -> torch.Tensor:
    return torch.cat(list(rows), dim=1)


def network(spatial_dims: int, classes: int = 3) -> torch.nn.Module:
    """A network that sees its neighbourhood, so that windows disagree where they overlap."""
    torch.manual_seed(0)
    conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[spatial_dims]
    return conv(2, classes, 5, padding=2).eval()


def positions(size: int, window: int, count: int) -> list[int]:
    """Return evenly spread positions, written down independently."""
    if count == 1:
        return [0]
    return [round(i * (size - window) / (count - 1)) for i in range(count)]


def blended(scores, image, window, counts) -> torch.Tensor:
    """Return the Gaussian-weighted mean of all windows, on arrays of the whole image."""
    spatial = tuple(image.shape[1:])
    weight = compute_importance_map(window, mode="gaussian", sigma_scale=0.125).clamp(min=1e-3)
    total, sums = None, torch.zeros(spatial)
    starts = [positions(s, w, n) for s, w, n in zip(spatial, window, counts, strict=True)]
    for at in product(*starts):
        place = tuple(slice(p, p + w) for p, w in zip(at, window, strict=True))
        out = scores(image[(slice(None), *place)][None])[0]
        if total is None:
            total = torch.zeros((out.shape[0], *spatial))
        total[(slice(None), *place)] += out * weight
        sums[place] += weight
    return total / sums


@pytest.mark.parametrize(
    ("spatial", "window", "overlap", "counts"),
    [
        # 21 voxels in windows of 8, at most 4 apart: 5 windows; 13 voxels in windows of 6, 3.
        ((21, 13), (8, 6), 0.5, (5, 4)),
        ((21, 13), (8, 6), 0.0, (3, 3)),
        ((16, 9), (16, 4), 0.25, (1, 3)),
        ((9, 7, 10), (4, 7, 5), 0.5, (4, 1, 4)),
    ],
)
def test_rows_together_are_the_blend_of_all_windows(spatial, window, overlap, counts):
    torch.manual_seed(1)
    image = torch.randn(2, *spatial)
    scores = probabilities_of(network(len(spatial)))

    rows = whole(sliding_window(scores, image, window=window, overlap=overlap, batch=3))

    torch.testing.assert_close(rows, blended(scores, image, window, counts))


def test_where_windows_fit_exactly_monai_computes_the_same():
    torch.manual_seed(2)
    image = torch.randn(2, 24, 16)
    scores = probabilities_of(network(2))

    rows = whole(sliding_window(scores, image, window=(8, 8), overlap=0.5))

    theirs = sliding_window_inference(
        image[None], (8, 8), 4, scores, overlap=0.5, mode="gaussian", sigma_scale=0.125
    )[0]
    torch.testing.assert_close(rows, theirs)


@pytest.mark.parametrize("spatial", [(31, 17), (11, 7, 9), (3, 2)])
def test_what_every_window_agrees_on_is_left_as_it_is(spatial):
    image = torch.rand(2, *spatial)

    rows = whole(sliding_window(lambda x: x, image, window=(4,) * len(spatial), overlap=0.5))

    torch.testing.assert_close(rows, image)


def test_an_image_smaller_than_the_window_is_taken_whole():
    image = torch.rand(1, 5, 9)
    seen = []

    def scores(windows):
        seen.append(tuple(windows.shape))
        return windows

    assert [part.shape for part in sliding_window(scores, image, window=(64, 64))] == [(1, 5, 9)]
    assert seen == [(1, 1, 5, 9)]


def test_rows_come_in_order_and_only_a_window_of_them_is_held():
    image = torch.rand(1, 40, 6)
    handed, furthest = 0, 0

    def scores(windows):
        nonlocal furthest
        furthest += 1
        return windows

    for count, part in enumerate(sliding_window(scores, image, window=(8, 6), overlap=0.5)):
        assert part.shape[1] <= 8
        # All that the windows have seen so far and that was not handed over fits into a window.
        torch.testing.assert_close(part, image[:, handed : handed + part.shape[1]])
        handed += part.shape[1]
        seen = min(40, 4 * (furthest - 1) + 8)
        assert seen - handed <= 8
        assert furthest <= count + 2, "windows are computed no earlier than they are needed"
    assert handed == 40


def test_mirrored_views_are_averaged_over_all_combinations_of_the_axes():
    torch.manual_seed(3)
    net, image = network(2), torch.randn(1, 2, 9, 12)

    with torch.no_grad():
        by_hand = sum(
            net(image.flip(axes)).softmax(1).flip(axes) for axes in [(), (2,), (3,), (2, 3)]
        )

    torch.testing.assert_close(probabilities_of(net, mirror_axes=(0, 1))(image), by_hand / 4)
    assert not torch.allclose(probabilities_of(net)(image), by_hand / 4, atol=1e-3)


def test_probabilities_sum_to_one_after_blending_and_mirroring():
    image = torch.randn(2, 14, 10, 9)
    scores = probabilities_of(network(3), mirror_axes=(0, 2))

    total = whole(sliding_window(scores, image, window=(6, 6, 6))).sum(0)

    torch.testing.assert_close(total, torch.ones_like(total))


def test_half_precision_gives_whole_precision_back_and_nearly_the_same():
    image, net = torch.randn(1, 2, 16, 16), network(2)

    half = probabilities_of(net, precision="bf16")(image)

    assert half.dtype == torch.float32
    torch.testing.assert_close(half, probabilities_of(net)(image), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2.0])
def test_an_overlap_that_is_no_share_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap is a share of the window"):
        next(sliding_window(lambda x: x, torch.rand(1, 4, 4), window=(2, 2), overlap=overlap))


def test_a_window_of_other_axes_than_the_image_is_refused():
    with pytest.raises(ValueError, match="a window of 3 axes on an image of 2 axes"):
        next(sliding_window(lambda x: x, torch.rand(1, 4, 4), window=(2, 2, 2)))


def test_views_of_other_sizes_are_resized_back_and_averaged():
    net = torch.nn.Conv2d(1, 2, 1).eval()
    flat = torch.full((1, 1, 12, 9), 0.3)
    seen = []
    net.register_forward_hook(lambda *args: seen.append(tuple(args[1][0].shape[2:])))

    result = probabilities_of(net, scales=(0.5, 1, 1.25))(flat)

    assert seen == [(6, 4), (12, 9), (15, 11)]
    torch.testing.assert_close(result, probabilities_of(net)(flat), rtol=0, atol=1e-6)


def test_a_view_of_twice_the_size_and_the_view_itself_have_equal_parts():
    torch.manual_seed(3)
    net, image = network(3), torch.randn(1, 2, 6, 8, 7)
    twice = torch.nn.functional.interpolate(image, scale_factor=2, mode="trilinear")
    with torch.no_grad():
        back = torch.nn.functional.interpolate(
            net(twice).softmax(1), scale_factor=0.5, mode="trilinear"
        )
        by_hand = (net(image).softmax(1) + back) / 2

    torch.testing.assert_close(probabilities_of(net, scales=(1, 2))(image), by_hand)


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [((50, 37), (16, 20), 0.5), ((9, 40), (16, 16), 0.25), ((4, 30, 31), (16, 16), 0.5)],
)
def test_the_voxels_in_all_windows_are_foretold(shape, window, overlap):
    seen = []

    def scores(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch[:, 0].numel())
        return batch

    whole(sliding_window(scores, torch.zeros(1, *shape), window=window, overlap=overlap))

    assert voxels_in_windows(shape, window, overlap) == sum(seen)
