"""Each fault, put into a sound data set, is named with its case; the sound one raises no alarm.

The same faults are put into made images and, where there are, into real ones.
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture
from rich.console import Console
from scipy import ndimage

from medseg.data.demo import make_cells, make_organs
from medseg.doctor import Finding
from medseg.geometry import Grid
from medseg.images import Image, read_image, read_labels, write_image, write_labels
from medseg.jobs.check import check

SOURCES = ["made", pytest.param("real", marks=[pytest.mark.slow, pytest.mark.realdata])]
CARDS = Path(__file__).parents[2] / "configs" / "data"


@dataclass
class Data:
    """A copy of a small data set that a test may break.

    Args:
        folder: Holds ``images`` and ``labels`` of the same names.
        card: Text of its card.
    """

    folder: Path
    card: str

    @property
    def names(self) -> list[str]:
        return sorted(file.name for file in (self.folder / "images").iterdir())

    def case(self, number: int) -> str:
        return self.names[number].split(".")[0]

    def image(self, number: int) -> Path:
        return self.folder / "images" / self.names[number]

    def labels(self, number: int) -> Path:
        return self.folder / "labels" / self.names[number]

    def pixels(self, number: int) -> np.ndarray:
        return np.asarray(Picture.open(self.image(number)))

    def drawn(self, number: int) -> np.ndarray:
        return np.asarray(Picture.open(self.labels(number)))

    def findings(self) -> list[Finding]:
        (self.folder / "card.yaml").write_text(self.card)
        console = Console(quiet=True)
        return list(check(self.folder / "card.yaml", console=console).findings)

    def alarms(self) -> set[tuple[str, str]]:
        """Check and case of all that is no mere note."""
        return {(f.check, f.case) for f in self.findings() if f.severity != "note"}


def save(file: Path, pixels: np.ndarray) -> None:
    """Write a PNG, or a TIFF in place of one where PNG cannot hold the type."""
    if pixels.dtype == np.uint8:
        Picture.fromarray(pixels).save(file)
    else:
        file.unlink(missing_ok=True)
        tifffile.imwrite(file.with_suffix(".tif"), pixels)


def as_png(folder: Path, source: Path, labels: str) -> None:
    """Copy OME-TIFF as 8-bit PNG."""
    for part, origin in (("images", "images"), ("labels", labels)):
        (folder / part).mkdir(parents=True)
        for file in sorted((source / origin).iterdir()):
            values = read_image(file).array
            if part == "images":
                values = np.clip(values / 100, 0, 255)
            name = file.name.removesuffix(".ome.tif") + ".png"
            Picture.fromarray(values.astype(np.uint8)).save(folder / part / name)


@pytest.fixture(scope="session")
def cells_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    make_cells(folder, images=12, size=128)
    return folder


@pytest.fixture(params=SOURCES)
def membranes(request, tmp_path, cells_source) -> Data:
    """Classes in 2D: rims between cells, or membranes in electron microscopy."""
    folder = tmp_path / "membranes"
    if request.param == "made":
        as_png(folder, cells_source, "labels")
        card = (
            "name: cells\nlayout: paired_folders\nspatial_dims: 2\nchannels: [light]\n"
            "labels: {background: 0, cell: 1, border: 2}\ngroups: {pattern: '(dish[A-Z])'}\n"
            "split: {name: group, test: 0.34, validation: 0.34}\n"
        )
        return Data(folder, card)
    root = request.getfixturevalue("data_root") / "isbi2012_em"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for number in range(0, 24, 2):
            shutil.copyfile(root / part / f"{number:02d}.png", folder / part / f"{number:02d}.png")
    card = (
        "name: em\nlayout: paired_folders\nspatial_dims: 2\nchannels: [em]\n"
        "pixel_size: [4 nm, 4 nm]\nlabels: {background: 255, membrane: 0}\n"
        "split: {name: stated, train: ['00-15'], validation: ['16-17'], test: ['18-23']}\n"
    )
    return Data(folder, card)


@pytest.fixture(params=SOURCES)
def nuclei(request, tmp_path, cells_source) -> Data:
    """Objects in 2D."""
    folder = tmp_path / "nuclei"
    card = "name: nuclei\nlayout: paired_folders\nspatial_dims: 2\nkind: instance\n"
    if request.param == "made":
        as_png(folder, cells_source, "instances")
        card += "labels: {background: 0, cell: 1}\ngroups: {pattern: '(dish[A-Z])'}\n"
        return Data(folder, card + "split: {name: group, test: 0.34, validation: 0.34}\n")
    root = request.getfixturevalue("data_root") / "dsb2018_nuclei"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for file in sorted((root / "images").iterdir())[:20]:
        drawn = read_labels(root / "labels" / f"{file.stem}.tif").array
        if drawn.max() > 200:
            continue
        shutil.copyfile(file, folder / "images" / file.name)
        Picture.fromarray(drawn.astype(np.uint8)).save(folder / "labels" / file.name)
    card += "channels: [red, green, blue]\nlabels: {background: 0, nucleus: 1}\n"
    return Data(folder, card)


@pytest.fixture(params=SOURCES)
def organs(request, tmp_path) -> Data:
    """Classes in 3D."""
    folder = tmp_path / "organs"
    if request.param == "made":
        make_organs(folder, images=8)
        return Data(
            folder,
            "name: organs\nlayout: paired_folders\nspatial_dims: 3\nchannels: [T1]\n"
            "labels: {background: 0, core: 1, cap: 2}\ngroups: {pattern: '(person\\d+)'}\n",
        )
    root = request.getfixturevalue("data_root") / "msd_task04_hippocampus"
    names = sorted(file.name for file in (root / "imagesTr").iterdir())[:12]
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name in names:
        shutil.copyfile(root / "imagesTr" / name, folder / "images" / name)
        shutil.copyfile(root / "labelsTr" / name, folder / "labels" / name)
    return Data(
        folder,
        "name: hippocampus\nlayout: paired_folders\nspatial_dims: 3\nchannels: [T1]\n"
        "labels: {background: 0, anterior: 1, posterior: 2}\n"
        "groups: {pattern: 'hippocampus_(\\d+)', consecutive: 2}\n",
    )


def test_sound_classes_raise_no_alarm(membranes):
    assert membranes.alarms() == set()


def test_sound_objects_raise_no_alarm(nuclei):
    assert nuclei.alarms() == set()


def test_sound_volumes_raise_no_alarm(organs):
    assert organs.alarms() == set()


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    "card", ["isbi2012_em", "dsb2018_nuclei", "msd_task04_hippocampus", "chase_db1"]
)
def test_the_real_data_sets_raise_no_alarm(card, data_root):
    result = check(CARDS / f"{card}.yaml", data_root=data_root, console=Console(quiet=True))

    assert [finding for finding in result.findings if finding.severity != "note"] == []


# Faults of images and classes in 2D. Each changes case 1 (or says otherwise) and returns what must
# be found: check and number of the case.
Found = set[tuple[str, int]]


def cut_off(data: Data) -> Found:
    content = data.image(1).read_bytes()
    data.image(1).write_bytes(content[: len(content) * 6 // 10])
    return {("unreadable", 1)}


def no_image_at_all(data: Data) -> Found:
    data.image(1).write_text("not an image")
    return {("unreadable", 1)}


def cropped_labels(data: Data) -> Found:
    save(data.labels(1), data.drawn(1)[:-8])
    return {("geometry", 1)}


def one_strange_value(data: Data) -> Found:
    drawn = data.drawn(1).copy()
    drawn[10:16, 20:30] = 77
    save(data.labels(1), drawn)
    return {("undeclared values", 1)}


def soft_edges(data: Data) -> Found:
    drawn = data.drawn(1)
    mask = np.where(drawn == drawn.min(), 0, 255).astype(np.uint8)
    small = Picture.fromarray(mask).resize((mask.shape[1] * 3 // 4,) * 2, Picture.BILINEAR)
    save(data.labels(1), np.asarray(small.resize(mask.shape[::-1], Picture.BILINEAR)))
    return {("anti-aliased edges", 1)}


def probabilities(data: Data) -> Found:
    drawn = data.drawn(1)
    save(data.labels(1), ndimage.gaussian_filter(drawn / max(1, drawn.max()), 2).astype("f4"))
    return {("label values", 1)}


def colours(data: Data) -> Found:
    drawn = data.drawn(1)
    save(data.labels(1), np.stack([drawn, drawn // 2, 0 * drawn], -1))
    return {("colour mask", 1)}


def nothing_drawn(data: Data) -> Found:
    background = int(data.card.split("background: ")[1].split(",")[0])
    save(data.labels(1), np.full_like(data.drawn(1), background))
    return {("empty case", 1)}


def image_on_both_sides(data: Data) -> Found:
    """The same image again, saved by another program in another format."""
    train, test = 0, len(data.names) - 1
    data.card = data.card.split("split:")[0] + (
        f"split: {{name: stated, train: [{data.case(0)!r}, {data.case(1)!r}], "
        f"validation: [{data.case(5)!r}], test: [{data.case(test)!r}]}}\n"
    )
    pixels = data.pixels(train)
    save(data.image(test).with_suffix(".tif"), pixels.astype(np.uint16))
    data.image(test).unlink()
    return {("duplicate images", test)}


def labels_of_another(data: Data) -> Found:
    shutil.copyfile(data.labels(0), data.labels(7))
    return {("duplicate labels", 7)}


def inverted(data: Data) -> Found:
    save(data.image(1), 255 - data.pixels(1))
    return {("inverted", 1)}


def black(data: Data) -> Found:
    save(data.image(1), 0 * data.pixels(1))
    return {("constant image", 1)}


def sixteen_bits(data: Data) -> Found:
    Picture.fromarray(data.pixels(1).astype(np.uint16) * 257).save(data.image(1))
    return {("bit depth", 1), ("intensity outlier", 1)}


def overexposed(data: Data) -> Found:
    save(data.image(1), np.clip(data.pixels(1) * 3.0, 0, 255).astype(np.uint8))
    return {("saturated", 1)}


def no_numbers(data: Data) -> Found:
    pixels = data.pixels(1).astype(np.float32)
    pixels[5:8, 5:8] = np.nan
    save(data.image(1), pixels)
    return {("no numbers", 1)}


def colour_image(data: Data) -> Found:
    save(data.image(1), np.stack([data.pixels(1)] * 3, -1))
    return {("channels", 1)}


def specks(data: Data) -> Found:
    drawn = data.drawn(1).copy()
    rng = np.random.default_rng(0)
    for y, x in rng.integers(3, min(drawn.shape) - 3, (400, 2)):
        around = drawn[y - 2 : y + 3, x - 2 : x + 3]
        if (around == around[0, 0]).all():
            drawn[y, x] = next(v for v in np.unique(data.drawn(1)) if v != around[0, 0])
    save(data.labels(1), drawn)
    return {("islands", 1)}


CLASS_FAULTS = [
    cut_off, no_image_at_all, cropped_labels, one_strange_value, soft_edges, probabilities, colours,
    nothing_drawn, image_on_both_sides, labels_of_another, inverted, black, sixteen_bits,
    overexposed, no_numbers, colour_image, specks,
]  # fmt: skip


@pytest.mark.parametrize("fault", CLASS_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_among_classes_is_named(fault: Callable[[Data], Found], membranes):
    expected = fault(membranes)

    alarms = membranes.alarms()

    assert {(name, membranes.case(number)) for name, number in expected} <= alarms
    assert {case for _, case in alarms} == {membranes.case(number) for _, number in expected}


def test_a_missing_label_file_is_named(membranes):
    case = membranes.case(1)
    membranes.labels(1).unlink()

    (finding,) = [f for f in membranes.findings() if f.severity != "note"]

    assert (finding.severity, finding.check) == ("error", "files")
    assert case in finding.found


def test_a_missing_label_file_hides_no_other_fault(membranes):
    membranes.labels(1).unlink()
    shutil.copyfile(membranes.image(2), membranes.image(3))

    assert {check for check, _ in membranes.alarms()} >= {"files", "duplicate images"}


def test_a_structure_that_nobody_drew_is_named(membranes):
    membranes.card = membranes.card.replace("labels: {", "labels: {vesicle: 9, ")

    (finding,) = [f for f in membranes.findings() if f.severity == "error"]

    assert finding.check == "absent structure"
    assert finding.found.startswith("vesicle")


def test_a_group_on_both_sides_is_named(membranes):
    names = [membranes.case(n) for n in (0, 1, 2)]
    membranes.card = (
        membranes.card.split("groups:")[0].split("split:")[0]
        + "groups: {pattern: '^(.)'}\n"
        + f"split: {{name: stated, train: [{names[0]!r}], validation: [{names[1]!r}]}}\n"
    )

    assert ("split", "") in membranes.alarms()


# Faults of objects.


def binary(data: Data) -> Found:
    save(data.labels(1), np.where(data.drawn(1) > 0, 255, 0).astype(np.uint8))
    return {("classes in a card of objects", 1)}


def one_number_for_two(data: Data) -> Found:
    drawn = data.drawn(1).copy()
    centres = ndimage.center_of_mass(drawn > 0, drawn, range(1, drawn.max() + 1))
    sizes = np.bincount(drawn.ravel())
    first = int(sizes[1:].argmax()) + 1
    second = max(
        (n for n in range(1, len(sizes)) if sizes[n] > 0.4 * sizes[first] and n != first),
        key=lambda n: np.linalg.norm(np.subtract(centres[n - 1], centres[first - 1])),
    )
    drawn[drawn == second] = first
    save(data.labels(1), drawn)
    return {("merged numbers", 1)}


def interpolated(data: Data) -> Found:
    drawn = data.drawn(1)
    wide = Picture.fromarray(drawn).resize(drawn.shape[::-1], Picture.BICUBIC, reducing_gap=None)
    small = wide.resize((drawn.shape[1] // 2, drawn.shape[0] // 2), Picture.BILINEAR)
    save(data.labels(1), np.asarray(small.resize(drawn.shape[::-1], Picture.BILINEAR)))
    return {("broken numbers", 1)}


def numbered_background(data: Data) -> Found:
    drawn = data.drawn(1)
    save(data.labels(1), np.where(drawn == 0, drawn.max() + 1, drawn).astype(np.uint8))
    return {("giant object", 1)}


def pierced(data: Data) -> Found:
    drawn = data.drawn(1).copy()
    depth = ndimage.distance_transform_edt(np.pad(drawn > 0, 1))[1:-1, 1:-1]
    for number in np.unique(drawn[drawn > 0]):
        y, x = np.unravel_index(np.argmax(depth * (drawn == number)), drawn.shape)
        if depth[y, x] >= 4:
            drawn[y, x] = 0
    save(data.labels(1), drawn)
    return {("holes in objects", 1)}


OBJECT_FAULTS = [binary, one_number_for_two, interpolated, numbered_background, pierced]


@pytest.mark.parametrize("fault", OBJECT_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_among_objects_is_named(fault: Callable[[Data], Found], nuclei):
    expected = fault(nuclei)

    alarms = nuclei.alarms()

    assert {(name, nuclei.case(number)) for name, number in expected} <= alarms
    assert {case for _, case in alarms} == {nuclei.case(number) for _, number in expected}


def test_objects_in_a_card_of_classes_are_named(nuclei):
    nuclei.card = nuclei.card.replace("kind: instance\n", "")

    named = {f.check for f in nuclei.findings() if f.severity == "error"}

    assert "objects in a card of classes" in named
    assert "anti-aliased edges" not in named


def test_numbers_that_begin_again_after_255_are_named(nuclei):
    """Two hundred objects and more in one image, saved in 8 bits."""
    squares = np.arange(1, 401).reshape(20, 20).repeat(6, 0).repeat(6, 1)
    squares[::6] = squares[:, ::6] = 0
    Picture.fromarray(squares.astype(np.uint8)).save(nuclei.labels(1))
    rng = np.random.default_rng(0)
    pixels = (50 + 100 * (squares > 0) + rng.normal(0, 5, squares.shape)).astype(np.uint8)
    channels = nuclei.pixels(1).ndim
    save(nuclei.image(1), np.stack([pixels] * 3, -1) if channels == 3 else pixels)

    alarms = nuclei.findings()

    assert ("error", "merged numbers", nuclei.case(1)) in {
        (f.severity, f.check, f.case) for f in alarms
    }


# Faults of volumes.


def replaced(file: Path, image: Image) -> None:
    write_image(file, image) if file.parent.name == "images" else write_labels(
        file, image.array, image.grid
    )


def cut_off_volume(data: Data) -> Found:
    content = data.labels(1).read_bytes()
    data.labels(1).write_bytes(content[: len(content) * 6 // 10])
    return {("unreadable", 1)}


def shifted_labels(data: Data) -> Found:
    labels = read_labels(data.labels(1))
    origin = tuple(o + 10 for o in labels.grid.origin)
    replaced(data.labels(1), dataclasses.replace(
        labels, grid=dataclasses.replace(labels.grid, origin=origin)))  # fmt: skip
    return {("geometry", 1)}


def mirrored_labels(data: Data) -> Found:
    """The header of the labels says that x leads to the left."""
    labels = read_labels(data.labels(1))
    direction = tuple((*row[:-1], -row[-1]) for row in labels.grid.direction)
    replaced(data.labels(1), dataclasses.replace(
        labels, grid=dataclasses.replace(labels.grid, direction=direction)))  # fmt: skip
    return {("geometry", 1)}


def thick_slices(data: Data) -> Found:
    for file, read in ((data.image(1), read_image), (data.labels(1), read_labels)):
        image = read(file)
        spacing = (3 * image.grid.spacing[0], *image.grid.spacing[1:])
        grid = dataclasses.replace(image.grid, spacing=spacing)
        replaced(file, dataclasses.replace(image, grid=grid))
    return {("spacing", 1)}


def island(data: Data) -> Found:
    labels = read_labels(data.labels(1))
    array = labels.array.copy()
    corner = (slice(0, 4),) * 3 if not array[:6, :6, :6].any() else (slice(-4, None),) * 3
    array[corner] = 1
    replaced(data.labels(1), dataclasses.replace(labels, array=array))
    return {("islands", 1)}


def cavity(data: Data) -> Found:
    labels = read_labels(data.labels(1))
    array = labels.array.copy()
    depth = ndimage.distance_transform_cdt(array == 1, "chessboard")
    z, y, x = np.unravel_index(np.argmax(depth), array.shape)
    array[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 0
    replaced(data.labels(1), dataclasses.replace(labels, array=array))
    return {("holes", 1)}


def negative(data: Data) -> Found:
    image = read_image(data.image(1))
    array = (float(image.array.max()) - image.array).astype(np.float32)
    replaced(data.image(1), dataclasses.replace(image, array=array))
    return {("inverted", 1)}


def thousandfold(data: Data) -> Found:
    image = read_image(data.image(1))
    array = (image.array * 1e6).astype(np.float32)
    replaced(data.image(1), dataclasses.replace(image, array=array))
    return {("intensity outlier", 1)}


def infinite(data: Data) -> Found:
    image = read_image(data.image(1))
    array = image.array.astype(np.float32)
    array[0, 0, :3] = np.inf
    replaced(data.image(1), dataclasses.replace(image, array=array))
    return {("no numbers", 1)}


VOLUME_FAULTS = [
    cut_off_volume, shifted_labels, mirrored_labels, thick_slices, island, cavity, negative,
    thousandfold, infinite,
]  # fmt: skip


@pytest.mark.parametrize("fault", VOLUME_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_volumes_is_named(fault: Callable[[Data], Found], organs):
    expected = fault(organs)

    alarms = organs.alarms()

    assert {(name, organs.case(number)) for name, number in expected} <= alarms
    assert {case for _, case in alarms} == {organs.case(number) for _, number in expected}


def test_left_and_right_exchanged_in_one_case_are_named(tmp_path):
    make_organs(tmp_path / "data", images=8)
    for file in (tmp_path / "data" / "labels").iterdir():
        labels = read_labels(file)
        middle = labels.grid.shape[2] // 2
        toward_right = np.array(labels.grid.direction)[0, 2] > 0
        sides = np.where(np.arange(labels.grid.shape[2]) < middle, *((1, 2) if toward_right
                         else (2, 1)))  # fmt: skip
        write_labels(file, np.where(labels.array > 0, sides, 0).astype(np.uint8), labels.grid)
    card = (
        "name: organs\nlayout: paired_folders\nspatial_dims: 3\nchannels: [T1]\n"
        "labels: {background: 0, left lobe: 1, right lobe: 2}\n"
        "groups: {pattern: '(person\\d+)'}\n"
    )
    data = Data(tmp_path / "data", card)
    assert data.alarms() == set()

    labels = read_labels(data.labels(1))
    write_labels(data.labels(1), np.array([0, 2, 1], np.uint8)[labels.array], labels.grid)

    assert data.alarms() == {("sides swapped", data.case(1))}


def test_names_that_tell_groups_are_pointed_out(membranes):
    membranes.card = "\n".join(
        line for line in membranes.card.splitlines() if not line.startswith("groups")
    )
    found = [f for f in membranes.findings() if f.check == "undeclared groups"]

    if "cells" in membranes.card:
        assert "3 groups (dishA, dishB, dishC)" in found[0].found
        assert r"pattern: '^([A-Za-z]+)'" in found[0].remedy
    else:
        assert found == [], "00, 02, 04: nothing in these names varies but a number"


def test_a_pixel_size_that_only_some_images_state_is_named(tmp_path, cells_source):
    folder = tmp_path / "cells"
    for part in ("images", "labels"):
        shutil.copytree(cells_source / part, folder / part)
    data = Data(
        folder,
        "name: cells\nlayout: paired_folders\nspatial_dims: 2\n"
        "labels: {background: 0, cell: 1, border: 2}\ngroups: {pattern: '(dish[A-Z])'}\n",
    )
    assert data.alarms() == set()

    for file, read in ((data.image(1), read_image), (data.labels(1), read_labels)):
        image = read(file)
        bare = dataclasses.replace(image, grid=Grid(image.grid.shape, (1.0, 1.0)))
        replaced(file, bare)

    assert data.alarms() == {("pixel size", data.case(1))}
