"""The choices of a job, each with its reason.

Where nothing better is known they are nnU-Net's; without a GPU they are what learnt best in short
trainings on two cores (``benchmarks/results/bakeoff.md``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Any

import numpy as np

from medseg.geometry import Length, Unit
from medseg.networks import NETWORKS
from medseg.planning.counting import count_work
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.sizing import (
    FEATURES_AT_8_GB,
    Patch,
    Size,
    Strides,
    plan_size,
    resampled,
    target_spacing,
    unet_features,
)

# Multiply-adds of one forward pass of a training step without a GPU, and how many such passes'
# worth two cores manage in a second of training: 8 to 15 thousand million each in fp32.
STEP_ON_CPU = 1.0e10
PER_SECOND_ON_CPU = 2.0e10
MINUTES_ON_CPU = 20
_DEFAULT = {2: "unet", 3: "dynunet"}
# Of the default networks; of another, the preset for little data.
_SETTINGS_ON_CPU: dict[int, dict[str, Any]] = {
    2: {"channels": [16, 32, 64, 128, 256]},
    3: {"preset": "small", "deep_supervision": True},
}
_LEARNING_RATE_ON_CPU = {2: 2.0e-3, 3: 3.0e-3}
# In air, where every CT of a body has voxels.
_AIR_HU = -900.0
_RARE = 0.001
_OBJECTS_ACROSS, _SMALLEST_SIDE = 8, 96


@dataclass(frozen=True)
class Choice:
    """One setting of a job.

    Args:
        path: Where it stands, e.g. ``data.patch_voxels``.
        value: Plain values, sizes in the order x, y, z.
        reason: Why, in a sentence for the person who reads the job.
    """

    path: str
    value: Any
    reason: str = ""

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"path": self.path, "value": self.value, "reason": self.reason}


@dataclass(frozen=True)
class Machine:
    """What the job is to be trained with.

    Args:
        memory_gb: Of the GPU; 0 for none.
    """

    memory_gb: float

    @property
    def gpu(self) -> bool:
        """Whether there is one."""
        return self.memory_gb > 0

    @property
    def name(self) -> str:
        """What a person reads."""
        return f"a GPU of {self.memory_gb:g} GB" if self.gpu else "two cores without a GPU"


def choose(found: Fingerprint, *, machine: Machine, network: str | None = None) -> list[Choice]:
    """Return the settings of a job in the order of its file.

    Args:
        found: The fingerprint of the training cases.
        machine: What it is to be trained with.
        network: Its network; that which learnt best if None.

    Raises:
        ValueError: No network has this name.
    """
    spacing = target_spacing(found.shapes, found.spacings)
    sizes = [
        resampled(shape, own, spacing)
        for shape, own in zip(found.shapes, found.spacings, strict=True)
    ]
    shape = tuple(max(1, round(float(n))) for n in np.median(sizes, axis=0))
    name = network or _DEFAULT[found.spatial_dims]
    settings, why = _network(found, name, machine)
    # Three quarters of the images hold the whole patch: prediction sees images without any filling.
    small = tuple(max(1, int(n)) for n in np.percentile(sizes, 25, axis=0))
    size, filled = _size(found, shape, small, spacing, name, settings, machine)
    return [
        *_grid(found, spacing),
        Choice("data.patch_voxels", list(reversed(size.patch_voxels)), filled),
        _normalisation(found),
        Choice("network", {"name": name, **settings}, why),
        *_augmentation(found, machine),
        *_training(found, size, name, machine),
        *_prediction(found, sizes, size, machine),
        *_metrics(found, spacing),
    ]


def _grid(found: Fingerprint, spacing: Sequence[float]) -> list[Choice]:
    if found.unit is Unit.PX:
        why = "the images state no pixel size, so each keeps its own grid"
        return [Choice("data.spacing", "native", why)]
    lengths = [str(Length(float(f"{s:.4g}"), found.unit)) for s in reversed(spacing)]
    own = np.asarray(found.spacings)
    spread = own.max(axis=0) / own.min(axis=0)
    why = f"median of the {found.cases} training cases"
    if spread.max() < 1.01:
        why = f"the spacing of all {found.cases} training cases; other images are resampled to it"
    elif max(spacing) > 3 * sorted(spacing)[-2]:
        why += "; slices are far apart, so the network halves the planes first"
    return [Choice("data.spacing", lengths, why)]


def _normalisation(found: Fingerprint) -> Choice:
    path = "data.normalisation"
    if found.channels in (("CT",), ("ct",)) or (
        len(found.channels) == 1 and found.oriented and found.lowest <= _AIR_HU
    ):
        why = "Hounsfield units mean the same in every image: clip to those of the structures"
        return Choice(path, "ct", why)
    if found.unit is Unit.MM:
        why = "intensities have no unit and differ from scan to scan"
        return Choice(path, "zscore", why)
    why = "microscopes' and cameras' intensities have no unit, and the brightest specks say nothing"
    return Choice(path, "percentile", why)


def _network(found: Fingerprint, name: str, machine: Machine) -> tuple[dict[str, Any], str]:
    """Return the network's settings and the reason for them."""
    known = NETWORKS.settings(name)
    if machine.gpu:
        deep = {"deep_supervision": True} if "deep_supervision" in known else {}
        return deep, "at full width: the GPU has the memory"
    settings: dict[str, Any] = {"preset": "small"}
    if name == _DEFAULT[found.spatial_dims]:
        settings = dict(_SETTINGS_ON_CPU[found.spatial_dims])
    return settings, "narrow: without a GPU, many cheap steps teach more than few dear ones"


