"""What must hold for any masks and label images."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.metrics import (
    METRICS,
    InstancePair,
    MaskPair,
    adapted_rand,
    assd,
    average_precision,
    boundary_iou,
    dice,
    hausdorff,
    hd95,
    instance_f1,
    instance_precision,
    instance_recall,
    iou,
    masd,
    merges,
    nsd,
    panoptic_quality,
    segmentation_quality,
    splits,
    voi_merge,
    voi_split,
)

SHAPES = st.one_of(
    st.tuples(st.integers(1, 7), st.integers(1, 8)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SYMMETRIC = {
    "dice": dice,
    "iou": iou,
    "hd": hausdorff,
    "hd95": hd95,
    "assd": assd,
    "masd": masd,
    "nsd": lambda pair: nsd(pair, tolerance=1.2),
    "boundary_iou": lambda pair: boundary_iou(pair, distance=1.5),
}


@st.composite
def two_masks(draw):
    shape = draw(SHAPES)
    masks = hnp.arrays(bool, shape)
    steps = st.sampled_from([0.25, 0.7, 1.0, 1.5, 4.0])
    spacing = draw(st.tuples(*[steps] * len(shape)))
    return draw(masks), draw(masks), spacing


@st.composite
def two_label_images(draw):
    shape = draw(SHAPES)
    labels = hnp.arrays(np.int32, shape, elements=st.integers(0, 4))
    return draw(labels), draw(labels)


def values(reference, prediction, spacing, backend="surface", unit="px") -> dict[str, float]:
    pair = MaskPair(reference, prediction, spacing, unit, backend)
    return {name: metric(pair) for name, metric in SYMMETRIC.items()}


backends = pytest.mark.parametrize("backend", ["surface", "voxel"])


@backends
@QUICK
@given(two_masks())
def test_swapping_the_readers_changes_nothing(backend, given_masks):
    a, b, spacing = given_masks
    there, back = values(a, b, spacing, backend), values(b, a, spacing, backend)
    assert there == pytest.approx(back, nan_ok=True)


@backends
@QUICK
@given(two_masks())
def test_a_mask_agrees_perfectly_with_itself(backend, given_masks):
    a, _, spacing = given_masks
    assume(a.any())
    for name, value in values(a, a.copy(), spacing, backend).items():
        assert value == METRICS.facts(name)["best"]


@backends
@QUICK
@given(two_masks(), st.integers(0, 3), st.integers(0, 3))
def test_moving_both_masks_changes_nothing(backend, given_masks, before, after):
    a, b, spacing = given_masks
    moved = [np.pad(mask, [(before, after)] * mask.ndim) for mask in (a, b)]
    here, elsewhere = values(a, b, spacing, backend), values(*moved, spacing, backend)
    assert here == pytest.approx(elsewhere, nan_ok=True)


@backends
@QUICK
@given(two_masks(), st.data())
def test_a_mirror_changes_nothing(backend, given_masks, data):
    a, b, spacing = given_masks
    axis = data.draw(st.integers(0, a.ndim - 1))
    seen = values(a, b, spacing, backend)
    mirrored = values(np.flip(a, axis), np.flip(b, axis), spacing, backend)
    assert seen == pytest.approx(mirrored, nan_ok=True)


@backends
@QUICK
@given(two_masks())
def test_turning_the_axes_with_their_spacing_changes_nothing(backend, given_masks):
    a, b, spacing = given_masks
    turned = values(a.T, b.T, spacing[::-1], backend)
    assert values(a, b, spacing, backend) == pytest.approx(turned, nan_ok=True)


@backends
@QUICK
@given(two_masks(), st.floats(0, 5))
def test_millimetres_and_micrometres_tell_the_same(backend, given_masks, tolerance):
    a, b, spacing = given_masks
    mm = MaskPair(a, b, spacing, "mm", backend)
    um = MaskPair(a, b, tuple(1000 * s for s in spacing), "um", backend)
    for metric in (hausdorff, hd95, assd, masd):
        assert metric(um) == pytest.approx(1000 * metric(mm), nan_ok=True)
    within = nsd(mm, tolerance=tolerance)
    assert nsd(um, tolerance=1000 * tolerance) == pytest.approx(within, nan_ok=True)
    assert um.diagonal == pytest.approx(1000 * mm.diagonal)


@backends
@QUICK
@given(two_masks(), st.lists(st.floats(0, 20), min_size=2, max_size=6))
def test_a_wider_tolerance_never_lowers_the_score(backend, given_masks, tolerances):
    a, b, spacing = given_masks
    pair = MaskPair(a, b, spacing, backend=backend)
    assume(pair.status == "ok")
    scores = [nsd(pair, tolerance=t) for t in sorted(tolerances)]
    assert scores == sorted(scores)
    assert nsd(pair, tolerance=pair.diagonal) == 1.0


@backends
@QUICK
@given(two_masks())
def test_means_and_percentiles_stay_below_the_largest_distance(backend, given_masks):
    a, b, spacing = given_masks
    pair = MaskPair(a, b, spacing, backend=backend)
    assume(pair.status == "ok")
    largest = hausdorff(pair) * (1 + 1e-12)
    assert 0 <= hd95(pair) <= largest
    assert 0 <= masd(pair) <= largest
    assert 0 <= assd(pair) <= largest <= pair.diagonal * (1 + 1e-9)


@QUICK
@given(two_masks())
def test_a_mask_and_what_it_leaves_share_their_border(given_masks):
    a, _, spacing = given_masks
    mask = np.pad(a, 2)
    rest, whole = ~mask, np.ones_like(mask)
    inner, outer, edge = (
        MaskPair(m, m, spacing).border_distances[0].area for m in (mask, rest, whole)
    )
    # What is left also ends at the image's edge.
    assert outer == pytest.approx(inner + edge)


@QUICK
@given(two_label_images(), st.sampled_from([0.1, 0.3, 0.5, 0.75]))
def test_panoptic_quality_is_recognition_times_segmentation(labels, threshold):
    pair = InstancePair(*labels)
    recognised = instance_f1(pair, threshold=threshold)
    outlined = segmentation_quality(pair, threshold=threshold)
    whole = panoptic_quality(pair, threshold=threshold)
    assert whole == pytest.approx(recognised * outlined, nan_ok=True)
    if pair.status == "ok":
        match = pair.matching(threshold)
        objects = (pair.reference_count + pair.predicted_count) / 2
        assert whole == pytest.approx(match.iou.sum() / objects)


@QUICK
@given(two_label_images(), st.sampled_from([0.1, 0.3, 0.5, 0.75]))
def test_swapping_label_images_swaps_precision_and_recall(labels, threshold):
    there, back = InstancePair(*labels), InstancePair(*labels[::-1])
    for metric in (average_precision, instance_f1, panoptic_quality):
        one, other = metric(there, threshold=threshold), metric(back, threshold=threshold)
        assert one == pytest.approx(other, nan_ok=True)
    swapped = instance_recall(back, threshold=threshold)
    assert instance_precision(there, threshold=threshold) == pytest.approx(swapped, nan_ok=True)
    assert splits(there) == pytest.approx(merges(back), nan_ok=True)
    if there.status == "ok":
        cut = voi_split(there, background="segment")
        assert cut == pytest.approx(voi_merge(back, background="segment"), abs=1e-12)


@QUICK
@example(
    (np.array([[0, 2, 1], [1, 0, 1], [0, 1, 1]]), np.array([[4, 4, 4], [0, 1, 0], [1, 0, 1]])),
    [2, 3, 4, 1],
    0,
)
@given(two_label_images(), st.permutations(range(1, 5)), st.integers(0, 2**63))
def test_the_numbers_of_the_objects_do_not_matter(labels, order, base):
    reference, prediction = labels
    renamed = np.array([0, *(base + place for place in order)], np.uint64)[prediction]
    here, there = InstancePair(reference, prediction), InstancePair(reference, renamed)
    partners = list(zip(here.overlaps.reference, here.iou, here.overlaps.shared, strict=True))
    tied = len(set(partners)) < len(partners)  # AJI must then choose by number
    for name in METRICS:
        if METRICS.facts(name)["kind"] == "instance" and not (name == "aji" and tied):
            one, other = METRICS[name](here), METRICS[name](there)
            assert one == pytest.approx(other, nan_ok=True), name


@QUICK
@given(two_label_images(), st.sampled_from([0.05, 0.2, 0.4]))
def test_no_matching_finds_more_objects_than_ours(labels, threshold):
    pair = InstancePair(*labels)
    assume(pair.status == "ok")
    table = np.zeros((pair.reference_count, pair.predicted_count))
    reference_ids, predicted_ids = (np.unique(x[x > 0]) for x in labels)
    for i, r in enumerate(reference_ids):
        for j, p in enumerate(predicted_ids):
            a, b = labels[0] == r, labels[1] == p
            table[i, j] = np.sum(a & b) / np.sum(a | b)
    if len(reference_ids) > len(predicted_ids):
        table = table.T
    best = max(
        (sum(table[i, j] > threshold for i, j in enumerate(p)),
         sum(table[i, j] for i, j in enumerate(p) if table[i, j] > threshold))
        for p in permutations(range(table.shape[1]), table.shape[0])
    )  # fmt: skip
    match = pair.matching(threshold)
    assert (match.found, match.iou.sum()) == pytest.approx(best)


@QUICK
@given(two_label_images(), st.sampled_from(["ignore", "singletons", "segment"]))
def test_the_same_cells_are_perfect_under_every_background_rule(labels, background):
    reference, _ = labels
    pair = InstancePair(reference, reference)
    assume(pair.status == "ok")
    rand = adapted_rand(pair, background=background)
    assert (rand.error, rand.precision, rand.recall) == pytest.approx((0, 1, 1))
    assert voi_split(pair, background=background) == pytest.approx(0, abs=1e-12)
    assert voi_merge(pair, background=background) == pytest.approx(0, abs=1e-12)
