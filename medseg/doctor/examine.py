"""Read the cases of a data set once, in parallel, and keep what the checks need."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

from medseg.data import Case, LabelMap, Reading
from medseg.doctor.facts import (
    CaseFacts,
    ChannelFacts,
    ImageFacts,
    LabelFacts,
    ObjectFacts,
    StructureFacts,
)
from medseg.doctor.findings import Finding, finding_of
from medseg.doctor.pieces import SPECK, box_of, hole_sizes, objects_of, piece_sizes, value_counts
from medseg.doctor.thumbnail import thumbnail
from medseg.errors import MedsegError
from medseg.geometry import Grid
from medseg.images import Image, read_image
from medseg.images.reading import narrowest
from medseg.images.trust import free_memory

BYTES_PER_VOXEL = 40  # what the passes over a label image of objects hold at once, measured
PIECES_KEPT = 8
VALUES_KEPT = 4096
_SAMPLED = 1_000_000
_COMPARED = 50_000
_AROUND = 4
_SEAM = 5

Labels = NDArray[np.integer[Any]]


def examine_cases(
    cases: Sequence[Case],
    reading: Reading,
    labels: LabelMap,
    *,
    kind: Literal["semantic", "instance"],
    workers: int,
    progress: Callable[[], None] = lambda: None,
) -> tuple[CaseFacts, ...]:
    """Read every case once and return what was seen, in the order of the cases.

    The threads share half of the free memory: large volumes wait for each other.

    Args:
        cases: Which.
        reading: How their files are to be understood.
        labels: The structures.
        kind: Whether labels are classes or numbers of objects.
        workers: Threads.
        progress: Called after each case.
    """
    found: dict[str, CaseFacts] = {}
    memory = Memory(free_memory() // 2)
    with ThreadPoolExecutor(workers) as pool:
        waiting = [
            pool.submit(examine, case, reading, labels, kind=kind, memory=memory) for case in cases
        ]
        try:
            for done in as_completed(waiting):
                facts = done.result()
                found[facts.name] = facts
                progress()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(found[case.name] for case in cases)


class Memory:
    """Lets threads work at the same time while what they need together is there.

    Args:
        limit: Bytes that they share. Who needs more works alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._changed = Condition()

    @contextmanager
    def of(self, needed: int) -> Iterator[None]:
        """Wait until this many bytes are free, and hold them."""
        needed = min(needed, self.limit)
        with self._changed:
            self._changed.wait_for(lambda: self.taken + needed <= self.limit)
            self.taken += needed
        try:
            yield
        finally:
            with self._changed:
                self.taken -= needed
                self._changed.notify_all()


def examine(
    case: Case,
    reading: Reading,
    labels: LabelMap,
    *,
    kind: Literal["semantic", "instance"],
    memory: Memory,
) -> CaseFacts:
    """Read one case and return what was seen; what cannot be read is a finding."""
    facts = CaseFacts(case.name, case.group, labelled=case.labels is not None)
    findings: list[Finding] = []
    image = drawn = None
    try:
        image = replace(reading, nonfinite="keep").image(case)
    except (MedsegError, ValueError, OSError) as error:
        findings.append(_refused_image(error, case, reading))
    if case.labels is not None:
        try:
            drawn = reading.labels(case)
        except (MedsegError, ValueError, OSError) as error:
            findings.append(_refused_labels(error, case, reading))
    voxels = max((math.prod(one.grid.shape) for one in (image, drawn) if one), default=0)
    with memory.of(BYTES_PER_VOXEL * voxels):
        if image is not None:
            facts = replace(facts, image=image_facts(image))
        if drawn is not None:
            beside = image if image is not None and image.grid.shape == drawn.grid.shape else None
            facts = replace(facts, labels=label_facts(drawn, labels, kind, beside))
        if image is not None:
            facts = replace(facts, thumbnail=thumbnail(case.name, image, drawn, labels, kind))
    return replace(facts, findings=tuple(findings))


