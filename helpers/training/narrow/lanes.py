"""Compiled loops over rows of images, with one image in each SIMD lane.

The images of a minibatch are stored in groups of 8 or 16, with the image as the last index,
so that a row of W columns is a vector of 8 W or 16 W numbers. A tap of a kernel is then a
shift of such a row, and each output row of a convolution is a weighted sum of shifted input
rows, for every kernel size and stride.

A stride of 2 needs every second column. Therefore, a row can be stored in two phases: the
even columns, then the odd ones. Max-pooling is then a maximum of whole rows, too.
"""

from typing import NamedTuple

import numpy as np

from helpers.training.narrow.compiling import jit

LANES = 8, 16  # sizes of a full group of images; the last one can have fewer
MAPS, TAPS = 4, 4  # at most so many are combined in the innermost loops
f32 = np.float32


class Format(NamedTuple):
    """The rows of an image: maps x height x phases x slots.

    Column x is in phase x % phases, in slot x // phases.
    """

    maps: int
    height: int
    width: int
    phases: int
    slots: int


class Planes(NamedTuple):
    """Rows with a border of zeros, from which a convolution reads."""

    maps: int
    rows: int
    phases: int
    slots: int
    border: int


class Output(NamedTuple):
    """How a stage's output y is computed from its z.

    conv      the convolution's output
    y         the format of y and of z: z is the convolution's output or, with max-pooling,
              the value in each window from which the maximum is computed
    is_image  z and y are the images themselves, (N, maps, H, W)
    act       0: leaky ReLU with `slope`, 1: sigmoid, 2: tanh
    coef      (6, maps) float32: y = f(coef[0] z + coef[1]); mean of z and 1 / deviation;
              the gradient of z is coef[0] v + coef[4] (z - mean) + coef[5], where v is the
              gradient of y, taken back through pooling and activation
    """

    conv: Format
    y: Format
    is_image: bool
    pool: bool
    norm: bool
    act: int
    slope: float
    coef: np.ndarray


class Taps(NamedTuple):
    """A convolution as weighted sums of shifted rows.

    Output row y in phase q is the sum over j in start[a] .. start[a + 1], with
    a = (y % every) phases + q, of weight[j] times the row at y // every * step + shift[j].
    It needs the first y // every * (rows in step) + reach input rows.
    """

    planes: Planes
    reach: int
    every: int
    step: int
    start: np.ndarray
    shift: np.ndarray
    weight: np.ndarray


def _source_of_taps() -> str:
    """Return the source of `add` and `dot`, unrolled over maps and taps."""
    source, arguments = [], "(out, pitch, x, shift, weight, o, j, n, lanes)"
    pairs = [(maps + 1, taps + 1) for maps in range(MAPS) for taps in range(TAPS)]
    for maps, taps in pairs:
        M, T = range(maps), range(taps)
        both = [(m, t) for m in M for t in T]
        rows = [f"    x{t} = x[shift[j + {t}] * lanes :]" for t in T]
        rows += [f"    y{m} = out[{m} * pitch :]" for m in M]
        loop = ["    for i in range(n):", *[f"        v{t} = x{t}[i]" for t in T]]
        sums = [" + ".join(f"w{m}{t} * v{t}" for t in T) for m in M]
        source += [f"def add{maps}{taps}{arguments}:", *rows]
        source += [f"    w{m}{t} = weight[j + {t}, o + {m}]" for m, t in both]
        source += [*loop, *[f"        y{m}[i] += {sums[m]}" for m in M]]
        source += [f"def dot{maps}{taps}{arguments}:", *rows]
        source += [f"    s{m}{t} = f32(0)" for m, t in both]
        source += [*loop, *[f"        s{m}{t} += y{m}[i] * v{t}" for m, t in both]]
        source += [f"    weight[j + {t}, o + {m}] += s{m}{t}" for m, t in both]
    for name in ("add", "dot"):
        source.append(f"def {name}(maps, taps, {arguments[1:]}:")
        for maps, taps in pairs:
            source.append(f"    if maps == {maps} and taps == {taps}:")
            source.append(f"        {name}{maps}{taps}{arguments}")
    return "\n".join(source)


