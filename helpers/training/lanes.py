"""Compiled loops for narrow convolutional networks on the CPU; see `narrow`.

PyTorch's kernels compute the feature maps of a pixel in the lanes of a SIMD register. A
network with three maps leaves most lanes empty. Here, the lanes hold images: the images of
a minibatch are stored in groups of eight with the image as the last index, so that a row of
W columns is a vector of 8 W numbers. A tap of a kernel is then a shift of such a row, and an
output row is a weighted sum of shifted input rows, for every kernel size and stride.

A strided convolution needs every second column. Therefore, a row can have two `phases`: the
even columns, then the odd ones. Max-pooling is then a maximum of whole rows, too.

Between two stages, only `z` is stored, the output of the convolution. The next stage
normalizes, activates and pools it while it copies the rows into planes with a border of
zeros, in the forward pass and again in the backward pass.
"""

from typing import NamedTuple

import llvmlite.binding
import numba
import numpy as np

LANES = 8, 16  # sizes of a full group of images
MAPS, TAPS = 4, 4  # at most so many are combined in the innermost loops
FASTMATH = {"reassoc", "contract", "nsz"}  # NaN and infinity stay what they are
f32 = np.float32

_features = llvmlite.binding.get_host_cpu_features()
if numba.config.CPU_FEATURES is None and _features.get("avx512f"):
    numba.config.CPU_FEATURES = f"{_features.flatten()},-prefer-256-bit"
# Without reference counts (_nrt), which would cost a fifth of the time: no function
# allocates or returns an array.
_jit = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH, _nrt=False
)


class Format(NamedTuple):
    """The rows of a group of images: maps x height x phases x slots x lanes.

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
    top: int
    left: int


class Output(NamedTuple):
    """How a stage's output y is computed from its z.

    conv  the convolution's output
    y     the format of y and of z, which is the convolution's output or, with max-pooling,
          the value in each window that makes the maximum
    is_image  z and y are the chain's input (images, maps, H, W); nothing else applies
    act   0: leaky ReLU with `slope`, 1: sigmoid, 2: tanh
    coef  (6, maps) float32: y = f(coef[0] z + coef[1]); the mean of z and 1 / its deviation;
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


def _unrolled() -> str:
    """Return the source of the innermost loops: `add`, `dot`, `to_lanes`, `from_lanes`."""
    source = []
    arguments = "(out, pitch, x, shift, weight, o, j, n, lanes)"
    pairs = [(maps + 1, taps + 1) for maps in range(MAPS) for taps in range(TAPS)]
    for maps, taps in pairs:
        M, T = range(maps), range(taps)
        rows = [f"    x{t} = x[shift[j + {t}] * lanes :]" for t in T]
        rows += [f"    y{m} = out[{m} * pitch :]" for m in M]
        loop = ["    for i in range(n):", *[f"        v{t} = x{t}[i]" for t in T]]
        source += [f"def add{maps}{taps}{arguments}:", *rows]
        source += [f"    w{m}{t} = weight[j + {t}, o + {m}]" for m in M for t in T]
        sums = [" + ".join(f"w{m}{t} * v{t}" for t in T) for m in M]
        source += [*loop, *[f"        y{m}[i] += {sums[m]}" for m in M]]
        source += [f"def dot{maps}{taps}{arguments}:", *rows]
        source += [f"    s{m}{t} = f32(0)" for m in M for t in T]
        source += [*loop, *[f"        s{m}{t} += y{m}[i] * v{t}" for m in M for t in T]]
        source += [f"    weight[j + {t}, o + {m}] += s{m}{t}" for m in M for t in T]
    for name in ("add", "dot"):
        source.append(f"def {name}(maps, taps, {arguments[1:]}:")
        for maps, taps in pairs:
            source.append(f"    if maps == {maps} and taps == {taps}:")
            source.append(f"        {name}{maps}{taps}{arguments}")
    for lanes in LANES:
        K = range(lanes)
        for name, form in (
            ("to", "row[{0} * i + {1}] = x{1}[{2}i]"),
            ("from", "x{1}[{2}i] = row[{0} * i + {1}]"),
        ):
            source.append(f"def {name}_lanes_{lanes}(row, x, size, step, n):")
            source += [f"    x{k} = x[{k} * size :]" for k in K]
            for step, times in ((1, ""), (2, "2 * ")):
                source += [f"    if step == {step}:", "        for i in range(n):"]
                source += [f"            {form.format(lanes, k, times)}" for k in K]
        source += [f"def copy_slots_{lanes}(to, row, step_to, step, n):", "    p = q = 0"]
        source += ["    for i in range(n):", "        u, v = to[p:], row[q:]"]
        source += [f"        u[{k}] = v[{k}]" for k in K]
        source += ["        p += step_to", "        q += step"]
    return "\n".join(source)