def _refused_image(error: Exception, case: Case, reading: Reading) -> Finding:
    """Tell files that cannot be read from such that do not fit the card."""
    try:
        for file in case.images:
            read_image(file, axes=reading.axes, spacing=reading.spacing, unit=reading.unit)
    except (MedsegError, ValueError, OSError) as unreadable:
        return finding_of(unreadable, "unreadable", case.name)
    return finding_of(error, "channels", case.name)


def _refused_labels(error: Exception, case: Case, reading: Reading) -> Finding:
    """Tell label files that cannot be read from such that hold no labels."""
    if case.labels is None:
        return finding_of(error, "unreadable", case.name)
    try:
        image = read_image(
            case.labels, axes=reading.label_axes, spacing=reading.spacing, unit=reading.unit
        )
    except (MedsegError, ValueError, OSError):
        return finding_of(error, "unreadable", case.name)
    colours = image.axes.startswith("C") and (image.array != image.array[:1]).any()
    return finding_of(error, "colour mask" if colours else "label values", case.name)


def image_facts(image: Image) -> ImageFacts:
    """Return the facts of an image."""
    channels: list[ChannelFacts] = []
    array = image.channels_first
    for number, (name, values) in enumerate(zip(image.channels, array, strict=True)):
        earlier = (i for i in range(number) if np.array_equal(array[i], values, equal_nan=True))
        copied = next(earlier, None)
        if copied is None:
            channels.append(channel_facts(name, values))
        else:
            channels.append(replace(channels[copied], name=name, copy_of=image.channels[copied]))
    return ImageFacts(image.grid, str(array.dtype), tuple(channels), digest(array))


