"""Small made-up data sets whose borders are known exactly.

``make_cells`` draws touching, textured cells as a microscope would see them; ``make_organs`` two
touching organs as a scanner would. The images are hard enough that a good and a poor network
differ, and the same seed gives the same files.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.geometry import Grid, Unit
from medseg.images import Image, write_image, write_labels

Array = NDArray[Any]
CELL, BORDER = 1, 2
CORE, CAP = 1, 2
_IMAGES_PER_DISH = 4
_PIXEL_UM = 0.25
_VOXEL_MM = (1.5, 1.0, 1.0)  # z, y, x
# How the scans are stored, axes z, y, x: mostly RAS, one in eight LAS, one in eight LPS.
_RAS, _LAS, _LPS = (1, 1, 1), (1, 1, -1), (1, -1, -1)
_MIRRORED = (_RAS, _RAS, _RAS, _LAS, _RAS, _RAS, _LPS, _RAS)


def make_cells(folder: Path, *, images: int = 24, size: int = 192, seed: int = 7) -> None:
    """Write two-dimensional cells as OME-TIFF with a pixel size of 0.25 um.

    Makes ``images/``, ``labels/`` (1 cell, 2 the rim of about 2 px where two cells touch) and
    ``instances/`` (one number a cell), with the same names in each: ``dishA_cell_00.ome.tif``.
    Four images come from one dish, which has its own contrast, light and noise; a dish is the
    group that must not be split.

    Args:
        folder: Where to; it is made if need be.
        images: How many.
        size: Pixels along x and y.
        seed: The same seed gives the same files.
    """
    grid = Grid((size, size), (_PIXEL_UM, _PIXEL_UM), Unit.UM)
    for kind in ("images", "labels", "instances"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        dish, number = divmod(i, _IMAGES_PER_DISH)
        rng = np.random.default_rng([seed, 1, i])
        instances = _cells(rng, size)
        rim = _touching(instances)
        labels = np.where(rim, BORDER, np.where(instances > 0, CELL, 0))
        light = _microscope(rng, np.random.default_rng([seed, 2, dish]), instances, rim)
        name = f"dish{_letters(dish)}_cell_{number:02d}.ome.tif"
        write_image(folder / "images" / name, Image(light, grid, "YX", ("cytoplasm",)))
        write_labels(folder / "labels" / name, labels, grid)
        write_labels(folder / "instances" / name, instances, grid)


def make_organs(folder: Path, *, images: int = 16, seed: int = 7) -> None:
    """Write volumes of two touching organs as NIfTI, voxels of 1 x 1 x 1.5 mm (x, y, z).

    Makes ``images/`` and ``labels/`` (1 core, 2 the cap that lies on it), with the same names in
    each: ``person01_scan1.nii.gz``. A person is scanned twice and is the group that must not be
    split. The scale of the intensities differs up to a hundredfold between the scans, as in MR,
    and some files are stored in another orientation.

    Args:
        folder: Where to; it is made if need be.
        images: How many; two a person.
        seed: The same seed gives the same files.
    """
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        person, scan = divmod(i, 2)
        rng = np.random.default_rng([seed, 3, i])
        labels = _organs(np.random.default_rng([seed, 4, person]), rng)
        values = _scanner(rng, labels)
        mirrored = _MIRRORED[i % len(_MIRRORED)]
        name = f"person{person + 1:02d}_scan{scan + 1}.nii.gz"
        grid = _scan_grid(labels.shape, mirrored)
        write_image(folder / "images" / name, Image(_mirror(values, mirrored), grid, "ZYX"))
        write_labels(folder / "labels" / name, _mirror(labels, mirrored), grid)


def _letters(number: int) -> str:
    """Return A, B, ... Z, AA, AB, ..."""
    text = chr(ord("A") + number % 26)
    return text if number < 26 else _letters(number // 26 - 1) + text


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Return a smooth random field with mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="reflect")
    scaled: Array = (field - field.mean()) / field.std()
    return scaled


def _cells(rng: np.random.Generator, size: int) -> Array:
    """Return numbered cells: warped ellipses in a crowd, each up to its nearest neighbour."""
    step = 26.0
    lattice = np.arange(step / 2, size + step, step)
    centres = np.stack(np.meshgrid(lattice, lattice, indexing="ij"), -1).reshape(-1, 2)
    centres = centres + rng.uniform(-0.33 * step, 0.33 * step, centres.shape)
    centres = centres[rng.random(len(centres)) > 0.18]  # gaps in the crowd
    y, x = np.indices((size, size), dtype=float)
    y, x = y + 2.5 * _smooth(rng, (size, size), 9), x + 2.5 * _smooth(rng, (size, size), 9)
    nearest = np.full((size, size), np.inf)
    cells = np.zeros((size, size), np.int32)
    for number, (cy, cx) in enumerate(centres, start=1):
        angle, long = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
        radius = rng.uniform(0.44, 0.62) * step
        along = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        distance = np.hypot(along / long, across * long) / radius
        mine = (distance < 1) & (distance < nearest)
        cells[mine], nearest[mine] = number, distance[mine]
    return _whole(cells)


def _whole(cells: Array) -> Array:
    """Keep the largest piece of each cell, drop cells of fewer than 40 pixels, and renumber."""
    kept = np.zeros_like(cells)
    number = 0
    for old, place in enumerate(ndimage.find_objects(cells), start=1):
        if place is None:
            continue
        pieces, count = ndimage.label(cells[place] == old)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        if sizes.max() >= 40:
            number += 1
            kept[place][pieces == sizes.argmax() + 1] = number
    return kept


def _touching(cells: Array) -> Array:
    """Mark the pixels of a cell that have another cell among their eight neighbours."""
    highest = ndimage.maximum_filter(cells, 3)
    lowest = ndimage.minimum_filter(np.where(cells > 0, cells, cells.max() + 1), 3)
    rim: Array = (cells > 0) & ((highest > cells) | (lowest < cells))
    return rim


def _microscope(
    rng: np.random.Generator, dish: np.random.Generator, cells: Array, rim: Array
) -> Array:
    """Return what a camera would record of the cells, 16 bit."""
    size = len(cells)
    contrast, noise = dish.uniform(0.45, 0.8), dish.uniform(0.04, 0.12)
    shade, gain = dish.uniform(0.15, 0.4), dish.uniform(3000, 12000)
    number = int(cells.max())
    brightness = np.concatenate([[0.15], rng.uniform(0.7, 1.2, number)])[cells]
    texture = 0.10 * _smooth(rng, (size, size), 1.2) + 0.08 * _smooth(rng, (size, size), 4)
    signal = brightness * (1 + np.where(cells > 0, texture, 0))
    depth = ndimage.distance_transform_edt(cells > 0)
    signal = signal * np.where(cells > 0, 0.75 + 0.25 * np.minimum(depth / 6, 1), 1)
    signal = np.where(rim, signal * (1 - contrast), signal)
    debris = np.where(_smooth(rng, (size, size), 2) > 2.8, 0.4, 0.0) * (cells == 0)
    blurred = ndimage.gaussian_filter(signal + debris, rng.uniform(0.7, 1.2))
    lamp = 1 + shade * np.clip(_smooth(rng, (size, size), size / 4), -2, 2) / 2
    photons = rng.poisson(np.clip(blurred * lamp, 0, None) * 400) / 400
    recorded = photons + noise * rng.normal(size=cells.shape)
    counts: Array = np.clip(gain * (0.1 + recorded), 0, 65535).astype(np.uint16)
    return counts


def _organs(person: np.random.Generator, scan: np.random.Generator) -> Array:
    """Return core and cap on (z, y, x): the person's anatomy as it lay in this scan."""
    shape = (36, 48, 40)
    middle = np.array([18.0, 24.0, 20.0]) + person.uniform(-1, 1, 3)
    middle = middle + scan.uniform(-1.5, 1.5, 3)
    place = np.indices(shape, dtype=float)
    for axis, sigma in ((0, 6), (1, 7), (2, 7)):
        place[axis] += 1.5 * np.clip(_smooth(person, shape, sigma), -2, 2) + 0.5 * _smooth(
            scan, shape, sigma
        )
    z, y, x = (place[axis] - middle[axis] for axis in range(3))
    a, b, c = person.uniform(0.9, 1.15, 3) * (6.0, 9.0, 8.5)
    core = (z / a) ** 2 + (y / b) ** 2 + (x / c) ** 2 < 1
    lift, forward = person.uniform(2.5, 3.5), person.uniform(3.5, 5.0)
    around = ((z - lift) / (a + 1.5)) ** 2 + ((y - forward) / (b + 1.5)) ** 2 + (x / (c + 1.5)) ** 2
    return np.where(core, CORE, np.where(around < 1, CAP, 0))