def _source_of_lanes(lanes: int) -> str:
    """Return the source of `gather`, `scatter` and `move` for a full group."""
    source, K = [], range(lanes)
    forms = {"gather": "row[{0} * i + {1}] = x{1}[{2}i]"}
    forms["scatter"] = "x{1}[{2}i] = row[{0} * i + {1}]"
    for name, form in forms.items():
        source.append(f"def {name}{lanes}(row, x, size, step, n):")
        source += [f"    x{k} = x[{k} * size :]" for k in K]
        for step, times in ((1, ""), (2, "2 * ")):
            source += [f"    if step == {step}:", "        for i in range(n):"]
            source += [f"            {form.format(lanes, k, times)}" for k in K]
    source += [f"def move{lanes}(to, row, step_to, step, n):", "    p = q = 0"]
    source += ["    for i in range(n):", "        u, v = to[p:], row[q:]"]
    source += [f"        u[{k}] = v[{k}]" for k in K]
    source += ["        p += step_to", "        q += step"]
    return "\n".join(source)


def _compile(source: str) -> dict:
    """Return the functions of a source by name, to be compiled when they are called."""
    scope = {"f32": f32, "__name__": __name__}
    exec(compile(source, __file__, "exec"), scope)  # numba's cache depends on this file
    for name in [name for name in scope if name[0].islower() and name != "f32"]:
        scope[name] = jit(scope[name])
    return scope


_unrolled = _compile("\n".join([_source_of_taps(), *map(_source_of_lanes, LANES)]))
_add, _dot = _unrolled["add"], _unrolled["dot"]
_gather8, _gather16 = _unrolled["gather8"], _unrolled["gather16"]
_scatter8, _scatter16 = _unrolled["scatter8"], _unrolled["scatter16"]
_move8, _move16 = _unrolled["move8"], _unrolled["move16"]


@jit
def _for_all_taps(is_dot, out, pitch, x, taps, weight, a, n, lanes):
    begin, many, maps = taps.start[a], taps.start[a + 1], weight.shape[1]
    many -= begin
    blocks, chunks = (maps + MAPS - 1) // MAPS, (many + TAPS - 1) // TAPS
    for b in range(blocks):
        o, end = maps * b // blocks, maps * (b + 1) // blocks
        rows = out[o * pitch :]
        for c in range(chunks):
            j, stop = begin + many * c // chunks, begin + many * (c + 1) // chunks
            size, shift = (end - o, stop - j), taps.shift
            if is_dot:
                _dot(*size, rows, pitch, x, shift, weight, o, j, n, lanes)
            else:
                _add(*size, rows, pitch, x, shift, weight, o, j, n, lanes)


@jit
def add_taps(out, pitch, x, taps, a, n, lanes):
    """Add the weighted rows of phase `a` to a row of each map, `pitch` apart."""
    _for_all_taps(False, out, pitch, x, taps, taps.weight, a, n, lanes)


@jit
def dot_taps(out, pitch, x, taps, dw, a, n, lanes):
    """Add the dot products of these rows and the maps' rows to dw (taps, maps)."""
    _for_all_taps(True, out, pitch, x, taps, dw, a, n, lanes)


@jit
def row_at(f, c, y, q, lanes):
    """Return where a row begins in a group."""
    return ((c * f.height + y) * f.phases + q) * f.slots * lanes


@jit
def columns(f, q):
    """Return the number of columns in phase q."""
    return (f.width - q + f.phases - 1) // f.phases


@jit
def slot_of(phases, slots, x):
    """Return the slot of column x, counted from the beginning of the row."""
    return x % phases * slots + x // phases