def _compile(source: str) -> dict:
    """Return the functions of a source, to be compiled when they are first called."""
    scope = {"f32": f32, "__name__": __name__}
    exec(compile(source, __file__, "exec"), scope)  # numba's cache depends on this file
    for name in [name for name, value in scope.items() if hasattr(value, "__code__")]:
        scope[name] = _jit(scope[name])
    return scope


_loops = _compile(_unrolled())
_add, _dot = _loops["add"], _loops["dot"]
_to_8, _from_8, _copy_8 = (_loops[f"{n}_8"] for n in ("to_lanes", "from_lanes", "copy_slots"))
_to_16, _from_16, _copy_16 = (
    _loops[f"{n}_16"] for n in ("to_lanes", "from_lanes", "copy_slots")
)


@_jit
def _for_all_taps(use_dot, out, pitch, x, taps, weight, a, n, lanes):
    """Add the weighted rows of phase `a` to the rows of all maps; or add their dot products
    to `weight`."""
    start, taps_here = taps.start[a], taps.start[a + 1] - taps.start[a]
    maps = weight.shape[1]
    blocks, chunks = (maps + MAPS - 1) // MAPS, (taps_here + TAPS - 1) // TAPS
    for b in range(blocks):
        o, end = maps * b // blocks, maps * (b + 1) // blocks
        rows = out[o * pitch :]
        for c in range(chunks):
            j, stop = taps_here * c // chunks, taps_here * (c + 1) // chunks
            if use_dot:
                _dot(end - o, stop - j, rows, pitch, x, taps.shift, weight, o, start + j, n, lanes)
            else:
                _add(end - o, stop - j, rows, pitch, x, taps.shift, weight, o, start + j, n, lanes)


@_jit
def _row(f, c, y, q, lanes):
    """Return where a row begins in a group."""
    return ((c * f.height + y) * f.phases + q) * f.slots * lanes


@_jit
def _columns(f, q):
    """Return the number of columns in phase q."""
    return (f.width - q + f.phases - 1) // f.phases


@_jit
def _begin(f, image):
    """Return where the group that begins with this image begins."""
    return image * f.maps * f.height * f.phases * f.slots


@_jit
def plane_size(p):
    """Return the number of values in an image's planes, with a spare row."""
    return (p.maps * p.rows + 1) * p.phases * p.slots


@_jit
def _slot(phases, slots, x):
    """Return the slot of column x, counted from the beginning of the row."""
    return x % phases * slots + x // phases


