"""The GPU kernels of MS-D; import them where triton is installed.

Planes lie one behind the other, (planes, batch, z, y, x); 2D is one slice. A program does one block
of voxels of one image. Sums are float32; ``PRECISION`` is that of ``tl.dot``.
"""

# Triton's functions have no types, and its constants are capitals.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: N803

import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

# What differs from map to map. Were kernels compiled apart for 1, multiples of 16 and others, as
# triton does unasked, a network of 100 layers would compile 46 instead of 9.
_VARIES = ["onto", "first", "sources", "count", "deltas", "dz", "dy", "dx"]


@triton.jit
def _mirrored(q, n, reflect: tl.constexpr):
    """Return where a voxel beyond the edge is found, and whether it is anywhere."""
    if reflect:
        q = tl.abs(q)
        q = tl.where(q > n - 1, 2 * (n - 1) - q, q)
    return q, (q >= 0) & (q < n)


@triton.jit
def _met(q, n, d, way):
    """Return a voxel whose kernel meets ``q``, its tap there, and whether there is one.

    Ways: 0, 1, 2 straight with the middle, first, last tap; 3, 4 by the mirror at either edge.
    """
    p = tl.where(way == 0, q, tl.where(way == 1, q + d, q - d))
    p = tl.where(way == 3, d - q, tl.where(way == 4, 2 * (n - 1) - q - d, p))
    ok = (p >= 0) & (p < n) & ((way != 3) | (q >= 1)) & ((way != 4) | (q <= n - 2))
    tap = tl.where(way == 0, 1, tl.where((way == 1) | (way == 3), 0, 2))
    return p, tap, ok