def _size(
    found: Fingerprint,
    shape: Patch,
    small: Patch,
    spacing: Sequence[float],
    name: str,
    settings: Mapping[str, Any],
    machine: Machine,
) -> tuple[Size, str]:
    """Return patch and batch, and what filled them."""
    classes = len(found.structures) + (1 if found.kind == "semantic" else 2)
    plan = partial(plan_size, shape, spacing, cases=found.cases, inside=small)
    of = f"the median image has {' x '.join(str(n) for n in reversed(shape))} voxels"
    if machine.gpu:
        budget = FEATURES_AT_8_GB[found.spatial_dims] * machine.memory_gb / 8
        cost: Callable[[Patch, Strides], float] = partial(unet_features, classes=classes)
        if name != "dynunet":
            work = _work(found, name, settings, classes)
            cost = _per_voxel(work.features)
        return plan(cost=cost, budget=budget), f"what {machine.name} holds in training; {of}"
    work = _work(found, name, settings, classes)
    if found.diameter is not None and found.spatial_dims == 2:
        # Patches of a few objects: the same step then shows more of the images.
        side = max(_SMALLEST_SIDE, ceil(_OBJECTS_ACROSS * found.diameter / 32) * 32)
        plan = partial(plan, inside=tuple(min(n, side) for n in small))
        of = f"{_OBJECTS_ACROSS} objects of {found.diameter:.0f} voxels side by side; {of}"
    size = plan(cost=_per_voxel(work.multiply_adds), budget=STEP_ON_CPU / 2, patches_at_budget=2)
    billions = size.cost * size.batch / 1e9
    why = f"a step of {billions:.0f} thousand million multiply-adds: half a second to one; {of}"
    return size, why


def _work(found: Fingerprint, name: str, settings: Mapping[str, Any], classes: int) -> Any:
    known = dict(settings)
    part: Any = NETWORKS[name]
    preset = part.small_settings(found.spatial_dims) if known.pop("preset", None) else {}
    return count_work(name, found.spatial_dims, len(found.channels), classes, {**preset, **known})


def _per_voxel(rate: float) -> Callable[[Patch, Strides], float]:
    def cost(patch: Patch, strides: Strides) -> float:
        return rate * prod(patch)

    return cost


