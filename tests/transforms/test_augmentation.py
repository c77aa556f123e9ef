import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import Compose

from medseg.transforms import AUGMENTATIONS, IGNORED, PatchSampler, PatchSource
from medseg.transforms.sides import Sides
from medseg.transforms.spatial import RandMirrord, RandWarpd

# Every transform certain, so that one patch meets them all.
ALWAYS = {
    "recipe": {
        "rotation": 1.0,
        "scaling": 1.0,
        "elastic": 1.0,
        "noise": 1.0,
        "blur": 1.0,
        "brightness": 1.0,
        "contrast": 1.0,
        "low_resolution": 1.0,
        "gamma": 1.0,
        "gamma_inverted": 1.0,
    },
    "light": dict.fromkeys(["quarter_turns", "elastic", "brightness", "shift", "noise"], 1.0),
    "none": {},
}
PATCHES = [(32, 32), (20, 33), (16, 16, 16), (5, 20, 20), (20, 18, 6)]


def case(shape, seed=0, channels=1):
    """Return smooth blobs of three classes; the image is the label."""
    rng = np.random.default_rng(seed)
    place = np.indices(shape).astype(float)
    labels = np.zeros(shape, np.int32)
    for value in (1, 2, 3):
        centre = rng.uniform(0.2, 0.8, len(shape)) * shape
        away = sum((p - c) ** 2 for p, c in zip(place, centre, strict=True))
        labels[away < (0.22 * min(shape)) ** 2] = value
    label = torch.from_numpy(labels)[None]
    return {"image": label.float().repeat(channels, *(1,) * len(shape)), "label": label}


def build(name, patch, sagittal=None, sided=(), **settings):
    return AUGMENTATIONS.build(name, len(patch), patch, sagittal, sided, **settings)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_every_augmentation_gives_plain_finite_patches_of_known_labels(name, patch):
    data = case(tuple(n + 9 for n in patch), channels=2)
    augment = build(name, patch, **ALWAYS[name])
    for seed in range(5):
        result = augment(data, seed)

        assert type(result["image"]) is torch.Tensor
        assert result["image"].shape == (2, *patch)
        assert result["image"].dtype == torch.float32
        assert result["image"].is_contiguous()
        assert torch.isfinite(result["image"]).all()
        assert type(result["label"]) is torch.Tensor
        assert result["label"].shape == (1, *patch)
        assert result["label"].dtype == torch.int32
        assert set(result["label"].unique().tolist()) <= {IGNORED, 0, 1, 2, 3}


