"""The made-up data sets are what their descriptions say."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.data.demo import BORDER, CELL, make_cells, make_organs
from medseg.geometry import Unit
from medseg.images import read_image, read_labels


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    make_cells(folder, images=6, size=96)
    return folder


@pytest.fixture(scope="module")
def organs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("organs")
    make_organs(folder, images=8)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_cell_image_has_its_labels_and_instances_by_name(cells):
    expected = [f"dish{d}_cell_0{i}.ome.tif" for d, n in (("A", 4), ("B", 2)) for i in range(n)]
    for kind in ("images", "labels", "instances"):
        assert names(cells / kind) == expected


def test_cell_images_carry_their_pixel_size(cells):
    for name in names(cells / "images"):
        image = read_image(cells / "images" / name)
        assert (image.array.dtype, image.grid.unit) == (np.uint16, Unit.UM)
        assert image.grid.spacing == (0.25, 0.25)
        assert image.grid == read_labels(cells / "labels" / name).grid
        assert np.mean(image.array == image.array.max()) < 0.01, "overexposed"


def test_the_border_lies_where_two_cells_touch_and_only_there(cells):
    for name in names(cells / "labels"):
        labels = read_labels(cells / "labels" / name).array
        instances = read_labels(cells / "instances" / name).array
        assert np.unique(labels).tolist() == [0, CELL, BORDER]
        np.testing.assert_array_equal(labels > 0, instances > 0)
        for y, x in np.argwhere(labels == BORDER)[::7]:
            near = instances[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            assert len(set(near.ravel().tolist()) - {0}) >= 2
        pairs = (instances[:, 1:] != instances[:, :-1]) & (instances[:, 1:] * instances[:, :-1] > 0)
        assert (labels[:, 1:][pairs] == BORDER).all()
        assert (labels[:, :-1][pairs] == BORDER).all()


def test_taking_out_the_border_takes_most_touching_cells_apart(cells):
    labels = read_labels(cells / "labels" / "dishA_cell_00.ome.tif").array
    instances = read_labels(cells / "instances" / "dishA_cell_00.ome.tif").array
    _, merged = ndimage.label(labels > 0)
    _, apart = ndimage.label(labels == CELL)
    assert merged < instances.max() / 2
    assert apart >= 0.9 * instances.max()


def test_each_cell_is_one_piece(cells):
    instances = read_labels(cells / "instances" / "dishB_cell_00.ome.tif").array
    for number in range(1, int(instances.max()) + 1):
        assert ndimage.label(instances == number)[1] == 1


def test_organs_have_known_sides_and_two_touching_structures(organs):
    assert names(organs / "images") == [
        f"person0{p}_scan{s}.nii.gz" for p in range(1, 5) for s in (1, 2)
    ]
    for name in names(organs / "images"):
        image = read_image(organs / "images" / name)
        labels = read_labels(organs / "labels" / name)
        assert image.grid.shape == (36, 48, 40)
        assert image.grid.spacing == pytest.approx((1.5, 1.0, 1.0))
        assert labels.grid == image.grid
        assert np.unique(labels.array).tolist() == [0, 1, 2]
        assert (ndimage.binary_dilation(labels.array == 1) & (labels.array == 2)).sum() > 200
        assert min((labels.array == s).sum() for s in (1, 2)) > 500
        edge = np.ones((36, 48, 40), bool)
        edge[1:-1, 1:-1, 1:-1] = False
        assert not labels.array[edge].any(), "an organ is cut by the edge"


def test_some_scans_are_stored_mirrored_but_lie_at_the_same_place(organs):
    grids = [read_image(organs / "images" / name).grid for name in names(organs / "images")]
    corners = []
    for grid in grids:
        ends = grid.affine @ np.array([[0, 0, 0, 1], [35, 47, 39, 1]]).T
        corners.append((ends[:3].min(axis=1).tolist(), ends[:3].max(axis=1).tolist()))
    assert len({grid.direction for grid in grids}) == 3
    assert all(corner == ([0, 0, 0], [39, 47, 52.5]) for corner in corners)


def test_the_cap_lies_above_and_before_the_core_in_every_scan(organs):
    for name in names(organs / "labels"):
        labels = read_labels(organs / "labels" / name)
        place = [
            (labels.grid.affine @ np.append(np.argwhere(labels.array == s).mean(axis=0), 1))[:3]
            for s in (1, 2)
        ]
        assert place[1][1] > place[0][1] + 2
        assert place[1][2] > place[0][2] + 2


def test_intensities_of_scans_differ_many_times(organs):
    medians = [np.median(read_image(p).array) for p in sorted((organs / "images").iterdir())]
    assert max(medians) / min(medians) > 10


def test_the_same_seed_gives_the_same_files_and_another_does_not(tmp_path):
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        make_cells(tmp_path / folder, images=2, size=64, seed=seed)
        make_organs(tmp_path / folder / "organs", images=2, seed=seed)
    first, second, other = (
        [p.read_bytes() for p in sorted((tmp_path / f).rglob("*.*")) if p.is_file()] for f in "abc"
    )
    assert first == second
    assert all(x != y for x, y in zip(first, other, strict=True))
