"""Compiled forward and backward passes of a stage, for groups of images.

A stage is a convolution or transposed convolution, then BatchNorm, activation and 2x2
max-pooling. Between two stages, only `z` is stored: the output of the convolution or, with
pooling, the values that won. The next stage normalizes and activates it while it copies the
rows to planes with a border of zeros, in the forward pass and again in the backward pass.
"""

from typing import NamedTuple

import numpy as np

from helpers.training.narrow.compiling import jit
from helpers.training.narrow.lanes import (
    Output,
    Taps,
    activate,
    activate_back,
    add_taps,
    columns,
    dot_taps,
    f32,
    gather,
    moments,
    place,
    pool,
    row_at,
    scatter,
    slot_of,
    squared_error,
)


class Given(NamedTuple):
    """What the backward pass of a stage starts from.

    before, out  the outputs of the previous stage and of this one
    z_in, z      of both; won: which value of a window won; dy: the gradient of y
    target       if not empty, the truth (N, maps, H, W), flat: then z is computed, and dy
                 is the gradient of the mean squared error
    taps, back   of the convolution and of its gradient; bias (maps,)
    factor       2 / number of values in target
    needs        whether weights, bias and input need a gradient
    """

    before: Output
    out: Output
    z_in: np.ndarray
    z: np.ndarray
    won: np.ndarray
    dy: np.ndarray
    target: np.ndarray
    taps: Taps
    back: Taps
    bias: np.ndarray
    factor: float
    needs: tuple


class Found(NamedTuple):
    """What the backward pass computes, for each group.

    dw       (groups, taps, maps); db (groups, maps); loss (groups,): sum of squared errors
    dy_in    the gradient of the previous stage's y
    sums_in  (groups, maps, 2): sums of v and of v (z - mean) of the previous stage
    """

    dw: np.ndarray
    db: np.ndarray
    loss: np.ndarray
    dy_in: np.ndarray
    sums_in: np.ndarray


@jit
def plane_size(p):
    """Return the number of values in an image's planes, with a spare row."""
    return (p.maps * p.rows + 1) * p.phases * p.slots


@jit
def _begin(f, image):
    """Return where the group that begins with an image begins."""
    return image * f.maps * f.height * f.phases * f.slots


@jit
def _clear_border(x, p, height, lanes):
    """Fill the rows above and below the images with zeros."""
    width = p.phases * p.slots * lanes
    for c in range(p.maps):
        begin, end = c * p.rows * width, (c + 1) * p.rows * width
        x[begin : begin + p.border * width] = 0
        x[begin + (p.border + height) * width : end] = 0


@jit
def _fill(x, filled, y_out, taps, z, out, line, lanes):
    """Copy those rows of the previous stage's y to planes that output row y_out needs.

    Returns the number of rows that are filled now. They are used while they are still in
    the cache.
    """
    p, f = taps.planes, out.y
    width = p.phases * p.slots * lanes
    needed = y_out // taps.every * (taps.step * lanes // width) + taps.reach
    needed = min(needed, f.height)
    for y in range(filled, needed):
        for c in range(f.maps):
            to = x[(c * p.rows + y + p.border) * width :]
            to[:width] = 0
            for q in range(f.phases):
                n, row = columns(f, q), z[row_at(f, c, y, q, lanes) :]
                if out.is_image:
                    image = z[(c * f.height + y) * f.width :]
                    gather(line, image, f.maps * f.height * f.width, 1, n, lanes)
                    place(to, p.phases, p.slots, p.border, line, 1, 0, n, lanes)
                elif p.phases == f.phases:
                    there = to[slot_of(p.phases, p.slots, q + p.border) * lanes :]
                    activate(there, row, out, c, n * lanes)
                else:
                    activate(line, row, out, c, n * lanes)
                    place(to, p.phases, p.slots, p.border, line, f.phases, q, n, lanes)
    return max(filled, needed)