@pytest.mark.parametrize("patch", [(32, 32), (16, 16, 16), (5, 20, 20)])
@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_same_seed_gives_the_same_patch_and_another_seed_another(name, patch):
    source = PatchSource.of(**case(tuple(2 * n for n in patch)))
    sampler = PatchSampler(patch)
    augment, again = (build(name, patch, **ALWAYS[name]) for _ in range(2))

    first, second, other = (
        sampler.sample(source, np.random.default_rng(seed), by)
        for seed, by in ((5, augment), (5, again), (6, augment))
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_case_is_not_changed(name):
    data = case((40, 40))
    before = {key: value.clone() for key, value in data.items()}
    augment = build(name, (40, 40), **ALWAYS[name])
    for seed in range(5):
        augment(data, seed)["image"].zero_()

    torch.testing.assert_close(data, before, rtol=0, atol=0)


@pytest.mark.parametrize("patch", PATCHES)
def test_image_and_label_move_together(patch):
    """The image is the mask of one class: after any move, they still agree up to the border."""
    data = case(tuple(2 * n for n in patch))
    data["image"] = (data["label"] == 2).float()
    settings = dict.fromkeys(ALWAYS["recipe"], 0.0) | {
        "rotation": 1.0,
        "scaling": 1.0,
        "elastic": 1.0,
    }
    augment = build("recipe", patch, **settings)
    for seed in range(8):
        result = augment(data, seed)
        image, mask = result["image"], result["label"] == 2
        assert (image[mask] > 0.3).all()
        assert (image[~mask] < 0.6).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_many_instances_move_with_the_image_too(dims):
    """More labels than have masks: every row is one, and the image holds its number."""
    row = torch.arange(40, dtype=torch.int32).reshape(1, 40, *(1,) * (dims - 1))
    ids = row.expand(1, *(40,) * dims)
    warp = RandWarpd((24,) * dims, degrees=(25.0,) * (2 * dims - 3), rotation=1.0, elastic=1.0)
    warp.set_random_state(0)
    for _ in range(5):
        result = warp({"image": ids.float(), "label": ids})
        inside = result["label"] != IGNORED
        assert inside.float().mean() > 0.9
        off = (result["label"] - result["image"]).abs()[inside]
        assert (off < 0.51).float().mean() > 0.99  # the image fades within a voxel of its end


@pytest.mark.parametrize("shape", [(31, 30), (15, 16, 17)])
def test_a_quarter_turn_by_the_warp_is_a_quarter_turn(shape):
    """An exact rotation shows any shift of half a voxel in image and label."""
    side = min(shape)
    data = case(shape)
    warp = RandWarpd((side,) * len(shape), degrees=(90.0,) * (2 * len(shape) - 3), rotation=1.0)
    plain = RandWarpd((side,) * len(shape), degrees=(0.0,) * (2 * len(shape) - 3))(data)

    class Last:
        """Draws: transform; then the largest angle about the first axis, none about others."""

        def __init__(self):
            self.angles = iter([90.0, 0.0, 0.0])

        def random_sample(self, n):
            return np.zeros(n)

        def uniform(self, low, high):
            return next(self.angles)

    warp.R = Last()
    turned = warp({**data, "start": tuple((n - side) // 2 for n in shape)})
    plane = (-2, -1)
    expected = [torch.rot90(plain["image"], k, plane) for k in (1, 3)]
    errors = [(turned["image"] - e).abs().max().item() for e in expected]
    assert min(errors) < 1e-3
    which = (1, 3)[int(np.argmin(errors))]
    assert torch.equal(turned["label"], torch.rot90(plain["label"], which, plane))


def test_a_scaling_above_one_makes_objects_smaller_about_the_centre_of_the_patch():
    label = torch.zeros(1, 81, 81, dtype=torch.int32)
    label[:, 30:51, 30:51] = 1
    warp = RandWarpd((41, 41), degrees=(0.0,), scaling=1.0, scaling_range=(1.4, 1.4))
    warp.set_random_state(0)
    result = warp({"image": label.float(), "label": label, "start": (20, 20)})["label"][0]

    assert result.sum() == 15**2
    assert result[13:28, 13:28].all()


def test_a_rotated_patch_shows_the_surroundings_that_the_case_has():
    data = case((80, 80))
    warp = RandWarpd((32, 32), degrees=(180.0,), rotation=1.0)
    warp.set_random_state(0)
    for _ in range(10):
        assert (warp(data)["label"] != IGNORED).all()


def test_slices_of_a_thick_stack_are_never_mixed():
    label = torch.arange(6, dtype=torch.int32).reshape(1, 6, 1, 1).repeat(1, 1, 60, 60)
    augment = build("recipe", (4, 30, 30), mirror="none", rotation=1.0, scaling=1.0, elastic=1.0)
    for seed in range(5):
        result = augment({"image": label.float(), "label": label}, seed)["label"][0]
        assert [set(one.unique().tolist()) - {IGNORED} for one in result] == [{1}, {2}, {3}, {4}]


def test_an_elastic_deformation_moves_by_a_few_voxels_and_never_folds():
    place = torch.from_numpy(np.indices((96, 96)).astype(np.float32))
    warp = RandWarpd((64, 64), degrees=(0.0,), elastic=1.0)
    warp.set_random_state(0)
    data = {"image": place, "label": torch.zeros(1, 96, 96, dtype=torch.int32)}
    moves = []
    for _ in range(30):
        row, column = warp(data)["image"]
        moves.append((row - place[0, 16:80, 16:80]).flatten())
        area = row.diff(dim=0)[:, 1:] * column.diff(dim=1)[1:]
        area = area - row.diff(dim=1)[1:] * column.diff(dim=0)[:, 1:]
        assert (area > 0).float().mean() > 0.98
    assert 1.5 < torch.cat(moves).std() < 4.5


def test_mirrored_twice_is_the_same_with_sided_labels_too():
    data = case((12, 14, 16))
    mirror = RandMirrord((0, 1, 2), Sides(((1, 2),), axis=2), prob=1.0)
    once = mirror(data)

    assert torch.equal(once["image"], data["image"].flip((1, 2, 3)))
    torch.testing.assert_close(mirror(once), data, rtol=0, atol=0)


def test_left_and_right_trade_places_only_when_the_sides_are_crossed():
    label = torch.tensor([[[1, 0, 0, 2], [3, IGNORED, 0, 0]]], dtype=torch.int32)
    data = {"image": label.float(), "label": label}
    sides = Sides(((1, 2),), axis=1)

    across = RandMirrord((1,), sides, prob=1.0)(data)["label"]
    along = RandMirrord((0,), sides, prob=1.0)(data)["label"]

    assert across.tolist() == [[[1, 0, 0, 2], [0, 0, IGNORED, 3]]]
    assert along.tolist() == [[[3, IGNORED, 0, 0], [1, 0, 0, 2]]]


def test_a_pair_that_is_absent_from_the_patch_is_no_trouble():
    label = torch.zeros(1, 2, 2, dtype=torch.int32)

    assert not Sides(((4, 9),), axis=0).swapped(label).any()


@given(st.integers(0, 10_000))
def test_left_stays_on_the_left(seed):
    """The left half is class 1, the right half class 2: no augmentation may exchange them."""
    label = torch.ones(1, 48, 48, dtype=torch.int32)
    label[..., 24:] = 2
    for name in ("light", "recipe"):
        augment = build(name, (24, 24), 1, [(1, 2)], **ALWAYS[name])
        result = augment({"image": label.float(), "label": label}, seed)["label"][0].float()
        columns = torch.arange(24.0).expand(24, 24)
        assert columns[result == 1].mean() < columns[result == 2].mean()


@pytest.mark.parametrize("name", ["light", "recipe"])
def test_without_known_sides_nothing_is_mirrored_or_turned_far(name):
    """As above, but a swap would be wrong too: nobody knows which axis to swap for."""
    label = torch.ones(1, 48, 48, dtype=torch.int32)
    label[..., 24:] = 2
    augment = build(name, (24, 24), None, [(1, 2)], **ALWAYS[name])
    columns = torch.arange(24.0).expand(24, 24)
    for seed in range(40):
        result = augment({"image": label.float(), "label": label}, seed)["label"][0]
        assert columns[result == 1].mean() < columns[result == 2].mean()


def test_asking_for_a_mirror_without_known_sides_is_refused():
    with pytest.raises(ValueError, match="which axis crosses the sides"):
        build("recipe", (24, 24), None, [(1, 2)], mirror=[0])


def test_an_axis_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="axes are 0 to 1"):
        build("light", (24, 24), mirror=[2])


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match='did you mean "elastic"'):
        AUGMENTATIONS.check("recipe", {"elastik": 0.2})


def test_a_patch_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="needs 3 positive sizes"):
        AUGMENTATIONS.build("none", 3, (24, 24), None, ())


def test_an_augmentation_is_a_compose_of_monai():
    assert isinstance(build("recipe", (24, 24)), Compose)


@pytest.mark.parametrize(
    ("patch", "degrees"),
    [
        ((64, 64), (180,)),
        ((64, 128), (15,)),
        ((64, 64, 64), (30, 30, 30)),
        ((16, 64, 64), (180,)),
    ],
)
def test_rotations_are_as_large_as_the_recipe_says(patch, degrees):
    assert build("recipe", patch).transforms[0]._degrees() == degrees


def test_none_is_the_patch_itself():
    data = case((20, 20))
    result = build("none", (10, 10))({**data, "start": (3, 4)}, 0)

    assert torch.equal(result["image"], data["image"][:, 3:13, 4:14])
    assert torch.equal(result["label"], data["label"][:, 3:13, 4:14])
