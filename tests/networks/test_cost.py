"""What a network costs, against sums made by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.networks import Network, cost
from medseg.networks.cost import Kept, measure_cost


class Tiny(Network):
    """A 3x3 convolution to 4 maps, batch norm, ReLU, and a 1x1 convolution."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.first = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, out_channels, 1)
        self.minimum_size = (2, 2)

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.first(image)))
        return self.last(features)

    def receptive_field(self) -> tuple[int, ...]:
        return (3, 3)

    @classmethod
    def small_settings(cls, spatial_dims: int) -> dict[str, Any]:
        return {}


VOXELS = 2 * 8 * 8  # two images of 8 x 8
IMAGE = VOXELS * 4
MAPS = VOXELS * 4 * 4
WEIGHTS = (4 * 9 + 4 + 4 + 4 + 2 * 4 + 2) * 4
RUNNING = (4 + 4) * 4 + 8  # mean and variance of the norm, and its count of batches


def test_kept_are_the_image_the_maps_and_what_the_norm_remembers():
    found = measure_cost(Tiny(2, 1, 2), (8, 8), batch=2)

    # Of the first convolution its input, of the norm its input, mean and deviation of each map, of
    # ReLU its output; this is also the input of the last convolution, and counts once.
    assert found.kept_bytes == IMAGE + MAPS + (4 + 4) * 4 + MAPS


def test_the_weights_are_held_four_times():
    found = measure_cost(Tiny(2, 1, 2), (8, 8), batch=2)

    assert found.memory_bytes == found.kept_bytes + 4 * WEIGHTS + RUNNING


def test_max_pooling_keeps_where_the_largest_was_in_eight_bytes_each():
    pool = nn.MaxPool2d(2)
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    kept = Kept(pool, limit=10**6)
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        pool(image).sum().backward()

    assert kept.bytes == 3 * 8 * 8 * 4 + 3 * 4 * 4 * 8


def test_times_are_those_of_a_step_and_of_a_forward_pass():
    found = measure_cost(Tiny(2, 1, 2), (64, 64))

    assert 0 < found.inference_seconds < 10
    assert 0 < found.training_seconds < 10


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"1 voxels along an axis .* takes 2"):
        measure_cost(Tiny(2, 1, 2), (8, 1))


def test_a_step_that_does_not_fit_stops_before_the_memory_is_full(monkeypatch):
    monkeypatch.setattr(cost, "machine_memory", lambda: 4 * WEIGHTS + IMAGE + MAPS)

    with pytest.raises(ValueError, match=r"keeps more than .* GB"):
        measure_cost(Tiny(2, 1, 2), (8, 8), batch=2)
