"""The same numbers from programs that share no line with ours, where they are installed."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics import (
    InstancePair,
    MaskPair,
    adapted_rand,
    assd,
    hausdorff,
    hd95,
    masd,
    nsd,
    voi_merge,
    voi_split,
)
from medseg.metrics.elements import element_areas


def blobs(seed: int, shape: tuple[int, ...], share: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    return smooth > np.quantile(smooth, 1 - share)


CASES = [((24, 30), (1.0, 1.0)), ((25, 21), (2.0, 0.7)), ((14, 15, 16), (3.0, 0.8, 1.1))]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 3.0, 5.0), (1.5, 1.0), (1.0, 4.0)])
def test_every_corner_has_the_area_of_monais_table(spacing):
    """MONAI carries the table of surface-distance; ours is derived."""
    utils = pytest.importorskip("monai.metrics.utils", reason="MONAI is not installed")
    tables = {
        2: utils.create_table_neighbour_code_to_contour_length,
        3: utils.create_table_neighbour_code_to_surface_area,
    }
    spatial_dims = len(spacing)
    theirs = np.asarray(tables[spatial_dims](spacing, "cpu")[0])
    ours = element_areas(spacing)
    offsets = list(product((0, 1), repeat=spatial_dims))
    assert len(theirs) == len(ours) == 2 ** len(offsets)
    for code, area in enumerate(theirs):
        inside = [o for i, o in enumerate(reversed(offsets)) if code >> i & 1]
        own = sum(1 << sum(1 << axis for axis, step in enumerate(o) if step) for o in inside)
        assert ours[own] == pytest.approx(area, rel=1e-5)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_the_voxel_backend_agrees_with_monai(shape, spacing):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    reference, prediction = blobs(1, shape), blobs(2, shape)
    pair = MaskPair(reference, prediction, spacing, backend="voxel")
    drawn, predicted = (torch.tensor(m[None, None]) for m in (reference, prediction))
    settings = {"include_background": True, "spacing": spacing}

    hd100 = metrics.compute_hausdorff_distance(predicted, drawn, **settings)
    assert hausdorff(pair) == pytest.approx(hd100.item(), rel=1e-5)
    robust = metrics.compute_hausdorff_distance(predicted, drawn, percentile=95, **settings)
    assert hd95(pair) == pytest.approx(robust.item(), rel=1e-5)
    mean = metrics.compute_average_surface_distance(predicted, drawn, symmetric=True, **settings)
    assert assd(pair) == pytest.approx(mean.item(), rel=1e-5)
    surface = metrics.compute_surface_dice(predicted, drawn, class_thresholds=[1.0], **settings)
    assert nsd(pair, tolerance=1.0) == pytest.approx(surface.item(), rel=1e-5)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_the_surface_dice_agrees_with_monai(shape, spacing):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    reference, prediction = blobs(3, shape), blobs(4, shape)
    surface = metrics.compute_surface_dice(
        torch.tensor(prediction[None, None]),
        torch.tensor(reference[None, None]),
        class_thresholds=[1.05],
        include_background=True,
        spacing=spacing,
        use_subvoxels=True,
    )
    found = nsd(MaskPair(reference, prediction, spacing), tolerance=1.05)
    assert found == pytest.approx(surface.item(), rel=1e-4)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_all_distances_agree_with_surface_distance(shape, spacing):
    program = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    reference, prediction = blobs(5, shape), blobs(6, shape)
    pair = MaskPair(reference, prediction, spacing)
    found = program.compute_surface_distances(reference, prediction, spacing)
    there, back = program.compute_average_surface_distance(found)

    assert masd(pair) == pytest.approx((there + back) / 2, rel=1e-9)
    for percentile, metric in ((100, hausdorff), (95, hd95)):
        theirs = program.compute_robust_hausdorff(found, percentile)
        assert metric(pair) == pytest.approx(theirs, rel=1e-9)
    theirs = program.compute_surface_dice_at_tolerance(found, 1.05)
    assert nsd(pair, tolerance=1.05) == pytest.approx(theirs, rel=1e-9)


def test_rand_and_voi_agree_with_scikit_image():
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    reference = ndimage.label(blobs(7, (60, 60), 0.5))[0]
    prediction = ndimage.label(blobs(7, (60, 60), 0.55))[0]
    pair = InstancePair(reference, prediction)

    error, swapped_precision, swapped_recall = skimage.adapted_rand_error(reference, prediction)
    rand = adapted_rand(pair, self_pairs=False)
    assert rand.error == pytest.approx(error)
    assert rand.precision == pytest.approx(swapped_recall)
    assert rand.recall == pytest.approx(swapped_precision)

    split, merge = skimage.variation_of_information(reference, prediction, ignore_labels=(0,))
    assert (voi_split(pair), voi_merge(pair)) == pytest.approx((split, merge))
