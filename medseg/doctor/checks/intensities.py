"""Grey values: no numbers, constant, on another scale, inverted, saturated, not under the labels.

Scales differ freely in MR and between microscopes, so a case is called odd only where the others
agree, or where it stands alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from medseg.doctor.checks.base import CHECKS, few, plural
from medseg.doctor.facts import CaseFacts, DataFacts, ImageFacts
from medseg.doctor.findings import Finding

FACTOR = 4.0  # cases within this factor are on one scale
ALONE = 0.03  # share of the cases up to which a scale is an outlier
SATURATED = 0.05
VISIBLE = 0.08  # distance of a contrast from 0.5, of at most 0.5, from which it has a sign
CLEAR = 0.25  # from which a structure stands out so far that labels without it are suspicious


def _images(data: DataFacts) -> Iterator[tuple[CaseFacts, ImageFacts]]:
    for case in data.cases:
        if case.image is not None:
            yield case, case.image


@CHECKS.register("no numbers")
def not_finite(data: DataFacts) -> Iterator[Finding]:
    """NaN and infinite voxels, which end a training."""
    for case, image in _images(data):
        for channel in image.channels:
            if channel.nan or channel.infinite:
                yield Finding(
                    "error",
                    "no numbers",
                    case.name,
                    f"{channel.name}: {channel.nan:,} NaN and {channel.infinite:,} infinite voxels",
                    "finite numbers",
                    "give these voxels a value in the program that wrote the file (e.g. that of "
                    "the background), or leave the image out",
                )


@CHECKS.register("constant image")
def constant(data: DataFacts) -> Iterator[Finding]:
    """Channels with one value throughout."""
    for case, image in _images(data):
        for channel in image.channels:
            if channel.lowest == channel.highest:
                yield Finding(
                    "error",
                    "constant image",
                    case.name,
                    f"{channel.name}: every voxel is {channel.lowest:g}",
                    "an image",
                    "copy it again from its origin, or leave it out",
                )


@CHECKS.register("copied channel")
def copied(data: DataFacts) -> Iterator[Finding]:
    """Channels that repeat another one: grey saved as colour, or a file taken twice."""
    copies = [
        (case.name, channel)
        for case, image in _images(data)
        for channel in image.channels
        if channel.copy_of
    ]
    cases = list(dict.fromkeys(name for name, _ in copies))
    if not cases:
        return
    names = {channel.name.lower() for _, image in _images(data) for channel in image.channels}
    if names <= {"red", "green", "blue"}:
        yield Finding(
            "note", "copied channel", "",
            f"{plural(len(cases), 'image')} of {len(list(_images(data)))} are grey, saved as "
            f"colour",
            "", "none needed",
        )  # fmt: skip
        return
    for name, channel in copies:
        yield Finding(
            "warning", "copied channel", name,
            f"{channel.name} is the same image as {channel.copy_of}", "another image",
            "copy the true channel again from its origin",
        )  # fmt: skip


@CHECKS.register("bit depth")
def bit_depth(data: DataFacts) -> Iterator[Finding]:
    """Cases of another type than most: 8 beside 16 bits, or whole beside decimal numbers."""
    types = {case.name: image.dtype for case, image in _images(data)}
    counts = Counter(types.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    whole = {np.dtype(name).itemsize for name in counts if np.dtype(name).kind in "iu"}
    if 1 in whole and len(whole) > 1:
        for name, dtype in types.items():
            if dtype != usual:
                yield Finding(
                    "warning", "bit depth", name, f"stored as {dtype}", f"{usual}, as most",
                    "export it again in full depth; 8 bits have lost what 16 had",
                )  # fmt: skip
        return
    listed_types = ", ".join(f"{n} as {dtype}" for dtype, n in counts.most_common())
    yield Finding("note", "bit depth", "", f"images of several types: {listed_types}",
                  "", "none needed where their values mean the same")  # fmt: skip


@CHECKS.register("intensity outlier")
def outlier(data: DataFacts) -> Iterator[Finding]:
    """Cases on a scale of their own: hundreds where all others have thousands."""
    names = [channel.name for _, image in _images(data) for channel in image.channels]
    for channel in dict.fromkeys(names):
        ranges = {
            case.name: one.percentiles[2] - one.percentiles[0]
            for case, image in _images(data)
            for one in image.channels
            if one.name == channel and not one.copy_of and one.highest > one.lowest
        }
        ranges = {name: width for name, width in ranges.items() if width > 0}
        if len(ranges) < 6:
            continue
        scale = np.log(list(ranges.values()))
        near = (np.abs(scale[:, None] - scale) < np.log(FACTOR)).sum(axis=1)
        usual = float(np.exp(np.median(scale)))
        for (name, width), company in zip(ranges.items(), near, strict=True):
            if company <= max(1, ALONE * len(ranges)):
                yield Finding(
                    "warning",
                    "intensity outlier",
                    name,
                    f"{channel}: its values span {width:.4g} (1st to 99th percentile)",
                    f"about {usual:.4g}, as in the others",
                    "look at it: another device, unit or rescaling; a normalisation of each image "
                    "(percentile, zscore) evens it out",
                )


@CHECKS.register("saturated")
def saturated(data: DataFacts) -> Iterator[Finding]:
    """Images whose brightest parts were cut off, where the others' were not."""
    tops = {
        case.name: min(channel.at_top for channel in image.channels)
        for case, image in _images(data)
        if all(channel.highest > channel.lowest for channel in image.channels)
    }
    if len(tops) < 4:
        return
    usual = float(np.median(list(tops.values())))
    for name, share in tops.items():
        if share > max(SATURATED, 10 * usual):
            yield Finding(
                "warning", "saturated", name, f"{share:.0%} of its voxels have the largest value",
                f"about {usual:.2%}, as in the others",
                "export it again without stretching the contrast",
            )  # fmt: skip


