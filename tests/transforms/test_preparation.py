import json
from itertools import permutations, product

import numpy as np
import pytest
import torch

from medseg.geometry import Grid, Unit
from medseg.transforms import NORMALISATIONS, Preparation
from medseg.transforms.resampling import turn, turn_back, turn_to_canonical, turned_grid


def preparation(spacing, *, dims=3, unit=Unit.MM, **settings):
    settings.setdefault("normalisation", NORMALISATIONS.build("none"))
    return Preparation(spatial_dims=dims, spacing=spacing, unit=unit, **settings)


def rotation(degrees):
    a, b = np.deg2rad(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


def oriented(shape, spacing, order=(2, 1, 0), signs=(1, 1, 1), oblique=(0, 0)):
    """Return a grid whose array axis i runs along world axis order[i], then rotated."""
    axes = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        axes[world, axis] = sign
    direction = tuple(map(tuple, (rotation(oblique) @ axes).tolist()))
    return Grid(shape, spacing, Unit.MM, origin=(-40.0, 12.5, 7.0), direction=direction)


def world(grid):
    """Return the world position of every voxel, (spatial_dims, *shape)."""
    n = grid.spatial_dims
    index = np.indices(grid.shape).reshape(n, -1)
    return (grid.affine[:n, :n] @ index + grid.affine[:n, n:]).reshape(n, *grid.shape)


def ball(grid, radius):
    centre = world(grid).reshape(grid.spatial_dims, -1).mean(1)
    away = world(grid) - centre.reshape(-1, *(1,) * grid.spatial_dims)
    return ((away**2).sum(0) <= radius**2).astype(np.int16)


def dice(a, b):
    return 2 * np.sum((a > 0) & (b > 0)) / (np.sum(a > 0) + np.sum(b > 0))


def one_hot(labels):
    return torch.nn.functional.one_hot(labels[0].long()).movedim(-1, 0).float()


LPS = {"order": (2, 1, 0), "signs": (1, -1, -1)}
SAGITTAL_SLICES = {"order": (0, 2, 1), "signs": (-1, -1, 1)}
OBLIQUE = {"oblique": (25, -15)}
FLIPPED_OBLIQUE = {"order": (1, 0, 2), "signs": (-1, 1, -1), "oblique": (-20, 30)}
ORIENTATIONS = [LPS, SAGITTAL_SLICES, OBLIQUE, FLIPPED_OBLIQUE]


@pytest.mark.parametrize("how", ORIENTATIONS)
def test_equal_spacing_only_turns_and_gives_the_labels_back_bit_by_bit(how):
    grid = oriented((9, 12, 15), (2.0, 1.0, 1.0), **how)
    labels = np.random.default_rng(0).integers(0, 4, grid.shape)
    prepare = preparation(tuple(turned_grid(grid, turn_to_canonical(grid)).spacing))

    prepared = prepare.prepare(labels[None], grid)
    seen = prepare.prepare_labels(labels, grid)

    assert not prepared.resampled
    assert sorted(prepared.tensor.shape[1:]) == sorted(grid.shape)
    np.testing.assert_array_equal(prepared.tensor[0], seen[0])
    np.testing.assert_array_equal(prepare.restore(one_hot(seen), grid).argmax(0), labels)
    np.testing.assert_array_equal(prepare.restore_labels(seen, grid)[0], labels)


def test_every_turn_is_undone_and_ends_with_x_y_z_to_the_right_the_front_and_the_head():
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    for order, signs in product(permutations(range(3)), product((-1, 1), repeat=3)):
        grid = oriented((2, 3, 4), (3.0, 2.0, 1.0), order, signs)
        by = turn_to_canonical(grid)
        turned = turned_grid(grid, by)

        torch.testing.assert_close(turn_back(turn(image, by), by), image, rtol=0, atol=0)
        np.testing.assert_allclose(turned.direction, np.eye(3)[:, ::-1], atol=1e-12)
        assert tuple(turn(image, by).shape[1:]) == turned.shape
        # Every voxel keeps its place: positions turned as an image are positions of the grid.
        there = turn(torch.from_numpy(world(grid)), by)
        np.testing.assert_allclose(there, world(turned), atol=1e-9)


def test_an_axis_at_45_degrees_is_turned_and_turned_back_alike():
    grid = oriented((4, 5, 6), (1.0, 1.0, 1.0), oblique=(45, 45))
    labels = np.random.default_rng(0).integers(0, 3, grid.shape)
    prepare = preparation(None)

    np.testing.assert_array_equal(
        prepare.restore_labels(prepare.prepare_labels(labels, grid), grid)[0], labels
    )


@pytest.mark.parametrize("how", ORIENTATIONS)
@pytest.mark.parametrize("factor", [1.5, 1 / 1.5])
def test_a_smooth_object_survives_resampling_in_any_orientation(how, factor):
    grid = oriented((34, 49, 52), (1.5, 1.0, 1.0), **how)
    labels = ball(grid, radius=20)
    prepare = preparation((factor, factor, factor))

    prepared = prepare.prepare(labels[None], grid)
    seen = prepare.prepare_labels(labels, grid)
    back = prepare.restore(one_hot(seen), grid).argmax(0).numpy()

    assert prepared.grid.spacing == (factor,) * 3
    assert prepared.resampled
    assert dice(seen[0].numpy(), ball(prepared.grid, radius=20)) > 0.97
    assert dice(back, labels) > 0.97
    volume = int(seen.sum()) * factor**3 / (labels.sum() * 1.5)
    assert volume == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("spacing", [0.5, 0.7, 1.3, 2.0, 3.1])
@pytest.mark.parametrize("shape", [(30, 41), (41, 30), (20, 21, 24), (25, 20, 31)])
def test_every_point_stays_where_it_is_in_the_world(shape, spacing):
    """An image whose channels are the world coordinates shows any shift, at every voxel."""
    n = len(shape)
    grid = oriented(shape, (1.0, 1.2, 0.9), **FLIPPED_OBLIQUE) if n == 3 else None
    grid = grid or Grid(shape, (1.0, 1.2), Unit.UM, origin=(5.0, -3.0))
    prepare = preparation((spacing,) * n, dims=n, unit=grid.unit)
    coordinates = world(grid)

    prepared = prepare.prepare(coordinates, grid)
    restored = prepare.restore(torch.from_numpy(world(prepared.grid)), grid)

    # Beyond the outermost voxels the border repeats; look at what lies inside.
    for seen, true, step in (
        (prepared.tensor.numpy(), world(prepared.grid), 1.0),
        (restored.numpy(), coordinates, spacing),
    ):
        margin = int(np.ceil(max(2.0, 2 * step)))
        inside = (slice(None), *[slice(margin, -margin)] * n)
        assert seen[inside].size
        assert np.abs(seen - true)[inside].max() < 0.1 * min(grid.spacing)


def test_cubic_interpolation_puts_every_point_where_linear_does():
    grid = Grid((30, 41), (1.0, 1.0), Unit.UM)
    prepare = preparation((1.7, 0.6), dims=2, unit=Unit.UM, interpolation="cubic")
    prepared = prepare.prepare(world(grid), grid)

    inside = (slice(None), slice(4, -4), slice(4, -4))
    error = np.abs(prepared.tensor.numpy() - world(prepared.grid))[inside]
    assert error.max() < 0.01


def test_a_spacing_within_one_percent_leaves_the_voxels_alone():
    grid = Grid((8, 9), (1.0, 1.0), Unit.UM)
    image = np.random.default_rng(0).normal(size=(1, 8, 9)).astype(np.float32)
    prepared = preparation((1.009, 0.991), dims=2, unit=Unit.UM).prepare(image, grid)

    assert prepared.grid == grid
    np.testing.assert_array_equal(prepared.tensor, image)


def test_far_slices_are_picked_not_mixed():
    grid = Grid((6, 16, 16), (4.0, 1.0, 1.0), Unit.MM)
    image = np.broadcast_to(np.arange(6.0)[:, None, None], grid.shape)
    prepared = preparation((3.0, 2.0, 2.0)).prepare(image[None], grid)

    assert prepared.tensor.shape == (1, 8, 8, 8)
    torch.testing.assert_close(prepared.tensor, prepared.tensor.round())
    assert prepared.tensor.round().unique().tolist() == list(range(6))


def test_labels_keep_their_names_and_their_unjudged_voxels():
    grid = Grid((20, 20), (1.0, 1.0), Unit.UM)
    labels = np.zeros(grid.shape, int)
    labels[:, 10:], labels[15:] = 7, -1
    seen = preparation((1.4, 1.4), dims=2, unit=Unit.UM).prepare_labels(labels, grid)

    assert seen.dtype == torch.int32
    assert set(seen.unique().tolist()) == {-1, 0, 7}


def test_hundreds_of_instances_keep_their_ids_in_the_nearest_voxel():
    grid = Grid((40, 40), (1.0, 1.0), Unit.UM)
    ids = np.arange(1600).reshape(40, 40) + 2**30
    seen = preparation((2.0, 2.0), dims=2, unit=Unit.UM).prepare_labels(ids, grid)

    assert set(seen.unique().tolist()) <= set(ids.ravel().tolist())
    assert len(seen.unique()) == 400


def test_large_images_are_resampled_in_slabs_without_a_seam(monkeypatch):
    grid = Grid((40, 17, 19), (1.0, 1.0, 1.0), Unit.MM)
    image = np.random.default_rng(0).normal(size=(2, *grid.shape))
    prepare = preparation((0.8, 1.1, 1.0))
    whole = prepare.prepare(image, grid).tensor
    monkeypatch.setattr("medseg.transforms.resampling._SLAB_VOXELS", 2000)

    torch.testing.assert_close(prepare.prepare(image, grid).tensor, whole, rtol=0, atol=1e-4)


def test_the_same_length_in_another_unit_is_the_same_spacing():
    grid = Grid((20, 30), (500.0, 500.0), Unit.NM)
    prepare = preparation((1.0, 1.0), dims=2, unit=Unit.UM)

    assert prepare.prepared_grid(grid).shape == (10, 15)
    assert prepare.prepared_grid(grid).spacing == (1000.0, 1000.0)


def test_pixels_are_multiples_of_each_images_own():
    prepare = preparation((2.0, 2.0), dims=2, unit=Unit.PX)

    assert prepare.prepared_grid(Grid((20, 30), (0.3, 0.3), Unit.UM)).spacing == (0.6, 0.6)
    assert prepare.prepared_grid(Grid((20, 30), (1.0, 1.0))).shape == (10, 15)


def test_a_physical_spacing_on_an_image_without_pixel_size_is_refused():
    grid = Grid((20, 30), (1.0, 1.0))
    with pytest.raises(ValueError, match="pixel size is not known"):
        preparation((1.0, 1.0), dims=2, unit=Unit.UM).prepare(np.zeros((1, 20, 30)), grid)


def test_broken_values_are_refused_with_their_number():
    image = np.zeros((1, 4, 4))
    image[0, 1, :2] = np.nan
    with pytest.raises(ValueError, match="2 voxels are not finite"):
        preparation(None, dims=2).prepare(image, Grid((4, 4), (1.0, 1.0)))


def test_scores_of_another_image_are_refused():
    with pytest.raises(ValueError, match="prepared to \\(4, 4\\)"):
        preparation(None, dims=2).restore(torch.zeros(2, 5, 4), Grid((4, 4), (1.0, 1.0)))


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match="must be integers"):
        preparation(None, dims=2).prepare_labels(np.zeros((4, 4)), Grid((4, 4), (1.0, 1.0)))


def test_the_sides_are_crossed_by_the_last_axis_after_turning_only_if_the_file_says_so():
    prepare = preparation(None)

    assert prepare.sagittal_axis(oriented((4, 5, 6), (1.0,) * 3, **SAGITTAL_SLICES)) == 2
    assert prepare.sagittal_axis(Grid((4, 5, 6), (1.0,) * 3, Unit.MM)) is None


@pytest.mark.parametrize("name", sorted(NORMALISATIONS))
def test_a_preparation_survives_json(name):
    saved = preparation((2.5, 1.0, 1.0), normalisation=NORMALISATIONS.build(name)).to_dict()
    loaded = Preparation.from_dict(json.loads(json.dumps(saved)))

    assert loaded == preparation((2.5, 1.0, 1.0), normalisation=NORMALISATIONS.build(name))
    assert loaded.to_dict() == saved