def _scanner(rng: np.random.Generator, labels: Array) -> Array:
    """Return what a scanner would record: shaded, blurred, noisy, on a scale of its own."""
    shape = labels.shape
    body = 0.35 + 0.15 * np.clip(_smooth(rng, shape, 4), -2, 2)
    levels = np.array([0.0, rng.uniform(0.95, 1.1), rng.uniform(0.65, 0.78)])
    signal = np.where(labels > 0, levels[labels], body) + 0.05 * _smooth(rng, shape, 1.5)
    blurred = ndimage.gaussian_filter(signal, (0.5, 0.7, 0.7))
    bias = np.exp(0.18 * np.clip(_smooth(rng, shape, 14), -2, 2))
    noise = rng.uniform(0.04, 0.09)
    real = blurred * bias + noise * rng.normal(size=shape)
    rician = np.hypot(real, noise * rng.normal(size=shape))
    scale = 10 ** rng.uniform(1, 3)
    values: Array = (scale * rician).astype(np.float32)
    return values


def _mirror(array: Array, signs: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(array[tuple(slice(None, None, sign) for sign in signs)])


def _scan_grid(shape: tuple[int, ...], signs: tuple[int, ...]) -> Grid:
    """Return the grid of a scan; -1 for an axis (z, y, x) that runs away from head, front, right.

    Mirrored or not, the same tissue lies at the same place.
    """
    direction = np.diag([float(s) for s in signs])[::-1]
    last = [
        (n - 1) * s if sign < 0 else 0.0 for n, s, sign in zip(shape, _VOXEL_MM, signs, strict=True)
    ]
    return Grid(
        shape,
        _VOXEL_MM,
        Unit.MM,
        tuple(last[::-1]),
        tuple(tuple(row) for row in direction.tolist()),
    )
