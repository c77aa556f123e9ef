"""Channels are those that the card names, wherever they stand in the file."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from medseg.data import Case, Reading
from medseg.data.channels import pick_channels
from medseg.errors import MedsegError
from medseg.geometry import Grid
from medseg.images import Image, read_image

STAINS = ("DAPI", "GFP", "Cy5")


def image_of(names: tuple[str, ...], count: int | None = None) -> Image:
    """Return an image whose channel i holds only i."""
    count = len(names) if count is None else count
    array = np.arange(count, dtype=np.uint16)[:, None, None] * np.ones((1, 2, 3), np.uint16)
    return Image(array, Grid((2, 3), (1.0, 1.0)), "CYX", names)


@given(st.permutations(STAINS), st.integers(1, 3))
def test_channels_come_in_the_order_of_the_card_whatever_that_of_the_file(order, count):
    wanted = order[:count]
    picked = pick_channels("a", image_of(STAINS), wanted)

    assert [int(channel[0, 0]) for channel in picked] == [STAINS.index(name) for name in wanted]


def test_capitals_do_not_matter():
    assert pick_channels("a", image_of(STAINS), ["gfp"])[0, 0, 0] == 1


@pytest.mark.parametrize(
    "names", [(), ("Channel:0:0", "Channel:0:1"), ("C1", "C2"), ("channel 1", "channel 2")]
)
def test_without_names_that_say_something_the_order_of_the_file_counts(names):
    picked = pick_channels("a", image_of(names, 2), ["nuclei", "membrane"])
    assert picked[:, 0, 0].tolist() == [0, 1]


def test_the_colours_of_a_picture_may_be_called_otherwise():
    colours = image_of(("red", "green", "blue"))
    assert len(pick_channels("a", colours, ["R", "G", "B"])) == 3
    assert pick_channels("a", colours, ["green"])[0, 0, 0] == 1


def test_the_only_channel_needs_no_name():
    assert len(pick_channels("a", image_of(("DAPI",)), ["image"])) == 1


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (STAINS, ["DAPPI"], r'a: no channel of the name "DAPPI"; did you mean "DAPI"'),
        (STAINS, ["DAPI", "RFP", "Cy5"], r"the file has 3 channel\(s\): DAPI, GFP, Cy5"),
        (("DAPI", "DAPI"), ["DAPI"], r'2 channels of the name "DAPI"'),
        (("DAPI", "GFP"), ["nuclei", "membrane"], r"no channel of the name \"nuclei\""),
    ],
)
def test_a_name_that_the_file_has_not_or_twice_is_refused_with_those_found(names, wanted, message):
    with pytest.raises(MedsegError, match=message):
        pick_channels("a", image_of(names), wanted)


def test_another_number_of_channels_without_names_is_refused():
    with pytest.raises(MedsegError, match=r"3 channel\(s\), the card names 2"):
        pick_channels("a", image_of((), 3), ["x", "y"])


def test_an_ome_tiff_gives_its_channels_by_name_with_its_pixel_size(tmp_path):
    file = tmp_path / "cells.ome.tif"
    pixels = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
    sizes = {"PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"} | {
        "PhysicalSizeY": 0.325,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(
        file,
        pixels,
        metadata={"axes": "CYX", "Channel": {"Name": list(STAINS)}, **sizes},
        photometric="minisblack",
    )

    image = Reading(channels=("Cy5", "DAPI")).image(Case("cells", (file,), None, "cells"))

    assert read_image(file).channels == STAINS
    np.testing.assert_array_equal(image.array, pixels[[2, 0]])
    assert image.channels == ("Cy5", "DAPI")
    assert image.grid.describe() == "5 x 4 pixels of 0.325 x 0.325 um"
