"""Stacks seen plane by plane, alone or with their neighbours as channels."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg.geometry import Grid, Unit
from medseg.transforms import NORMALISATIONS, PatchSource, PlaneSampler, Preparation, plane_of


def stack(channels: int, planes: int) -> torch.Tensor:
    """Return a stack whose voxels hold 100 * channel + plane."""
    values = 100 * torch.arange(channels)[:, None] + torch.arange(planes)
    return values[..., None, None].expand(-1, -1, 4, 5).float()


def test_neighbours_are_channels_in_order_and_repeat_at_both_ends():
    image = stack(2, 3)
    assert plane_of(image, 0, 1)[:, 0, 0].tolist() == [0, 0, 1, 100, 100, 101]
    assert plane_of(image, 1, 1)[:, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert plane_of(image, 2, 2)[:, 0, 0].tolist() == [0, 1, 2, 2, 2, 100, 101, 102, 102, 102]
    assert plane_of(image, 2)[:, 0, 0].tolist() == [2, 102]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 3), st.data())
def test_the_plane_itself_is_in_the_middle_of_its_neighbours(channels, planes, neighbours, data):
    image = stack(channels, planes)
    number = data.draw(st.integers(0, planes - 1))
    middle = plane_of(image, number, neighbours)[neighbours :: 2 * neighbours + 1]
    torch.testing.assert_close(middle, image[:, number])


def test_a_structure_in_one_plane_of_many_is_seen_as_often_as_asked_for():
    image, label = stack(1, 50), torch.zeros((1, 50, 4, 5), dtype=torch.int32)
    label[0, 17, 2, 3] = 1
    source = PatchSource.of(image, label)
    sampler, rng = PlaneSampler((2, 2), foreground=0.5, neighbours=1), np.random.default_rng(0)

    samples = [sampler.sample(source, rng) for _ in range(400)]

    assert all(sample["image"].shape == (3, 2, 2) for sample in samples)
    assert all(sample["label"].shape == (1, 2, 2) for sample in samples)
    seen = sum(bool(sample["label"].any()) for sample in samples)
    assert 160 < seen < 240  # 0.5 of 400, six standard deviations of either side
    for sample in samples:
        if sample["label"].any():
            assert sample["image"][:, 0, 0].tolist() == [16, 17, 18]


def test_a_stack_without_structures_is_sampled_all_the_same():
    source = PatchSource.of(stack(1, 3), torch.zeros((1, 3, 4, 5), dtype=torch.int32))
    assert PlaneSampler((2, 2)).sample(source, np.random.default_rng(0))["image"].shape == (1, 2, 2)


def test_an_axis_without_a_spacing_keeps_its_own():
    preparation = Preparation(
        spatial_dims=3,
        spacing=(None, 1.0, 1.0),
        unit=Unit.UM,
        normalisation=NORMALISATIONS.build("zscore"),
    )
    grid = Grid((7, 10, 10), (3.0, 0.5, 0.5), Unit.UM)

    prepared = preparation.prepare(np.random.default_rng(0).normal(size=(1, 7, 10, 10)), grid)

    assert prepared.grid.shape == (7, 5, 5)
    assert prepared.grid.spacing == (3.0, 1.0, 1.0)
    assert Preparation.from_dict(preparation.to_dict()).spacing == (None, 1.0, 1.0)
    assert preparation.restore(prepared.tensor, grid).shape == (1, 7, 10, 10)