def _augmentation(found: Fingerprint, machine: Machine) -> list[Choice]:
    path = "augmentation"
    if machine.gpu:
        return [Choice(path, {"name": "recipe"}, "nnU-Net's, the strongest published recipe")]
    settings: dict[str, Any] = {"name": "light", "elastic": 0.3 if found.spatial_dims == 2 else 0.2}
    why = "cheap, so that two cores spend their time on the network"
    if found.oriented:
        settings |= {"mirror": ["x"], "quarter_turns": 0.0}
        why += "; a body is alike left and right only, and lies the same way in every image"
    return [Choice(path, settings, why)]


def _training(found: Fingerprint, size: Size, name: str, machine: Machine) -> list[Choice]:
    rare = [s for s in found.structures if found.share(s) < _RARE]
    foreground = "two thirds of the patches around a structure, as in nnU-Net"
    if rare and found.kind == "semantic":
        foreground += f"; {', '.join(rare)}: below {_RARE:.1%} of the voxels"
    batch = "what the patch leaves of the budget"
    if machine.gpu:
        recipe = [
            Choice("train.epochs", 250, "a quarter of nnU-Net's 1000; see patience"),
            Choice("train.iterations_per_epoch", 250),
            Choice("train.batch", size.batch, batch),
            Choice("train.foreground", 0.67, foreground),
            Choice("train.patience", 10, "validations without a better Dice, then it stops early"),
        ]
        if name == "dynunet":
            why = "nnU-Net's optimiser"
            return [
                *recipe,
                Choice("train.optimiser", "sgd", why),
                Choice("train.learning_rate", 1.0e-2),
                Choice("train.seed", 7),
            ]
        return [*recipe, Choice("train.learning_rate", 1.0e-3), Choice("train.seed", 7)]
    steps = MINUTES_ON_CPU * 60 * PER_SECOND_ON_CPU / (size.cost * size.batch)
    epochs = max(10, ceil(steps / 50))
    return [
        Choice(
            "train.epochs",
            epochs,
            f"about {MINUTES_ON_CPU} minutes on two cores; --time-budget "
            f"{MINUTES_ON_CPU}m takes exactly so long",
        ),
        Choice("train.iterations_per_epoch", 50),
        Choice("train.batch", size.batch, batch),
        Choice("train.foreground", 0.67, foreground),
        Choice(
            "train.learning_rate",
            _LEARNING_RATE_ON_CPU[found.spatial_dims],
            "high, as the training is short",
        ),
        Choice("train.seed", 7),
    ]


def _prediction(
    found: Fingerprint, sizes: Sequence[Patch], size: Size, machine: Machine
) -> list[Choice]:
    cell = [prod(axis) for axis in zip(*size.strides, strict=True)]
    largest = np.max(sizes, axis=0)
    whole = [ceil(n / c) * c for n, c in zip(largest, cell, strict=True)]
    window, why = list(size.patch_voxels), "as in training"
    if found.spatial_dims == 2:
        window = [min(2 * n, most) for n, most in zip(window, whole, strict=True)]
        why = "twice the patch: fewer seams"
    if prod(whole) <= 4 * prod(size.patch_voxels):
        window, why = whole, "every image at once: no seams"
    return [
        Choice("predict.window_voxels", [int(n) for n in reversed(window)], why),
        Choice("predict.mirror", ["x"] if found.oriented else True, "mirrored views are averaged"),
    ]


def _metrics(found: Fingerprint, spacing: Sequence[float]) -> list[Choice]:
    if found.kind == "instance":
        return []
    size = 2.0 if found.unit is Unit.PX else float(f"{max(spacing):.2g}")
    tolerance = str(Length(size, found.unit))
    why = "set the tolerance to the distance by which two readers differ"
    nsd = {"name": "nsd", "tolerance": tolerance}
    return [Choice("metrics", ["dice", "iou", "hd95", "assd", nsd], why)]
