"""A job's settings follow from the fingerprint, and every network gets ones that it takes."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.geometry import Grid, Unit
from medseg.networks import NETWORKS
from medseg.planning import Fingerprint, Machine, choose, take_fingerprint
from medseg.planning.counting import count_work

CPU, GPU = Machine(0), Machine(8)
ORGAN = Fingerprint(
    kind="semantic",
    channels=("T1",),
    structures=("anterior", "posterior"),
    unit=Unit.MM,
    shapes=((36, 50, 35),) * 100,
    spacings=((1.0, 1.0, 1.0),) * 100,
    oriented=True,
    lowest=0.0,
    voxels={"background": 60_000, "anterior": 1500, "posterior": 1500},
    cases_with={"anterior": 100, "posterior": 100},
)
CELLS = Fingerprint(
    kind="instance",
    channels=("red", "green", "blue"),
    structures=("nucleus",),
    unit=Unit.PX,
    shapes=((256, 320),) * 50,
    spacings=((1.0, 1.0),) * 50,
    oriented=False,
    lowest=0.0,
    voxels={"background": 60_000, "nucleus": 1500},
    cases_with={"nucleus": 50},
    diameter=20.0,
)


def chosen(found, machine=CPU, network=None):
    return {c.path: c.value for c in choose(found, machine=machine, network=network)}


def test_every_choice_but_the_plain_ones_has_a_reason():
    plain = {"train.iterations_per_epoch", "train.seed", "train.learning_rate"}
    for found in (ORGAN, CELLS):
        for machine in (CPU, GPU):
            for choice in choose(found, machine=machine):
                assert choice.reason or choice.path in plain, choice.path


def test_sizes_are_written_in_the_order_x_y_z():
    flat = replace(ORGAN, shapes=((16, 128, 96),) * 100, spacings=((5.0, 1.0, 0.5),) * 100)

    assert chosen(flat)["data.spacing"] == ["0.5 mm", "1 mm", "5 mm"]
    patch = chosen(flat)["data.patch_voxels"]
    assert patch[2] == min(patch)


def test_a_patch_lies_inside_of_most_images():
    for found in (ORGAN, CELLS):
        for machine in (CPU, GPU):
            patch = chosen(found, machine)["data.patch_voxels"]
            assert all(p <= n for p, n in zip(patch[::-1], found.shapes[0], strict=True))


def test_more_memory_gives_patches_and_batches_no_smaller():
    voxels = [prod(chosen(ORGAN, Machine(gb))["data.patch_voxels"]) for gb in (4, 8, 24, 80)]
    assert voxels == sorted(voxels)


def test_without_pixel_sizes_each_image_keeps_its_grid():
    assert chosen(CELLS)["data.spacing"] == "native"
    assert "metrics" not in chosen(CELLS)  # of objects: the job's own defaults


def test_intensities_are_scaled_by_what_they_mean():
    assert chosen(ORGAN)["data.normalisation"] == "zscore"
    assert chosen(CELLS)["data.normalisation"] == "percentile"
    assert chosen(replace(ORGAN, channels=("CT",)))["data.normalisation"] == "ct"
    assert chosen(replace(ORGAN, lowest=-1024.0))["data.normalisation"] == "ct"


def test_a_body_is_mirrored_left_and_right_only_where_training_is_short():
    assert chosen(ORGAN)["augmentation"]["mirror"] == ["x"]
    assert "mirror" not in chosen(CELLS)["augmentation"]
    assert chosen(ORGAN, GPU)["augmentation"] == {"name": "recipe"}


def test_a_patch_of_cells_is_a_few_cells_wide():
    assert chosen(CELLS)["data.patch_voxels"] == [160, 160]
    assert max(chosen(replace(CELLS, diameter=5.0))["data.patch_voxels"]) == 96


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("found", [ORGAN, CELLS], ids=["3D", "2D"])
@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_every_network_gets_settings_that_it_takes(name, found, machine):
    values = chosen(found, machine, name)

    network = dict(values["network"])
    assert network.pop("name") == name
    network.pop("preset", None)
    NETWORKS.check(name, network)
    assert values["train.batch"] >= 2
    assert min(values["data.patch_voxels"]) >= 16


shapes = st.tuples(*[st.integers(16, 500)] * 3)
spacings = st.tuples(*[st.floats(0.2, 6.0)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(shapes, spacings), min_size=1, max_size=5), st.sampled_from([CPU, GPU]))
def test_any_volumes_give_a_job_of_positive_sizes(volumes, machine):
    found = replace(
        ORGAN, shapes=tuple(s for s, _ in volumes), spacings=tuple(s for _, s in volumes)
    )

    values = chosen(found, machine, "dynunet")
    assert min(values["data.patch_voxels"]) >= 1
    assert all(w >= 1 for w in values["predict.window_voxels"])
    assert values["train.batch"] >= 2


def test_the_work_of_one_convolution_is_counted_by_hand():
    # Two classes from one channel: a 3 x 3 kernel has 9 products a voxel, the head w x 2.
    work = count_work("plain_fcn", 2, 1, 2, {})
    double = count_work("plain_fcn", 2, 2, 2, {})

    first_kernels = double.multiply_adds - work.multiply_adds
    assert first_kernels > 0
    assert first_kernels % 9 == 0
    assert double.features == work.features


def test_a_fingerprint_is_what_was_drawn():
    labels = np.zeros((20, 30), int)
    labels[2:7, 2:7], labels[10:15, 10:15] = 1, 2
    image = np.full((1, 20, 30), 7.0)
    image[0, 0, 0] = -3
    grid = Grid((20, 30), (0.5, 0.5), Unit.UM)

    found = take_fingerprint(
        [(image, labels, grid, {"background": 550, "cell": 50})],
        kind="instance",
        channels=("image",),
        structures=("cell",),
    )
    assert found.spatial_dims == 2
    assert found.median_shape == (20, 30)
    assert found.lowest == -3
    assert found.diameter == pytest.approx(2 * np.sqrt(25 / np.pi))
    assert found.share("cell") == pytest.approx(50 / 600)
    assert not found.oriented


def test_a_turned_volume_is_measured_as_the_network_will_see_it():
    # Array axes point to the left, the front and the head; turned, they are head, front, right.
    direction = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    grid = Grid((4, 6, 8), (1.0, 2.0, 3.0), Unit.MM, (0.0, 0.0, 0.0), direction)
    volume = np.zeros((4, 6, 8))

    found = take_fingerprint(
        [(volume[None], volume.astype(int), grid, {})],
        kind="semantic",
        channels=("T1",),
        structures=("organ",),
    )
    assert found.shapes == ((8, 6, 4),)
    assert found.spacings == ((3.0, 2.0, 1.0),)
    assert found.oriented


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="no training case"):
        take_fingerprint([], kind="semantic", channels=("a",), structures=("b",))