@jit
def place(to, phases_to, slots_to, left, row, phases, q, n, lanes):
    """Copy phase q of a row to a row with other phases, `left` columns to the right."""
    more, fewer = max(phases_to // phases, 1), max(phases // phases_to, 1)
    for r in range(more):
        there = to[slot_of(phases_to, slots_to, phases * r + q + left) * lanes :]
        here, count = row[r * lanes :], (n - r + more - 1) // more
        if more == fewer:
            for i in range(n * lanes):
                there[i] = here[i]
        elif lanes == 8:
            _move8(there, here, fewer * lanes, more * lanes, count)
        elif lanes == 16:
            _move16(there, here, fewer * lanes, more * lanes, count)
        else:
            for i in range(count):
                for k in range(lanes):
                    there[i * fewer * lanes + k] = here[i * more * lanes + k]


@jit
def gather(row, images, size, step, n, lanes):
    """Let row[i lanes + k] = images[k size + i step]; step is 1 or 2."""
    if lanes == 8:
        _gather8(row, images, size, step, n)
    elif lanes == 16:
        _gather16(row, images, size, step, n)
    else:
        for k in range(lanes):
            for i in range(n):
                row[i * lanes + k] = images[k * size + i * step]


@jit
def scatter(row, images, size, step, n, lanes):
    """Let images[k size + i step] = row[i lanes + k]; step is 1 or 2."""
    if lanes == 8:
        _scatter8(row, images, size, step, n)
    elif lanes == 16:
        _scatter16(row, images, size, step, n)
    else:
        for k in range(lanes):
            for i in range(n):
                images[k * size + i * step] = row[i * lanes + k]


@jit
def _sigmoid(x):
    """Return 1 / (1 + exp(-x)); the exponential as in Cephes (Moshier, 1992)."""
    x = min(max(-x, f32(-87)), f32(88)) if x == x else x
    n = np.floor(x * f32(1.44269504) + f32(0.5))
    r = x - n * f32(0.693359375) + n * f32(2.12194440e-4)
    e = f32(1.9875691500e-4) * r + f32(1.3981999507e-3)
    e = (e * r + f32(8.3334519073e-3)) * r + f32(4.1665795894e-2)
    e = (e * r + f32(1.6666665459e-1)) * r + f32(0.5)
    bits = (np.int32(n) + np.int32(127)) << np.int32(23)
    return f32(1) / (
        f32(1) + (e * r * r + r + f32(1)) * np.int32(bits).view(np.float32)
    )


@jit
def _squash(x, k):
    """Return sigmoid(x) for k = 1, and tanh(x) = 2 sigmoid(2 x) - 1 for k = 2."""
    y = k * _sigmoid(k * x) - (k - f32(1))
    if k == 2:  # near 0, the difference would lose digits: Taylor series
        x2 = x * x
        series = f32(-1 / 3) + x2 * (f32(2 / 15) - x2 * f32(17 / 315))
        y = x + x * x2 * series if abs(x) < f32(0.2) else y
    return y


@jit
def activate(y, z, out, c, n):
    """Compute y = f(scale z + shift) for a row of map c; see `Output`."""
    s, t, k, slope = out.coef[0, c], out.coef[1, c], f32(out.act), f32(out.slope)
    if out.act == 0:
        for i in range(n):
            a = s * z[i] + t
            y[i] = a * slope if a <= 0 else a
    else:
        for i in range(n):
            y[i] = _squash(s * z[i] + t, k)


@jit
def activate_back(v, dy, z, out, c, n):
    """Compute v = dy f'(scale z + shift) for a row of map c."""
    s, t, k, slope = out.coef[0, c], out.coef[1, c], f32(out.act), f32(out.slope)
    if out.act == 0:
        for i in range(n):
            v[i] = dy[i] * slope if s * z[i] + t <= 0 else dy[i]
    else:
        for i in range(n):
            y = _sigmoid(k * (s * z[i] + t))
            v[i] = dy[i] * k * k * y * (f32(1) - y)


@jit
def squared_error(d, target, out, factor, n):
    """With z in d, let d = factor (y - target) f'; return the sum of (y - target)^2."""
    total, k, slope = f32(0), f32(out.act), f32(out.slope)
    if out.act == 0:
        for i in range(n):
            derivative = slope if d[i] <= 0 else f32(1)
            e = d[i] * derivative - target[i]
            total += e * e
            d[i] = factor * e * derivative
    else:
        for i in range(n):
            y = _sigmoid(k * d[i])
            e = _squash(d[i], k) - target[i]
            total += e * e
            d[i] = factor * e * k * k * y * (f32(1) - y)
    return total


@jit
def pool(best, won, z, size, sign, n):
    """Max-pooling of sign z: each window's z and which of its four values that is."""
    z1, z2, z3 = z[size:], z[2 * size :], z[3 * size :]
    zero, one, two, three = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)
    for i in range(n):
        a, b, d, e = sign * z[i], sign * z1[i], sign * z2[i], sign * z3[i]
        is_a, is_d = (a >= b) | (a != a), (d >= e) | (d != d)  # NaN wins
        ab, de = a if is_a else b, d if is_d else e
        is_ab = (ab >= de) | (ab != ab)
        first, second = z[i] if is_a else z1[i], z2[i] if is_d else z3[i]
        best[i] = first if is_ab else second
        u, v = zero if is_a else one, two if is_d else three
        won[i] = u if is_ab else v


@jit
def moments(stats, count, z, n):
    """Update a mean and a sum of squared distances from it (Chan et al., 1983)."""
    total = squares = f32(0)
    for i in range(n):
        total += z[i]
    mean = total / f32(n)
    for i in range(n):
        squares += (z[i] - mean) * (z[i] - mean)
    delta = mean - stats[0]
    stats[0] += delta * n / (count + n)
    stats[1] += squares + delta * delta * count * n / (count + n)