@jit
def forward(z, won, stats, z_in, before, taps, bias, out, signs,
            num_images, group, scratch, lo, hi):  # fmt: skip
    """Compute z and, for max-pooling, `won` of a stage.

    stats  (groups, maps, 2): each group's moments of the convolution's output
    signs  (maps,): those of BatchNorm's weights; a negative one turns the maximum of y into
           the minimum of z
    """
    size = plane_size(taps.planes) * group
    x, line = scratch[:size], scratch[size:]
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
                n = columns(f, q) * lanes
                to, pitch = d[(2 * (y % 2) + q) * size :], 4 * size
                if not out.pool:
                    to = z[begin + row_at(f, 0, y, q, lanes) :]
                    pitch = row_at(f, 1, 0, 0, lanes)
                for c in range(f.maps):
                    to[c * pitch : c * pitch + n] = bias[c]
                add_taps(to, pitch, here, taps, y % taps.every * f.phases + q, n, lanes)
                for c in range(f.maps if stats.size and n else 0):
                    moments(stats[g, c], count, to[c * pitch :], n)
                count += n
            for c in range(f.maps if out.pool and y % 2 else 0):
                at, n = begin + row_at(out.y, c, y // 2, 0, lanes), out.y.width * lanes
                pool(z[at:], won[at:], d[4 * c * size :], size, signs[c], n)


@jit
def normalize(coef, stats, counts, gamma, beta, eps, mean, var, step):
    """Prepare BatchNorm in `coef`, from groups' moments or, without any, from running ones.

    counts   values per map in each group
    step     by which the running mean and variance move towards the minibatch's
    """
    total = counts.sum()
    for c in range(coef.shape[1]):
        m, v, squares = np.float64(mean[c]), np.float64(var[c]), 0.0
        if counts.size:
            m = 0.0
            for g in range(counts.size):
                m += counts[g] / total * stats[g, c, 0]
            for g in range(counts.size):
                squares += stats[g, c, 1] + counts[g] * (stats[g, c, 0] - m) ** 2
            v = squares / total
        if step > 0:
            mean[c] += step * (m - mean[c])
            var[c] += step * (squares / (total - 1) - var[c])
        r = 1 / np.sqrt(v + eps)
        coef[0, c], coef[1, c] = gamma[c] * r, beta[c] - m * gamma[c] * r
        coef[2, c], coef[3, c] = m, r


@jit
def finish(images, z, out, num_images, group, line, lo, hi):
    """Store y of a stage in images (N, maps, H, W), flat."""
    f, size = out.y, out.y.maps * out.y.height * out.y.width
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        for c in range(f.maps):
            for y in range(f.height):
                to = images[first * size + (c * f.height + y) * f.width :]
                for q in range(f.phases):
                    n, at = columns(f, q), _begin(f, first) + row_at(f, c, y, q, lanes)
                    activate(line, z[at:], out, c, n * lanes)
                    scatter(line, to[q:], size, f.phases, n, lanes)


@jit
def start_back(dy, sums, images, z, out, num_images, group, line, lo, hi):
    """Store the gradient of y, images (N, maps, H, W), as rows; fill `sums_in`."""
    f, size = out.y, out.y.maps * out.y.height * out.y.width
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        begin = _begin(f, first)
        for c in range(f.maps):
            for y in range(f.height):
                image = images[first * size + (c * f.height + y) * f.width :]
                for q in range(f.phases):
                    to = dy[begin + row_at(f, c, y, q, lanes) :]
                    gather(to, image[q:], size, f.phases, columns(f, q), lanes)
                if out.norm:
                    _add_sums(sums[g, c], dy[begin:], z[begin:], out, c, y, line, lanes)


@jit
def _add_sums(sums, dy, z, out, c, y, v, lanes):
    """Add the sums of v and of v (z - mean) over a row; see `Output`."""
    mean, first, second = out.coef[2, c], f32(0), f32(0)
    for q in range(out.y.phases):
        n, at = columns(out.y, q) * lanes, row_at(out.y, c, y, q, lanes)
        row = z[at:]
        activate_back(v, dy[at:], row, out, c, n)
        for i in range(n):
            first += v[i]
            second += v[i] * (row[i] - mean)
    sums[0] += first
    sums[1] += second


@jit
def _gradient_row(d, v, dy, z, won, out, c, y, q, lanes):
    """Compute d, the gradient of a row of the convolution's output, from that if pooled.

    v is kept for the other rows of a window.
    """
    s, mean, a, b = out.coef[0, c], out.coef[2, c], out.coef[4, c], out.coef[5, c]
    n = columns(out.conv, q) * lanes
    if not out.pool:
        at = row_at(out.y, c, y, q, lanes)
        row = z[at:]
        activate_back(v, dy[at:], row, out, c, n)
        for i in range(n):
            d[i] = s * v[i] + a * (row[i] - mean) + b
        return
    at, here, width = row_at(out.y, c, y // 2, 0, lanes), np.uint8(2 * (y % 2) + q), 0
    if y // 2 < out.y.height:  # otherwise in no window
        width = out.y.width * lanes
        if here == 0:
            activate_back(v, dy[at:], z[at:], out, c, width)
    winner = won[at:]
    for i in range(width):
        mine = s * v[i] if winner[i] == here else f32(0)
        d[i] = mine + a * (d[i] - mean) + b
    for i in range(width, n):
        d[i] = a * (d[i] - mean) + b


@jit
def _gradient_rows(d, pitch, x, given, found, v, line, g, first, y, q, lanes):
    """Compute a row of the gradient of each map; add it to those of weights and bias."""
    out, taps, f = given.out, given.taps, given.out.conv
    a, n, begin = y % taps.every * f.phases + q, columns(f, q), _begin(out.y, first)
    here = x[y // taps.every * taps.step * lanes :]
    size, is_loss = n * lanes, given.target.size
    if is_loss or out.pool:  # compute the convolution again
        for c in range(f.maps):
            d[c * pitch : c * pitch + size] = given.bias[c]
        add_taps(d, pitch, here, taps, a, size, lanes)
    for c in range(f.maps):
        row = d[c * pitch :]
        if is_loss:
            area = f.height * f.width
            image = given.target[(first * f.maps + c) * area + y * f.width + q :]
            gather(line, image, f.maps * area, f.phases, n, lanes)
            found.loss[g] += squared_error(row, line, out, given.factor, size)
        else:
            dy, z, won = given.dy[begin:], given.z[begin:], given.won[begin:]
            _gradient_row(
                row, v[c * (len(v) // f.maps) :], dy, z, won, out, c, y, q, lanes
            )
        if given.needs[1]:
            total = f32(0)
            for i in range(size):
                total += row[i]
            found.db[g, c] += total
    if given.needs[0]:
        dot_taps(d, pitch, here, taps, found.dw[g], a, size, lanes)


@jit
def _input_rows(dz, d, pitch, given, found, line, g, first, y, lanes):
    """Compute a row of the gradient of each map of the input."""
    f, p, back = given.before.y, given.taps.planes, given.back
    begin = _begin(f, first)
    here, dy = dz[y // back.every * back.step * lanes :], found.dy_in[begin:]
    for q in range(p.phases):
        n = (f.width - q + p.phases - 1) // p.phases
        to, apart = d, pitch
        if p.phases == f.phases:
            to, apart = dy[row_at(f, 0, y, q, lanes) :], row_at(f, 1, 0, 0, lanes)
        for c in range(f.maps):
            to[c * apart : c * apart + n * lanes] = 0
        add_taps(to, apart, here, back, y % back.every * p.phases + q, n * lanes, lanes)
        for c in range(f.maps if p.phases != f.phases else 0):
            row = dy[row_at(f, c, y, 0, lanes) :]
            place(row, f.phases, f.slots, 0, d[c * pitch :], p.phases, q, n, lanes)
    for c in range(f.maps if given.before.norm else 0):
        z, sums = given.z_in[begin:], found.sums_in[g, c]
        _add_sums(sums, dy, z, given.before, c, y, line, lanes)


@jit
def backward(given, found, num_images, group, scratch, lo, hi):
    """Compute each group's gradients of a stage; see `Given` and `Found`."""
    f, p, pb = given.out.conv, given.taps.planes, given.back.planes
    f_in = given.before.y
    needs_fill = given.needs[0] or given.out.pool or given.target.size
    size = max(f.slots, p.slots, f_in.slots) * group
    size_x, size_dz = plane_size(p) * group, plane_size(pb) * group
    x, rest = scratch[:size_x], scratch[size_x:]
    dz, rest = rest[:size_dz], rest[size_dz:]
    v, rest = rest[: f.maps * size], rest[f.maps * size :]
    line, d = rest[:size], rest[size:]
    for g in range(lo, hi):
        first = g * group
        lanes = min(group, num_images - first)
        rows_in, filled = given.z_in[_begin(f_in, first) :], 0
        _clear_border(x, p, f_in.height, lanes)
        _clear_border(dz, pb, f.height, lanes)
        width = pb.phases * pb.slots * lanes
        for y in range(f.height):
            if needs_fill:
                filled = _fill(
                    x, filled, y, given.taps, rows_in, given.before, line, lanes
                )
            top = y + pb.border if given.needs[2] else 0  # one row stays in the cache
            for c in range(f.maps):
                dz[(c * pb.rows + top) * width : (c * pb.rows + top + 1) * width] = 0
            for q in range(f.phases):
                at = top * width + slot_of(pb.phases, pb.slots, q + pb.border) * lanes
                _gradient_rows(dz[at:], pb.rows * width, x, given, found, v, line, g, first,
                               y, q, lanes)  # fmt: skip
        for y in range(f_in.height if given.needs[2] else 0):
            _input_rows(dz, d, size, given, found, line, g, first, y, lanes)
