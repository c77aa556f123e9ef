"""CZI and ND2: what their readers say is taken over, and nothing beyond.

The readers are a large extra, so most of this runs on a stand-in that is made here and has what is
used of bioio's ``Reader``. Where bioio-czi is installed, a real CZI is written (by Zeiss's own
pylibCZIrw) and read. No library writes ND2, so none is read here.
"""

import sys
from collections import namedtuple
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.images import is_image_file, read_image

Sizes = namedtuple("Sizes", "Z Y X")
UNKNOWN = Sizes(None, None, None)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Return a function that makes a file of a kind, and the reader that will read it."""

    def make(kind, array, order, channels=(), sizes=UNKNOWN, scenes=("one",)):
        plugin = ModuleType(f"bioio_{kind}")
        plugin.Reader = lambda path: SimpleNamespace(
            scenes=scenes,
            dims=SimpleNamespace(order=order),
            shape=array.shape,
            dtype=array.dtype,
            data=array,
            channel_names=list(channels),
            physical_pixel_sizes=sizes,
        )
        monkeypatch.setitem(sys.modules, f"bioio_{kind}", plugin)
        path = tmp_path / f"cells.{kind}"
        path.write_bytes(b"not read")
        return path

    return make


STACK = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(1, 2, 3, 4, 5)


@pytest.mark.parametrize("kind", ["czi", "nd2"])
def test_channels_names_and_pixel_size_are_taken_over(stand_in, kind):
    path = stand_in(kind, STACK, "TCZYX", ("DAPI", "GFP"), Sizes(1.0, 0.25, 0.25))

    image = read_image(path)

    np.testing.assert_array_equal(image.array, STACK[0])
    assert (image.axes, image.channels) == ("CZYX", ("DAPI", "GFP"))
    assert (image.grid.spacing, image.grid.unit) == ((1.0, 0.25, 0.25), Unit.UM)
    assert is_image_file(path)


def test_one_plane_is_no_stack_unless_it_is_said_to_be(stand_in):
    path = stand_in("czi", STACK[:, :1, :1], "TCZYX", ("DAPI",), Sizes(0.0, 0.25, 0.25))
    image = read_image(path)
    assert (image.axes, image.channels) == ("YX", ("DAPI",))
    assert image.grid.spacing == (0.25, 0.25)
    stack = read_image(path, axes="ZYX")
    assert stack.axes == "ZYX"
    assert stack.grid.unit is Unit.PX  # nobody says how thick the plane is


def test_colours_are_channels(stand_in):
    colours = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(1, 1, 1, 4, 5, 3)
    image = read_image(stand_in("czi", colours, "TCZYXS", ("Channel:0",)))
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.array, np.moveaxis(colours[0, 0, 0], -1, 0))


def test_several_scenes_and_time_points_are_refused(stand_in):
    with pytest.raises(MedsegError, match=r"holds 2 images \(A1, A2\)"):
        read_image(stand_in("czi", STACK, "TCZYX", scenes=("A1", "A2")))
    with pytest.raises(MedsegError, match="2 time points"):
        read_image(stand_in("nd2", STACK[0], "TZYX"))


@pytest.mark.parametrize("kind", ["czi", "nd2"])
def test_a_reader_that_is_not_there_is_named_with_its_extra(monkeypatch, tmp_path, kind):
    monkeypatch.setitem(sys.modules, f"bioio_{kind}", None)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"x")
    with pytest.raises(MedsegError, match=rf"pip install 'medseg\[{kind}\]'"):
        read_image(path)


def test_a_real_czi_is_read(tmp_path):
    pytest.importorskip("bioio_czi", reason="needs pip install 'medseg[czi]'")
    from pylibCZIrw import czi

    path = tmp_path / "cells.czi"
    with czi.create_czi(str(path)) as file:
        for c in range(2):
            for z in range(3):
                file.write(data=STACK[0, c, z][..., None], plane={"C": c, "Z": z})
        file.write_metadata(
            channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.25e-6, scale_y=0.25e-6, scale_z=1e-6
        )

    image = read_image(path)

    np.testing.assert_array_equal(image.array, STACK[0])
    assert (image.axes, image.channels) == ("CZYX", ("DAPI", "GFP"))
    assert image.grid.describe() == "5 x 4 x 3 voxels of 0.25 x 0.25 x 1 um"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MedsegError, match=r"cells\.czi: cannot be read as CZI"):
        read_image(path)
