"""Predicting an image of any size, window by window, with little memory.

Windows overlap and are blended with a Gaussian weight, so that no seam shows where two of them
meet. They are visited along the first axis, and each row of the image is handed over as soon as no
later window can change it: only as many rows as one window is thick are held at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from typing import Literal

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor

from medseg.networks.layers import resize_linear
from medseg.transforms import plane_of

Scores = Callable[[Tensor], Tensor]
Precision = Literal["fp32", "bf16", "fp16"]


def sliding_window(
    scores: Scores,
    image: Tensor,
    *,
    window: Sequence[int],
    overlap: float = 0.5,
    batch: int = 4,
    neighbours: int = 0,
) -> Iterator[Tensor]:
    """Yield finished rows of the blended prediction, in order.

    Args:
        scores: Maps (batch, channels, *window) to (batch, classes, *window), e.g.
            :func:`probabilities_of`.
        image: The prepared image, (channels, *spatial).
        window: Size of a window in voxels; an axis shorter than it is taken whole. A window of
            (y, x) on a stack slides over each plane by itself.
        overlap: Least share of a window that its neighbour sees too, 0 to below 1.
        batch: Windows computed at once.
        neighbours: Planes of a stack on each side that ``scores`` takes as further channels.

    Yields:
        The scores of the next rows, (classes, rows, *spatial[1:]), on the image's device.

    Raises:
        ValueError: ``overlap`` is not in [0, 1), or the window has another number of axes.
    """
    spatial = tuple(image.shape[1:])
    if len(window) == 2 and len(spatial) == 3:
        for number in range(spatial[0]):
            plane = plane_of(image, number, neighbours)
            rows = sliding_window(scores, plane, window=window, overlap=overlap, batch=batch)
            yield torch.cat(list(rows), dim=1)[:, None]
        return
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is a share of the window, 0 to below 1, got {overlap}")
    if len(window) != len(spatial):
        raise ValueError(f"a window of {len(window)} axes on an image of {len(spatial)} axes")
    size = tuple(min(w, s) for w, s in zip(window, spatial, strict=True))
    starts = [_starts(s, w, overlap) for s, w in zip(spatial, size, strict=True)]
    importance = compute_importance_map(size, mode="gaussian", sigma_scale=0.125, dtype=torch.float)
    importance = importance.clamp(min=1e-3).to(image.device)

    total: Tensor | None = None  # rows [done, done + size[0]) of the sum of weighted scores
    weight = torch.zeros((size[0], *spatial[1:]), device=image.device)
    done = 0
    for first in starts[0]:
        if total is not None and first > done:
            ready = first - done
            yield total[:, :ready] / weight[:ready]
            total, weight = _advance(total, ready, dim=1), _advance(weight, ready, dim=0)
            done = first
        places = list(product(*starts[1:]))
        for some in (places[i : i + batch] for i in range(0, len(places), batch)):
            slices = [
                tuple(slice(p, p + w) for p, w in zip(at, size[1:], strict=True)) for at in some
            ]
            windows = torch.stack(
                [image[(slice(None), slice(first, first + size[0]), *s)] for s in slices]
            )
            for s, out in zip(slices, scores(windows), strict=True):
                if total is None:
                    total = torch.zeros((out.shape[0], size[0], *spatial[1:]), device=image.device)
                total[(slice(None), slice(None), *s)] += out.float() * importance
                weight[(slice(None), *s)] += importance
    if total is not None:
        yield total / weight


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def probabilities_of(
    network: torch.nn.Module,
    *,
    mirror_axes: Sequence[int] = (),
    scales: Sequence[float] = (1.0,),
    precision: Precision = "fp32",
    activation: Scores = _softmax,
) -> Scores:
    """Return a function from windows to class probabilities, averaged over views of them.

    Args:
        network: Gives logits (batch, classes, *window).
        mirror_axes: Spatial axes along which the window is also seen mirrored; all combinations
            are averaged, so each axis doubles the time.
        scales: Sizes at which the window is seen, e.g. (0.75, 1, 1.25): each is resized, and its
            probabilities are resized back.
        precision: Number format of the network's arithmetic; the result is always fp32.
        activation: Makes scores of logits, (batch, outputs, *window) both.
    """
    flips = [
        tuple(axis + 2 for axis, on in zip(mirror_axes, which, strict=True) if on)
        for which in product((False, True), repeat=len(mirror_axes))
    ]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def scores(windows: Tensor) -> Tensor:
        # fp32 leaves an autocast of the caller (a trainer's) as it is.
        cast = torch.autocast(windows.device.type, dtype=half) if half else nullcontext()
        with torch.no_grad(), cast:
            views = (view(windows, flip, scale) for flip, scale in product(flips, scales))
            result = next(views)
            for more in views:
                result = result + more
        average: Tensor = result / (len(flips) * len(scales))
        return average

    def view(windows: Tensor, flip: tuple[int, ...], scale: float) -> Tensor:
        size = windows.shape[2:]
        if scale != 1:
            other = [max(1, round(n * scale)) for n in size]
            windows = resize_linear(windows, other, align_corners=False)
        probabilities: Tensor = activation(network(windows.flip(flip)).float()).flip(flip)
        if scale != 1:
            probabilities = resize_linear(probabilities, size, align_corners=False)
        return probabilities

    return scores


def voxels_in_windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """Return the voxels that all windows on an image hold together: what a network computes.

    Args:
        shape: Of the image, (*spatial).
        window: As in :func:`sliding_window`; a flat one visits every plane of a volume.
        overlap: Likewise.
    """
    planes = math.prod(shape[: len(shape) - len(window)])
    count = planes
    for side, wide in zip(shape[len(shape) - len(window) :], window, strict=True):
        size = min(wide, side)
        count *= size * len(_starts(side, size, overlap))
    return count


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """Return evenly spread window positions that cover the axis, as few as the overlap allows."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // step) + 1
    return [round(i * (size - window) / max(1, count - 1)) for i in range(count)]


def _advance(rows: Tensor, by: int, *, dim: int) -> Tensor:
    """Drop the first ``by`` rows and append as many of zeros."""
    kept = rows.narrow(dim, by, rows.shape[dim] - by)
    return torch.cat([kept, torch.zeros_like(rows.narrow(dim, 0, by))], dim=dim)