@_jit
def _place(to, phases_to, slots_to, left, row, phases, q, n, lanes):
    """Copy phase q of a row to a row with other phases, `left` columns to the right."""
    more, fewer = max(phases_to // phases, 1), max(phases // phases_to, 1)
    if more == fewer:
        first = _slot(phases_to, slots_to, q + left) * lanes
        for i in range(n * lanes):
            to[first + i] = row[i]
        return
    for r in range(more):
        first = _slot(phases_to, slots_to, phases * r + q + left) * lanes
        count = (n - r + more - 1) // more
        there, here = to[first:], row[r * lanes :]
        if lanes == 8:
            _copy_8(there, here, fewer * lanes, more * lanes, count)
        elif lanes == 16:
            _copy_16(there, here, fewer * lanes, more * lanes, count)
        else:
            for i in range(count):
                for k in range(lanes):
                    there[i * fewer * lanes + k] = here[i * more * lanes + k]


@_jit
def _to_lanes(row, x, size, step, n, lanes):
    """row[i lanes + k] = x[k size + i step]."""
    if lanes == 8:
        _to_8(row, x, size, step, n)
    elif lanes == 16:
        _to_16(row, x, size, step, n)
    else:
        for k in range(lanes):
            for i in range(n):
                row[i * lanes + k] = x[k * size + i * step]


@_jit
def _from_lanes(row, x, size, step, n, lanes):
    """x[k size + i step] = row[i lanes + k]."""
    if lanes == 8:
        _from_8(row, x, size, step, n)
    elif lanes == 16:
        _from_16(row, x, size, step, n)
    else:
        for k in range(lanes):
            for i in range(n):
                x[k * size + i * step] = row[i * lanes + k]


@_jit
def _sigmoid(x):
    """Return 1 / (1 + exp(-x)); the exponential as in Cephes (Moshier, 1992)."""
    x = min(max(-x, f32(-87)), f32(88)) if x == x else x
    n = np.floor(x * f32(1.44269504) + f32(0.5))
    r = x - n * f32(0.693359375) + n * f32(2.12194440e-4)
    e = f32(1.9875691500e-4) * r + f32(1.3981999507e-3)
    e = (e * r + f32(8.3334519073e-3)) * r + f32(4.1665795894e-2)
    e = (e * r + f32(1.6666665459e-1)) * r + f32(0.5)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return f32(1) / (f32(1) + (e * r * r + r + f32(1)) * power)


@_jit
def _activate(y, z, s, t, act, slope, n):
    """y = f(s z + t); see `Output`."""
    k = f32(act)
    if act == 0:
        for i in range(n):
            a = s * z[i] + t
            y[i] = a * slope if a <= 0 else a
    else:
        for i in range(n):
            y[i] = k * _sigmoid(k * (s * z[i] + t)) - (k - f32(1))


@_jit
def _activate_back(v, dy, z, s, t, act, slope, n):
    """v = dy f'(s z + t)."""
    k = f32(act)
    if act == 0:
        for i in range(n):
            v[i] = dy[i] * slope if s * z[i] + t <= 0 else dy[i]
    else:
        for i in range(n):
            y = _sigmoid(k * (s * z[i] + t))
            v[i] = dy[i] * k * k * y * (f32(1) - y)


@_jit
def _clear_border(x, p, height, lanes):
    """Fill the rows above and below the images with zeros."""
    width = p.phases * p.slots * lanes
    for c in range(p.maps):
        begin, end = c * p.rows * width, (c + 1) * p.rows * width
        x[begin : begin + p.top * width] = 0
        x[begin + (p.top + height) * width : end] = 0


@_jit
def _fill(x, filled, y_out, taps, z, out, line, lanes):
    """Copy those rows of the previous stage's y to planes that output row y_out needs.

    Returns the number of rows that are filled now. They are used soon, so they are still in
    the cache.
    """
    p, f, coef, slope = taps.planes, out.y, out.coef, f32(out.slope)
    needed = y_out // taps.every * (taps.step // (p.phases * p.slots)) + taps.reach
    needed, width = min(needed, f.height), p.phases * p.slots * lanes
    for y in range(filled, needed):
        for c in range(f.maps):
            to = x[(c * p.rows + y + p.top) * width :]
            to[:width] = 0
            for q in range(f.phases):
                n, row = _columns(f, q), z[_row(f, c, y, q, lanes) :]
                if out.is_image:
                    images = z[(c * f.height + y) * f.width :]
                    _to_lanes(line, images, f.maps * f.height * f.width, 1, n, lanes)
                    _place(to, p.phases, p.slots, p.left, line, 1, 0, n, lanes)
                elif p.phases == f.phases:
                    there = to[_slot(p.phases, p.slots, q + p.left) * lanes :]
                    _activate(there, row, coef[0, c], coef[1, c], out.act, slope, n * lanes)
                else:
                    _activate(line, row, coef[0, c], coef[1, c], out.act, slope, n * lanes)
                    _place(to, p.phases, p.slots, p.left, line, f.phases, q, n, lanes)
    return max(filled, needed)


@_jit
def _moments(stats, count, z, n):
    """Update a mean and a sum of squared distances from it (Chan et al., 1983)."""
    total, squares = f32(0), f32(0)
    for i in range(n):
        total += z[i]
    mean = total / f32(n)
    for i in range(n):
        squares += (z[i] - mean) * (z[i] - mean)
    delta = mean - stats[0]
    stats[0] += delta * n / (count + n)
    stats[1] += squares + delta * delta * count * n / (count + n)


@_jit
def normalize(coef, stats, counts, gamma, beta, eps, mean, var, step):
    """Prepare BatchNorm in `coef`, from groups' moments or, without any, from running ones.

    counts   values per map in each group
    step     by which the running mean and variance move towards the minibatch's
    """
    total = counts.sum()
    for c in range(coef.shape[1]):
        if counts.size:
            m = squares = 0.0
            for g in range(counts.size):
                m += counts[g] / total * stats[g, c, 0]
            for g in range(counts.size):
                squares += stats[g, c, 1] + counts[g] * (stats[g, c, 0] - m) ** 2
            v = squares / total
            if step > 0:
                mean[c] += step * (m - mean[c])
                var[c] += step * (squares / (total - 1) - var[c])
        else:
            m, v = np.float64(mean[c]), np.float64(var[c])
        r = 1 / np.sqrt(v + eps)
        coef[0, c], coef[1, c], coef[2, c], coef[3, c] = gamma[c] * r, beta[c] - m * gamma[c] * r, m, r


@_jit
def start(z, x, f, num_images, group, scratch, lo, hi):
    """Store images (N, maps, H, W), flat, as rows of format f."""
    size = f.maps * f.height * f.width
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        rows = z[_begin(f, first) :]
        for c in range(f.maps):
            for y in range(f.height):
                images = x[first * size + (c * f.height + y) * f.width :]
                for q in range(f.phases):
                    to = rows[_row(f, c, y, q, lanes) :]
                    _to_lanes(to, images[q:], size, f.phases, _columns(f, q), lanes)


@_jit
def finish(images, z, out, num_images, group, line, lo, hi):
    """Store y of a stage in images (N, maps, H, W), flat."""
    f, coef, slope = out.y, out.coef, f32(out.slope)
    size = f.maps * f.height * f.width
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        rows = z[_begin(f, first) :]
        for c in range(f.maps):
            for y in range(f.height):
                to = images[first * size + (c * f.height + y) * f.width :]
                for q in range(f.phases):
                    n, row = _columns(f, q), rows[_row(f, c, y, q, lanes) :]
                    _activate(line, row, coef[0, c], coef[1, c], out.act, slope, n * lanes)
                    _from_lanes(line, to[q:], size, f.phases, n, lanes)


@_jit
def _pool(best, won, z, size, sign, n):
    """Max-pooling of sign z: each window's z and which of its four values that is."""
    z1, z2, z3 = z[size:], z[2 * size :], z[3 * size :]
    for i in range(n):
        a, b, d, e = sign * z[i], sign * z1[i], sign * z2[i], sign * z3[i]
        is_a, is_d = (a >= b) | (a != a), (d >= e) | (d != d)  # NaN wins
        ab, de = a if is_a else b, d if is_d else e
        is_ab = (ab >= de) | (ab != ab)
        first, second = z[i] if is_a else z1[i], z2[i] if is_d else z3[i]
        best[i] = first if is_ab else second
        one, two = np.uint8(0) if is_a else np.uint8(1), np.uint8(2) if is_d else np.uint8(3)
        won[i] = one if is_ab else two


@_jit
def forward(z, won, stats, z_in, before, taps, bias, out, signs, num_images, group, scratch, lo, hi):
    """Compute z and, for max-pooling, `won` of a stage; see `Output`.

    stats  (groups, maps, 2): each group's moments of the convolution's output
    signs  (maps,): those of BatchNorm's weights, since a negative one turns max into min
    """
    x, line = scratch[: plane_size(taps.planes) * group], scratch[plane_size(taps.planes) * group :]
    f, size = out.conv, out.conv.slots * group
    d = line[before.y.slots * group :]
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        _clear_border(x, taps.planes, before.y.height, lanes)
        rows_in, filled = z_in[_begin(before.y, first) :], 0
        begin, count = _begin(out.y, first), 0
        for y in range(f.height):
            filled = _fill(x, filled, y, taps, rows_in, before, line, lanes)
            here = x[y // taps.every * taps.step * lanes :]
            for q in range(f.phases):
                a, n = y % taps.every * f.phases + q, _columns(f, q) * lanes
                if out.pool:
                    to, pitch = d[(2 * (y % 2) + q) * size :], 4 * size
                else:
                    to, pitch = z[begin + _row(f, 0, y, q, lanes) :], _row(f, 1, 0, 0, lanes)
                for c in range(f.maps):
                    to[c * pitch : c * pitch + n] = bias[c]
                _for_all_taps(False, to, pitch, here, taps, taps.weight, a, n, lanes)
                if stats.size:
                    for c in range(f.maps):
                        _moments(stats[g, c], count, to[c * pitch :], n)
                count += n
            for c in range(f.maps if out.pool and y % 2 else 0):
                at = begin + _row(out.y, c, y // 2, 0, lanes)
                _pool(z[at:], won[at:], d[4 * c * size :], size, signs[c], out.y.width * lanes)


@_jit
def _add_sums(sums, dy, z, out, c, y, v, lanes):
    """Add the sums of v and of v (z - mean) over a row; see `Output`."""
    s, t, mean = out.coef[0, c], out.coef[1, c], out.coef[2, c]
    first = second = f32(0)
    for q in range(out.y.phases):
        n, at = _columns(out.y, q) * lanes, _row(out.y, c, y, q, lanes)
        row = z[at:]
        _activate_back(v, dy[at:], row, s, t, out.act, f32(out.slope), n)
        for i in range(n):
            first += v[i]
            second += v[i] * (row[i] - mean)
    sums[0] += first
    sums[1] += second


@_jit
def norm_sums(sums, dy, z, out, num_images, group, scratch, lo, hi):
    """Add the sums (groups, maps, 2) that the gradient of BatchNorm needs."""
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        for c in range(out.y.maps):
            for y in range(out.y.height):
                begin = _begin(out.y, first)
                _add_sums(sums[g, c], dy[begin:], z[begin:], out, c, y, scratch, lanes)


@_jit
def _gradient_row(d, v, dy, z, won, out, c, y, q, lanes):
    """d = gradient of a row of the convolution's output, which d contains if pooled.

    v is kept for the other rows of a window.
    """
    n, s, t, slope = _columns(out.conv, q) * lanes, out.coef[0, c], out.coef[1, c], f32(out.slope)
    mean, a, b = out.coef[2, c], out.coef[4, c], out.coef[5, c]
    if not out.pool:
        at = _row(out.y, c, y, q, lanes)
        row = z[at:]
        _activate_back(v, dy[at:], row, s, t, out.act, slope, n)
        for i in range(n):
            d[i] = s * v[i] + a * (row[i] - mean) + b
        return
    at, here, width = _row(out.y, c, y // 2, 0, lanes), np.uint8(2 * (y % 2) + q), 0
    if y // 2 < out.y.height:  # else in no window
        width = out.y.width * lanes
        if here == 0:
            _activate_back(v, dy[at:], z[at:], s, t, out.act, slope, width)
    is_won = won[at:]
    for i in range(width):
        d[i] = (s * v[i] if is_won[i] == here else f32(0)) + a * (d[i] - mean) + b
    for i in range(width, n):
        d[i] = a * (d[i] - mean) + b


@_jit
def _loss_row(d, target, act, slope, factor, n):
    """With z in d, let d = factor (y - target) f'; return the sum of (y - target)^2."""
    total, k = f32(0), f32(act)
    if act == 0:
        for i in range(n):
            slope_here = slope if d[i] <= 0 else f32(1)
            e = d[i] * slope_here - target[i]
            total += e * e
            d[i] = factor * e * slope_here
    else:
        for i in range(n):
            y = _sigmoid(k * d[i])
            e = k * y - (k - f32(1)) - target[i]
            total += e * e
            d[i] = factor * e * k * k * y * (f32(1) - y)
    return total


@_jit
def backward(dw, db, dy_in, sums_in, loss, z_in, before, z, won, dy, target, out, taps, bias,
             back, factor, wants, num_images, group, scratch, lo, hi):  # fmt: skip
    """Compute each group's gradients of a stage.

    dw, db   (groups, taps, maps) and (groups, maps): of the weights and the bias
    dy_in    the gradient of the previous stage's y
    sums_in  see `norm_sums`, for the previous stage
    target   if not empty, z is computed, dy is the gradient of the mean squared error, and
             loss (groups,) gets the sum of squared errors
    wants    whether the gradients of weights, bias and input are wanted
    """
    p, pb, f, f_in = taps.planes, back.planes, out.conv, before.y
    size = max(f.slots, p.slots, f_in.slots) * group
    x, dz = scratch[: plane_size(p) * group], scratch[plane_size(p) * group : plane_size(p) * group + plane_size(pb) * group]
    v = scratch[plane_size(p) * group + plane_size(pb) * group :]
    line, d_in = v[f.maps * size :], v[(f.maps + 1) * size :]
    again = target.size > 0 or out.pool  # the convolution's output is computed again
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        rows_in, begin = z_in[_begin(f_in, first) :], _begin(out.y, first)
        _clear_border(x, p, f_in.height, lanes)
        _clear_border(dz, pb, f.height, lanes)
        filled, width = 0, pb.phases * pb.slots * lanes
        for y in range(f.height):
            if wants[0] or again:
                filled = _fill(x, filled, y, taps, rows_in, before, line, lanes)
            here = x[y // taps.every * taps.step * lanes :]
            top = y + pb.top if wants[2] else 0  # the same row again stays in the cache
            for c in range(f.maps):
                dz[(c * pb.rows + top) * width : (c * pb.rows + top + 1) * width] = 0
            for q in range(f.phases):
                a, n = y % taps.every * f.phases + q, _columns(f, q) * lanes
                d = dz[top * width + _slot(pb.phases, pb.slots, q + pb.left) * lanes :]
                pitch = pb.rows * width
                if again:
                    for c in range(f.maps):
                        d[c * pitch : c * pitch + n] = bias[c]
                    _for_all_taps(False, d, pitch, here, taps, taps.weight, a, n, lanes)
                for c in range(f.maps):
                    row = d[c * pitch :]
                    if target.size:
                        area = f.height * f.width
                        images = target[(first * f.maps + c) * area + y * f.width + q :]
                        _to_lanes(line, images, f.maps * area, f.phases, n // lanes, lanes)
                        loss[g] += _loss_row(row, line, out.act, f32(out.slope), factor, n)
                    else:
                        _gradient_row(row, v[c * size :], dy[begin:], z[begin:], won[begin:],
                                      out, c, y, q, lanes)  # fmt: skip
                    if wants[1]:
                        total = f32(0)
                        for i in range(n):
                            total += row[i]
                        db[g, c] += total
                if wants[0]:
                    _for_all_taps(True, d, pitch, here, taps, dw[g], a, n, lanes)
        for y in range(f_in.height if wants[2] else 0):
            here, gradients = dz[y // back.every * back.step * lanes :], dy_in[_begin(f_in, first) :]
            for q in range(p.phases):
                a, columns = y % back.every * p.phases + q, (f_in.width - q + p.phases - 1) // p.phases
                n = columns * lanes
                to, pitch = d_in, size
                if p.phases == f_in.phases:
                    to, pitch = gradients[_row(f_in, 0, y, q, lanes) :], _row(f_in, 1, 0, 0, lanes)
                for c in range(f_in.maps):
                    to[c * pitch : c * pitch + n] = 0
                _for_all_taps(False, to, pitch, here, back, back.weight, a, n, lanes)
                for c in range(f_in.maps if p.phases != f_in.phases else 0):
                    there = gradients[_row(f_in, c, y, 0, lanes) :]
                    _place(there, f_in.phases, f_in.slots, 0, to[c * pitch :], p.phases, q, columns, lanes)
            for c in range(f_in.maps if before.norm else 0):
                _add_sums(sums_in[g, c], gradients, rows_in, before, c, y, line, lanes)