def channel_facts(name: str, values: NDArray[Any]) -> ChannelFacts:
    """Return the facts of one channel, (*spatial)."""
    nan = infinite = 0
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        nan = int(np.isnan(values).sum())
        infinite = int(values.size - finite.sum()) - nan
        values = values[finite] if nan or infinite else values
    flat = values.ravel()
    if not flat.size:
        nothing = float("nan")
        three = (nothing, nothing, nothing)
        return ChannelFacts(name, nothing, nothing, three, nothing, nan, infinite)
    low, middle, high = np.percentile(flat[:: max(1, flat.size // _SAMPLED)], [1, 50, 99])
    top = flat.max()
    return ChannelFacts(
        name=name,
        lowest=float(flat.min()),
        highest=float(top),
        percentiles=(float(low), float(middle), float(high)),
        at_top=float(np.mean(flat == top)),
        nan=nan,
        infinite=infinite,
    )


def digest(array: NDArray[Any]) -> str:
    """Return a fingerprint of the numbers in an array, whatever the type that stores them."""
    plain = array
    exact = plain.dtype.kind == "f" and np.abs(plain).max(initial=0) < 2**31
    if exact and np.array_equal(plain, np.trunc(plain)):
        plain = plain.astype(np.int64)  # an image saved as decimals by another program
    if plain.dtype.kind in "iu" and plain.size and 0 <= plain.min() <= plain.max() < 2**32:
        plain = plain.astype(narrowest(int(plain.max())), copy=False)
    seen = hashlib.sha256(f"{plain.shape} {plain.dtype}".encode())
    seen.update(np.ascontiguousarray(plain).data)
    return seen.hexdigest()


def label_facts(
    drawn: Image, labels: LabelMap, kind: Literal["semantic", "instance"], image: Image | None
) -> LabelFacts:
    """Return the facts of a label image.

    Args:
        drawn: The labels.
        labels: The structures that the card names.
        kind: Whether labels are classes or numbers of objects.
        image: The image on the same voxels, for the contrast; None if it cannot be used.
    """
    array = drawn.array
    found, counts = value_counts(array)
    common = np.argsort(counts, kind="stable")[::-1][:VALUES_KEPT]
    judged = np.ones(array.shape, bool) if labels.ignore is None else array != labels.ignore
    structures = {}
    for name, values in labels.values.items():
        if name in labels.structures:
            mask = (array > 0) & judged if kind == "instance" else np.isin(array, values)
            structures[name] = structure_facts(mask, judged, drawn.grid, image)
    objects = None
    if kind == "instance":
        seen = objects_of(np.where(judged, array, 0))
        objects = ObjectFacts(
            count=len(seen.numbers),
            highest=int(seen.numbers.max(initial=0)),
            **{
                key: tuple(int(n) for n in getattr(seen, key))
                for key in ("scattered", "frayed", "thin", "holed", "specks")
            },
        )
    named = [value for values in labels.values.values() for value in values]
    named += [] if labels.ignore is None else [labels.ignore]
    odd = np.isin(found, named, invert=True)
    commonest = int(np.argmax(counts * odd))
    if odd[commonest] and 2 * counts[commonest] > counts[odd].sum():
        odd[commonest] = False  # a structure in its own right; what remains may be its soft edge
    strange = np.isin(array, found[odd]) if kind == "semantic" else np.zeros(array.shape, bool)
    return LabelFacts(
        grid=drawn.grid,
        values={int(found[i]): int(counts[i]) for i in sorted(common)},
        edge_share=_edge_share(strange),
        structures=structures,
        objects=objects,
        digest=digest(array),
    )


def _edge_share(strange: NDArray[np.bool_]) -> float:
    """Return the share of a mask that is less than ``_SEAM`` voxels wide."""
    box = box_of(strange)
    if box is None:
        return float("nan")
    inside = np.pad(strange[box], 1)
    solid = ndimage.binary_opening(inside, np.ones((_SEAM,) * inside.ndim))
    return 1 - float(solid.sum()) / float(inside.sum())


def structure_facts(
    mask: NDArray[np.bool_], judged: NDArray[np.bool_], grid: Grid, image: Image | None
) -> StructureFacts:
    """Return the facts of one structure, (*spatial)."""
    box = box_of(mask)
    if box is None:
        return StructureFacts(0, (), 0, 0, 0, 0, (), ())
    inside = mask[box]
    sizes, holes = piece_sizes(inside), hole_sizes(inside)
    middle = [float(axis.mean()) + part.start for axis, part in zip(
        np.nonzero(inside), box, strict=True
    )]  # fmt: skip
    centre = grid.affine @ np.array([*middle, 1.0])
    return StructureFacts(
        voxels=int(inside.sum()),
        pieces=tuple(int(size) for size in sizes[:PIECES_KEPT]),
        number_of_pieces=len(sizes),
        specks=int(np.sum(sizes[1:] <= SPECK)),
        pinholes=int(np.sum(holes <= SPECK)),
        holes=int(np.sum(holes > SPECK)),
        centre=tuple(float(value) for value in centre[:-1]),
        contrasts=() if image is None else _contrasts(mask, judged, box, image),
    )


def _contrasts(
    mask: NDArray[np.bool_], judged: NDArray[np.bool_], box: tuple[slice, ...], image: Image
) -> tuple[float, ...]:
    """Return for each channel the chance that a voxel in the mask is brighter than one beside it.

    Beside it is what lies within ``_AROUND`` voxels: the area under the ROC curve.
    """
    near = tuple(slice(max(0, part.start - _AROUND), part.stop + _AROUND) for part in box)
    inside = mask[near]
    reach = 2 * _AROUND + 1
    beside = ndimage.maximum_filter(inside.view(np.uint8), reach).view(bool) & ~inside
    inside, beside = inside & judged[near], beside & judged[near]
    return tuple(
        _chance_brighter(values[near][inside], values[near][beside])
        for values in image.channels_first
    )


def _chance_brighter(these: NDArray[Any], those: NDArray[Any]) -> float:
    """Return the chance that one of these is larger than one of those; ties count half."""
    a, b = (
        part[:: max(1, part.size // _COMPARED)]
        for part in (values[np.isfinite(values)] for values in (these, those))
    )
    if not a.size or not b.size:
        return float("nan")
    ranks = rankdata(np.concatenate([a, b]))[: a.size]
    return float((ranks.mean() - (a.size + 1) / 2) / b.size)