@triton.jit(do_not_specialize=_VARIES)
def take_one(
    planes, sums, weights, biases, onto, first, sources, batch, depth, height, width, dz, dy, dx,
    FLAT: tl.constexpr, REFLECT: tl.constexpr, FRESH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Finish one map: what it takes from planes [first, first + sources), and the ReLU."""
    n = tl.program_id(1).to(tl.int64)
    volume = depth * height * width
    at = tl.program_id(0) * P + tl.arange(0, P)
    valid = at < volume
    z, y, x = at // (height * width), at // width % height, at % width
    here = (onto * batch + n) * volume + at
    if FRESH:
        total = tl.zeros((P,), tl.float32) + tl.load(biases)
    else:
        total = tl.load(sums + here, mask=valid, other=0.0)
    taps: tl.constexpr = 9 if FLAT else 27
    for tap in range(taps):
        tz = 0 if FLAT else tap // 9 - 1
        qz, in_z = _mirrored(z + tz * dz, depth, REFLECT)
        qy, in_y = _mirrored(y + (tap // 3 % 3 - 1) * dy, height, REFLECT)
        qx, in_x = _mirrored(x + (tap % 3 - 1) * dx, width, REFLECT)
        there = (qz * height + qy) * width + qx
        read = valid & in_z & in_y & in_x
        for s in range(sources):
            value = tl.load(
                planes + ((first + s) * batch + n) * volume + there, mask=read, other=0.0
            )
            total += tl.load(weights + tap * sources + s) * value.to(tl.float32)
    total = tl.where(total < 0.0, 0.0, total)  # tl.maximum would hide a NaN
    tl.store(planes + here, total.to(planes.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=_VARIES)
def take_many(
    planes, sums, weights, biases, ontos, count, first, sources, batch, depth, height, width,
    dz, dy, dx, FLAT: tl.constexpr, REFLECT: tl.constexpr, FRESH: tl.constexpr,
    PRECISION: tl.constexpr, K: tl.constexpr, S: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Add to the sums of ``count`` maps of one dilation what they take from some planes."""
    n = tl.program_id(1).to(tl.int64)
    volume = depth * height * width
    at = tl.program_id(0) * P + tl.arange(0, P)
    valid = at < volume
    z, y, x = at // (height * width), at // width % height, at % width
    k, s = tl.arange(0, K), tl.arange(0, S)
    onto = tl.load(ontos + k, mask=k < count, other=0)
    here = ((onto * batch + n) * volume)[:, None] + at[None, :]
    own = (k < count)[:, None] & valid[None, :]
    if FRESH:
        bias = tl.load(biases + k, mask=k < count, other=0.0)
        total = tl.zeros((K, P), tl.float32) + bias[:, None]
    else:
        total = tl.load(sums + here, mask=own, other=0.0)
    taps: tl.constexpr = 9 if FLAT else 27
    for tap in range(taps):
        tz = 0 if FLAT else tap // 9 - 1
        qz, in_z = _mirrored(z + tz * dz, depth, REFLECT)
        qy, in_y = _mirrored(y + (tap // 3 % 3 - 1) * dy, height, REFLECT)
        qx, in_x = _mirrored(x + (tap % 3 - 1) * dx, width, REFLECT)
        there = (qz * height + qy) * width + qx
        read = valid & in_z & in_y & in_x
        for begin in range(0, sources, S):
            some = begin + s
            value = tl.load(
                planes + (((first + some) * batch + n) * volume)[:, None] + there[None, :],
                mask=(some < sources)[:, None] & read[None, :],
                other=0.0,
            )
            weight = tl.load(
                weights + (tap * count + k)[:, None] * sources + some[None, :],
                mask=(k < count)[:, None] & (some < sources)[None, :],
                other=0.0,
            )
            total += tl.dot(weight, value.to(tl.float32), input_precision=PRECISION)
    tl.store(sums + here, total, mask=own)


@triton.jit(do_not_specialize=_VARIES)
def give_many(
    slopes, weights, first, count, sources_at, sources, batch, depth, height, width, dz, dy, dx,
    FLAT: tl.constexpr, REFLECT: tl.constexpr, PRECISION: tl.constexpr, K: tl.constexpr,
    S: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Add to the slopes of ``count`` planes what the deltas of some maps give back."""
    n = tl.program_id(1).to(tl.int64)
    volume = depth * height * width
    at = tl.program_id(0) * P + tl.arange(0, P)
    valid = at < volume
    z, y, x = at // (height * width), at // width % height, at % width
    k, s = tl.arange(0, K), tl.arange(0, S)
    here = (((first + k) * batch + n) * volume)[:, None] + at[None, :]
    own = (k < count)[:, None] & valid[None, :]
    total = tl.load(slopes + here, mask=own, other=0.0)
    side: tl.constexpr = 5 if REFLECT else 3
    ways: tl.constexpr = side * side if FLAT else side * side * side
    for way in range(ways):
        pz, tap_z, in_z = _met(z, depth, dz, 0 if FLAT else way // (side * side))
        py, tap_y, in_y = _met(y, height, dy, way // side % side)
        px, tap_x, in_x = _met(x, width, dx, way % side)
        tap = tap_y * 3 + tap_x + (0 if FLAT else 1) * tap_z * 9
        read = valid & in_z & in_y & in_x
        if tl.max(read.to(tl.int32)) > 0:
            there = (pz * height + py) * width + px
            for begin in range(0, sources, S):
                some = begin + s
                source = tl.load(sources_at + some, mask=some < sources, other=0)
                value = tl.load(
                    slopes + ((source * batch + n) * volume)[:, None] + there[None, :],
                    mask=(some < sources)[:, None] & read[None, :],
                    other=0.0,
                )
                weight = tl.load(
                    weights + (tap * count + k)[:, None] * sources + some[None, :],
                    mask=(k < count)[:, None] & (some < sources)[None, :],
                    other=0.0,
                )
                total += tl.dot(weight, value, input_precision=PRECISION)
    tl.store(slopes + here, total, mask=own)


@triton.jit(do_not_specialize=_VARIES)
def correlate(
    planes, slopes, found, deltas_at, deltas, first, count, batch, depth, height, width, dz, dy,
    dx, FLAT: tl.constexpr, REFLECT: tl.constexpr, PRECISION: tl.constexpr, K: tl.constexpr,
    S: tl.constexpr, P: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write how the deltas of some maps meet ``count`` planes: (image and chunk, taps, K, S)."""
    tap, part, n = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    volume = depth * height * width
    k, s = tl.arange(0, K), tl.arange(0, S)
    delta_at = tl.load(deltas_at + k, mask=k < deltas, other=0)
    total = tl.zeros((K, S), tl.float32)
    for step in range(CHUNK):
        at = (part * CHUNK + step) * P + tl.arange(0, P)
        valid = at < volume
        z, y, x = at // (height * width), at // width % height, at % width
        tz = 0 if FLAT else tap // 9 - 1
        qz, in_z = _mirrored(z + tz * dz, depth, REFLECT)
        qy, in_y = _mirrored(y + (tap // 3 % 3 - 1) * dy, height, REFLECT)
        qx, in_x = _mirrored(x + (tap % 3 - 1) * dx, width, REFLECT)
        there = (qz * height + qy) * width + qx
        read = valid & in_z & in_y & in_x
        delta = tl.load(
            slopes + ((delta_at * batch + n) * volume)[:, None] + at[None, :],
            mask=(k < deltas)[:, None] & valid[None, :],
            other=0.0,
        )
        value = tl.load(
            planes + (((first + s) * batch + n) * volume)[None, :] + there[:, None],
            mask=(s < count)[None, :] & read[:, None],
            other=0.0,
        )
        total += tl.dot(delta, value.to(tl.float32), input_precision=PRECISION)
    parts = tl.num_programs(1)
    taps = tl.num_programs(0)
    row = ((n * parts + part) * taps + tap) * K * S
    tl.store(found + row + k[:, None] * S + s[None, :], total)
