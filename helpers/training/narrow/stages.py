"""A stage of a narrow network: which rows its kernels read, and its passes in numpy."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch
from torch import nn

from helpers.training.narrow import kernels
from helpers.training.narrow.lanes import LANES, Format, Output, Planes, Taps, f32

EMPTY = np.empty(0, f32)
num_threads = 1  # set by `narrow`
_threads = ThreadPoolExecutor(64)


@dataclass(frozen=True)
class Shape:
    """What a stage computes, without its weights; `act` and `slope` as in `Output`."""

    kernel: int
    stride: int
    padding: int
    transposed: bool
    pool: bool = False
    act: int = 0
    slope: float = 1.0

    @lru_cache(256)  # noqa: B019  the key contains only numbers
    def plan(self, maps_in: int, maps: int, height: int, width: int) -> tuple:
        """Return the formats of convolution and y, and taps and indices in both directions.

        Raises ValueError if the input is too small.
        """
        K, S, p, up = self.kernel, self.stride, self.padding, self.transposed
        size_in = height, width
        size = [
            (n - 1) * S + K - 2 * p if up else (n + 2 * p - K) // S + 1 for n in size_in
        ]
        phases = 2 if self.pool or (up and S == 2) else 1
        phases_in = phases // S if up else phases * S
        conv = _format(maps, *size, phases)
        y = _format(maps, size[0] // 2, size[1] // 2, 1) if self.pool else conv
        if min(*size, y.height, y.width) < 1:
            raise ValueError(f"an input of {height} x {width} is too small for {self}")
        there = self._taps(up, maps_in, maps, size_in, size, phases)
        back = self._taps(not up, maps, maps_in, size, size_in, phases_in)
        return conv, y, there, back

    def _taps(self, up: bool, maps_in: int, maps: int, size_in, size, phases) -> tuple:
        """Return the taps without weights, and where their weights (taps, maps) are.

        Output x is a sum over inputs S x - p + k or, if `up`, over (x + p - k) / S.
        """
        K, S, p = self.kernel, self.stride, self.padding
        phases_in = phases // S if up else phases * S
        border = max(-(-(K - 1 - p) // S), 0) if up else p
        last = [(n - 1 + p) // S + border if up else S * (n - 1) + K - 1 for n in size]
        rows = max(last[0] + 1, size_in[0] + border)
        slots = max(last[1] + phases_in, size_in[1] + border) // phases_in + 2
        found, every = [], S if up else 1
        ranges = map(range, (every, phases, maps_in, K, K))
        for a, q, c, j, i in product(*ranges):
            y, x = (a + p - j, q + p - i) if up else (j, S * q + i)
            if up and (y % S or x % S):
                continue
            y, x = (y // S + border, x // S + border) if up else (y, x)
            shift = (
                (c * rows + y) * phases_in + x % phases_in
            ) * slots + x // phases_in
            index = ((c * maps if up else c) * K + j) * K + i
            found.append((a * phases + q, shift, index))
        phase, shift, index = np.array(found, np.int64).reshape(-1, 3).T
        index = index[:, None] + np.arange(maps) * (1 if up else maps_in) * K * K
        start = np.searchsorted(phase, np.arange(every * phases + 1))
        step = (1 if up else S) * phases_in * slots
        reach = (S - 1 + p) // S + 1 if up else K - p
        planes = Planes(maps_in, rows, phases_in, slots, border)
        none = np.empty((0, 0), f32)
        return Taps(planes, reach, every, step, start, shift.copy(), none), index


class Stage:
    """A stage in one forward pass over `num_images` images.

    norm  BatchNorm, or None; before  the output of the previous stage
    """

    def __init__(self, shape: Shape, norm, maps: int, before: Output, num_images: int):
        self.shape, self.norm, self.before = shape, norm, before
        self.num_images, self.group = num_images, _group(num_images)
        self.groups = -(-num_images // self.group)
        f = before.y
        conv, y, self.taps, self.back = shape.plan(f.maps, maps, f.height, f.width)
        coef, has_norm = _identity(maps), norm is not None
        options = shape.pool, has_norm, shape.act, shape.slope
        self.out = Output(conv, y, False, *options, coef)
        self.of_batch = has_norm and (norm.training or norm.running_mean is None)
        self.size = num_images * conv.height * conv.width
        self.won = np.empty(0, np.uint8)

    def forward(self, z_in: np.ndarray, weight, bias, gamma, beta) -> np.ndarray:
        """Return z of this stage; prepare its BatchNorm."""
        maps, taps = self.out.y.maps, _weighted(self.taps, weight)
        stats = np.zeros((self.groups if self.of_batch else 0, maps, 2))
        z = empty(self.out.y, self.num_images)
        if self.shape.pool:
            self.won = np.empty(z.size, np.uint8)
        signs = np.sign(_values(gamma, maps, 1))
        lines = self.before.y.slots + 4 * maps * self.out.conv.slots
        self.run(
            kernels.forward, kernels.plane_size(taps.planes) + lines, z, self.won, stats,
            z_in, self.before, taps, _values(bias, maps, 0), self.out, signs,
        )  # fmt: skip
        if self.norm is not None:
            self._normalize(stats, gamma, beta)
        return z

    def _normalize(self, stats: np.ndarray, gamma, beta) -> None:
        norm, maps, step = self.norm, self.out.y.maps, 0.0
        mean, var, counts = np.zeros(maps, f32), np.zeros(maps, f32), np.empty(0)
        if self.of_batch:
            if self.size == 1:
                size = [self.num_images, *self.out.conv[:3]]
                error = "Expected more than 1 value per channel when training"
                raise ValueError(f"{error}, got input size {size}")  # as PyTorch does
            first = np.arange(self.groups) * self.group
            images = np.minimum(self.num_images - first, self.group)
            counts = images * (self.size / self.num_images)
        if norm.running_mean is not None:
            mean, var = array(norm.running_mean), array(norm.running_var)
        if norm.training and norm.track_running_stats:
            norm.num_batches_tracked += 1
            step = norm.momentum
            step = 1 / norm.num_batches_tracked.item() if step is None else step
        gamma, beta = _values(gamma, maps, 1), _values(beta, maps, 0)
        given = counts, gamma, beta, norm.eps, mean, var, float(step)
        kernels.normalize(self.out.coef, stats, *given)

    def backward(self, z_in, z, dy, sums, target, needs, params) -> tuple:
        """Return the loss, the gradients of the parameters, and dy and sums of `before`.

        z, dy, sums    of this stage; or a target (N, maps, H, W), flat, instead
        needs, params  whether weight, bias and input need a gradient; weight, bias, gamma
                       and beta
        """
        (weight, bias, *_), f, f_in = params, self.out.conv, self.before.y
        dgamma, dbeta = (
            self._norm_gradients(sums) if self.norm is not None else (None,) * 2
        )
        taps, back = _weighted(self.taps, weight), _weighted(self.back, weight)
        needs = needs[0], needs[1] and not self.of_batch, needs[2]  # of_batch: it is 0
        factor = f32(2 / max(target.size, 1))
        given = kernels.Given(
            self.before, self.out, z_in, z, self.won, dy, target, taps, back,
            _values(bias, f.maps, 0), factor, needs,
        )  # fmt: skip
        groups = self.groups
        found = kernels.Found(
            np.zeros((groups, *taps.weight.shape), f32),
            np.zeros((groups, f.maps)),
            np.zeros(groups),
            empty(f_in, self.num_images) if needs[2] else EMPTY,
            np.zeros((groups, f_in.maps, 2)),
        )
        planes = kernels.plane_size(taps.planes) + kernels.plane_size(back.planes)
        slots = max(f.slots, taps.planes.slots, f_in.slots)
        self.run(
            kernels.backward, planes + (f.maps + 1 + f_in.maps) * slots, given, found
        )
        dweight = np.zeros(weight.numel())
        np.add.at(dweight, self.taps[1], found.dw.sum(0, dtype=np.float64))
        gradients = dweight.reshape(weight.shape), found.db.sum(0), dgamma, dbeta
        with np.errstate(over="ignore"):  # infinity is what PyTorch returns, too
            gradients = [
                None if p is None or v is None else torch.from_numpy(v.astype(f32))
                for p, v in zip(params, gradients, strict=True)
            ]
        return found.loss.sum(), gradients, found.dy_in, found.sums_in

    def _norm_gradients(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients of BatchNorm's weight and bias; prepare that of z."""
        first, second = sums.sum(0).T
        scale, _, _, r = self.out.coef[:4].astype(np.float64)
        if self.of_batch:
            self.out.coef[4] = -scale * second * r * r / self.size
            self.out.coef[5] = -scale * first / self.size
        return second * r, first

    def run(self, kernel, scratch: int, *arguments) -> None:
        """Let a kernel compute all groups, on `num_threads` threads.

        `scratch` is the size of its working memory for each image of a group.
        """
        parts = min(num_threads, self.groups)
        ends = [self.groups * part // parts for part in range(parts + 1)]
        calls = []
        for part in range(parts):
            memory = _memory(scratch * self.group)
            groups = self.num_images, self.group, memory, *ends[part : part + 2]
            calls.append(partial(kernel, *arguments, *groups))
        others = [_threads.submit(call) for call in calls[1:]]
        calls[0]()
        for other in others:
            other.result()


def image_output(maps: int, height: int, width: int) -> Output:
    """Return the images as the output of a stage before the first."""
    f = _format(maps, height, width, 1)
    return Output(f, f, True, False, False, 0, 1.0, _identity(maps))


def _format(maps: int, height: int, width: int, phases: int) -> Format:
    return Format(maps, height, width, phases, -(-width // phases))


def _group(num_images: int) -> int:
    """Return the number of images in a group: the larger of two, if it loses nothing."""
    small, large = LANES
    is_enough = num_images // large >= num_threads
    return large if is_enough and num_images % large == num_images % small else small


def _identity(maps: int) -> np.ndarray:
    """Return the coefficients of an `Output` without BatchNorm."""
    coef = np.zeros((6, maps), f32)
    coef[0] = 1
    return coef


def _weighted(taps: tuple[Taps, np.ndarray], weight: torch.Tensor) -> Taps:
    return taps[0]._replace(weight=array(weight).reshape(-1)[taps[1]])


def _values(parameter: torch.Tensor | None, maps: int, default: int) -> np.ndarray:
    return np.full(maps, default, f32) if parameter is None else array(parameter)


def array(tensor: torch.Tensor) -> np.ndarray:
    """Return a contiguous tensor's memory, or a copy of another one's."""
    return tensor.detach().contiguous().numpy()


def empty(f: Format, num_images: int) -> np.ndarray:
    """Return uninitialized rows of a format."""
    return _memory(num_images * f.maps * f.height * f.phases * f.slots)


def _memory(size: int) -> np.ndarray:
    """Return uninitialized memory; PyTorch's begins at a multiple of 64 bytes."""
    return torch.empty(size).numpy()


def shape_of(conv: nn.Module, max_maps: int) -> Shape | None:
    """Return the shape of a convolution, or None if the kernels do not compute it."""
    if type(conv) not in (nn.Conv2d, nn.ConvTranspose2d):
        return None
    (K, k), (S, s), padding = conv.kernel_size, conv.stride, conv.padding
    if isinstance(padding, str):
        padding = ((K - 1) / 2,) * 2 if padding == "same" else (0, 0)
    p = int(padding[0])
    fits = (K, S, p, p) == (k, s, *padding) and S <= 2 and p < K
    fits &= (conv.groups, conv.dilation, conv.padding_mode) == (1, (1, 1), "zeros")
    fits &= not any(conv.output_padding) and conv.weight.dtype == torch.float32
    fits &= max(conv.in_channels, conv.out_channels) <= max_maps
    return Shape(K, S, p, type(conv) is nn.ConvTranspose2d) if fits else None