def _contrasts(data: DataFacts) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Return each structure with its contrast (0 is none) in the channel that shows it best.

    Coloured and grey images are compared among themselves.
    """
    for name in data.labels.structures:
        for grey in (True, False):
            found = {
                case.name: case.labels.structures[name].contrasts
                for case, image in _images(data)
                if case.labels is not None
                and np.isfinite(case.labels.structures[name].contrasts).all()
                and case.labels.structures[name].contrasts
                and any(channel.copy_of for channel in image.channels) is grey
            }
            if found:
                contrasts = np.array(list(found.values())) - 0.5
                best = int(np.argmax(np.median(np.abs(contrasts), axis=0)))
                yield name, dict(zip(found, contrasts[:, best].tolist(), strict=True))


@CHECKS.register("inverted")
def inverted(data: DataFacts) -> Iterator[Finding]:
    """Images in which a structure is dark that is bright in the others, or the other way round."""
    for structure, contrasts in _contrasts(data):
        usual = float(np.median(list(contrasts.values())))
        if abs(usual) < VISIBLE:
            continue
        flagged = [n for n, c in contrasts.items() if c * usual < 0 and abs(c) > abs(usual) / 3]
        if few(flagged, len(contrasts)):
            for name in flagged:
                yield Finding(
                    "warning",
                    "inverted",
                    name,
                    f"{structure} is {_side(contrasts[name])} than what is beside it",
                    f"{_side(usual)}, as in the others",
                    "invert the grey values, if the image was exported as a negative; if not, the "
                    "labels may be of another image",
                )


def _side(contrast: float) -> str:
    return "brighter" if contrast > 0 else "darker"


@CHECKS.register("labels off the image")
def misplaced(data: DataFacts) -> Iterator[Finding]:
    """Labels that follow nothing in their image: of another case, shifted or turned."""
    for structure, contrasts in _contrasts(data):
        strength = {name: abs(contrast) for name, contrast in contrasts.items()}
        usual = float(np.median(list(strength.values())))
        flagged = [name for name, one in strength.items() if one < usual / 3]
        if usual >= CLEAR and few(flagged, len(strength)):
            for name in flagged:
                yield Finding(
                    "warning",
                    "labels off the image",
                    name,
                    f"{structure} is hardly brighter or darker than what is beside it "
                    f"({0.5 + contrasts[name]:.2f}; 0.5 is no contrast)",
                    f"about {0.5 + np.sign(contrasts[name]) * usual:.2f}, as in the others",
                    "look at the picture: the labels may be of another image, shifted or turned",
                )
