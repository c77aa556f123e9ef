"""Strips of a streamed image are those of the whole."""

import pytest
import torch
from torch import Tensor, nn

from medseg.networks import MSDNet
from medseg.networks.msd_stream import halo, stream_logits


def lively(spatial_dims: int, **settings) -> MSDNet:
    torch.manual_seed(0)
    network = MSDNet(spatial_dims, 2, 3, **settings).double()
    for weights in network.parameters():
        nn.init.normal_(weights, std=0.15)
    return network


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("rows", [1, 7, 16, 1000])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((61, 23), {"depth": 6}),
        ((9, 23), {"depth": 12}),  # dilations are clamped to 8
        ((40, 11), {"depth": 4, "width": 3, "dilations": (1, 2, 5)}),
        ((30, 6, 7), {"depth": 5, "dilations": ((1, 2, 2), (3, 1, 1))}),
        ((12, 13), {"depth": 1, "dilations": (11, 11)}),
    ],
)
def test_strips_are_those_of_the_whole(size, settings, rows: int, padding_mode: str):
    network = lively(len(size), padding_mode=padding_mode, **settings)
    image = torch.randn(2, *size, dtype=torch.float64)
    strips = dict.fromkeys(range(size[0]))
    with torch.no_grad():
        whole = network(image[None])[0]
    for place, logits in stream_logits(network, image, rows=rows):
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-12, atol=1e-12)
        assert logits.grad_fn is None
        for row in range(place.start, place.stop):
            del strips[row]
    assert not strips


def test_no_more_than_strip_and_halo_is_read():
    network = lively(2, depth=3, dilations=(1, 2))
    assert halo(network) == 1 + 2 + 1
    read = []

    class File:
        shape = torch.Size((2, 50, 9))

        def __getitem__(self, place: tuple[slice, slice]) -> Tensor:
            read.append((place[1].start, place[1].stop))
            return torch.zeros(2, place[1].stop - place[1].start, 9, dtype=torch.float64)

    list(stream_logits(network, File(), rows=20))
    assert read == [(0, 24), (16, 44), (36, 50)]


def test_a_strip_without_rows_is_refused():
    with pytest.raises(ValueError, match="a row or more"):
        next(stream_logits(lively(2, depth=1), torch.zeros(2, 9, 9), rows=0))
