"""What only Xception promises."""

import pytest
import torch
from torch import nn

from medseg.networks.encoders import ENCODERS, make_encoder


@pytest.mark.parametrize(
    ("name", "expected"), [("xception65", 37_867_312), ("xception71", 40_289_736)]
)
def test_weights_are_the_published_ones_without_the_classifier(name: str, expected: int):
    with torch.device("meta"):
        encoder = ENCODERS[name](2, 3, norm="batch")
    assert sum(weights.numel() for weights in encoder.parameters()) == expected
    assert encoder.channels == (128, 256, 728, 1024, 2048)


def test_every_convolution_after_the_stem_is_separable():
    with torch.device("meta"):
        encoder = ENCODERS["xception65"](2, 3)
    for part in (*encoder.blocks.modules(), *encoder.exit.modules()):
        if isinstance(part, nn.Conv2d):
            across = part.kernel_size == (1, 1)
            assert across or part.groups == part.in_channels == part.out_channels


def test_the_receptive_field_is_that_of_the_layers_counted_by_hand():
    """Grids 2, 2 in the stem, then blocks of three at 2, 4, 8, middle at 16, exit at 16 and 32.

    A convolution adds 2 cells of the grid it reads. X-65: stem 2 * 1 + 2 * 2; blocks 6 * (2 + 4 +
    8); 16 middle blocks and one halving of the exit 17 * 6 * 16; the last block 6 * 32.
    """
    from medseg.networks.layers import receptive_field

    with torch.device("meta"):
        encoder = ENCODERS["xception65"](2, 3)
    assert receptive_field(encoder.steps(0)) == 1 + 6 + 84 + 1632 + 192
    encoder.set_output_stride(8)
    assert receptive_field(encoder.steps(0)) == 1 + 6 + 84 + 1632 + 192, "dilated, not narrowed"


def test_the_width_is_that_of_the_stem_and_all_else_in_proportion():
    with torch.device("meta"):
        encoder = make_encoder("xception65", 2, 1, width=32)
    assert encoder.stem[3].weight.shape[0] == 32
    assert encoder.channels == (64, 128, 368, 512, 1024)  # 364 is no multiple of 8
