"""Colorize one or many photographs of any size with a trained network."""

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
import torch

from helpers.apps.hints import Hints
from helpers.apps.upsampling import DetailedMap
from helpers.data.images import to_square
from helpers.data.lab import bgr16_to_lab, bgr_to_lab, lab_to_bgr, lab_to_bgr16
from helpers.files import InputError, free_cores
from helpers.nets import ChrominanceNet, Regressor, evaluation_mode

NETWORK_SIZE = 128  # shorter side of the network's input in pixels, as in training
MAX_PIXELS = (
    64 * NETWORK_SIZE**2
)  # in the network's input; long strips are shrunk further
LIVELY = 1.15  # factor on ab with which `portrait` is as colorful as the truth
FADE = 1 / 8  # width of a box's soft border, as a fraction of its shorter side
STRIP_PIXELS = 2**18  # pixels converted to or from Lab at once
LARGE_PIXELS = 25_000_000  # larger photographs are colorized one at a time
AHEAD = 8  # photographs queued for each worker
NO_HINTS = Hints()

Name = TypeVar("Name")
Read = Callable[[], np.ndarray]
Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the photograph


def colorize(
    net: ChrominanceNet,
    image_bgr: np.ndarray,
    strength: float = 1.0,
    boxes: Sequence[Box] = (),
    hints: Hints = NO_HINTS,
) -> np.ndarray:
    """Colorize one photograph.

    image_bgr  (H, W, 3) or with alpha (H, W, 4), uint8 or uint16, any size and aspect
               ratio, gray or color; existing color is ignored
    strength   factor on the predicted ab: 0 gray, 1 as predicted, up to 2
    boxes      regions that are predicted separately and blended into the rest, for faces
               that are too small for the network
    hints      colors that are known; the network must accept them
    returns    the same shape and dtype, BGR: the predicted ab, upsampled to H x W by
               `DetailedMap`, combined in float with the original L*; alpha is unchanged

    The network runs in evaluation mode; its modes are restored afterward. In addition to
    the photograph, L* in float32 and the result need about 8 bytes per pixel.
    Raises InputError if a box or a hint is not inside the photograph, or if the network
    does not accept hints.
    """
    with evaluation_mode(net):
        return _colorize(net, image_bgr, strength, boxes, hints)


def grayscale(image_bgr: np.ndarray) -> np.ndarray:
    """Remove the color from a photograph; keep L*, shape, dtype and alpha."""
    result_bgr, L = image_bgr.copy(), lightness(image_bgr)
    for rows in _strips(*L.shape):
        ab = np.zeros((*L[rows].shape, 2), np.float32)
        result_bgr[rows, :, :3] = to_bgr(L[rows], ab, image_bgr.dtype)
    return result_bgr


def colorize_all(
    net: ChrominanceNet,
    photographs: Iterable[tuple[Name, Read]],
    write: Callable[[Name, np.ndarray, np.ndarray], None],
    report: Callable[[Name, InputError | None], None],
    workers: int = 0,
    strength: float = 1.0,
    boxes: Callable[[Name, np.ndarray], Sequence[Box]] = lambda *_: (),
    hints: Hints = NO_HINTS,
) -> None:
    """Colorize any number of photographs; reading, prediction and writing overlap.

    photographs  pairs (name, read); read() returns image_bgr as for `colorize`, or raises
                 InputError, which is reported before the work continues
    write        write(name, image_bgr, result_bgr) saves a colorized photograph
    report       report(name, error) is called in the given order and in the caller's
                 thread; error is None if the photograph was written
    workers      number of threads, one photograph each; 0 uses one per free core
    boxes        boxes(name, image_bgr) returns a photograph's regions; see `colorize`
    strength, hints  see `colorize`

    At most `workers` photographs are in memory, and at most one of those above
    LARGE_PIXELS is being colorized. Any other exception, including those from `write` and
    `report`, stops the work: photographs in progress are finished, and no others start.
    """
    stopped, one_large = threading.Event(), threading.Lock()

    def work(name: Name, read: Read) -> InputError | None:
        try:
            image_bgr = read()
        except InputError as error:
            return error
        is_large = image_bgr.shape[0] * image_bgr.shape[1] > LARGE_PIXELS
        with one_large if is_large else nullcontext():
            if not stopped.is_set():
                options = strength, boxes(name, image_bgr), hints
                result_bgr = _colorize(net, image_bgr, *options)
                try:
                    write(name, image_bgr, result_bgr)
                except InputError as error:
                    if getattr(error.__cause__, "errno", 0) != errno.ENAMETOOLONG:
                        raise
                    return error

    workers = workers or free_cores()
    with evaluation_mode(net), _worker_pool(workers, stopped) as pool:
        for (name, _), error in _in_order(pool, work, photographs, AHEAD * workers):
            report(name, error)


def predict_mean_chrominance(
    net: Regressor, image_bgr: np.ndarray
) -> tuple[float, float]:
    """Predict the mean a* and mean b* of one photograph from its L*, in natural units.

    image_bgr is (H, W, 3) uint8 of any size. Its center square is resized to 128 x 128
    pixels, like the training images.
    """
    L = bgr_to_lab(to_square(image_bgr, NETWORK_SIZE))[:, :, 0]
    with evaluation_mode(net):
        a, b = _run(net, net.predict, L[None])
    return float(a), float(b)


def _colorize(
    net: ChrominanceNet,
    image_bgr: np.ndarray,
    strength: float,
    boxes: Sequence[Box],
    hints: Hints,
) -> np.ndarray:
    """Colorize with a network that is already in evaluation mode."""
    height, width = image_bgr.shape[:2]
    for box in boxes:
        _check_box(box, height, width)
    hints.check(net, height, width)
    L = lightness(image_bgr)
    whole, *regions = _predict_regions(net, L, strength, boxes, hints)
    result_bgr = image_bgr.copy()
    for rows in _strips(height, width):
        ab = whole.rows(rows)
        for box, region in zip(boxes, regions, strict=True):
            _blend(ab, rows, region, box, (height, width))
        result_bgr[rows, :, :3] = to_bgr(L[rows], ab, image_bgr.dtype)
    return result_bgr


def lightness(image_bgr: np.ndarray) -> np.ndarray:
    """Return L* (H, W) float32 of an 8-bit or 16-bit image, with or without alpha."""
    to_lab = bgr16_to_lab if image_bgr.dtype == np.uint16 else bgr_to_lab
    L = np.empty(image_bgr.shape[:2], np.float32)
    for rows in _strips(*L.shape):
        L[rows] = to_lab(np.ascontiguousarray(image_bgr[rows, :, :3]))[:, :, 0]
    return L


def to_bgr(L: np.ndarray, ab: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Combine L* (H, W) and ab (H, W, 2) into image_bgr (H, W, 3), 8 or 16 bits."""
    to_bgr = lab_to_bgr16 if dtype == np.uint16 else lab_to_bgr
    return to_bgr(cv2.merge([L, *cv2.split(ab)]))  # np.dstack takes four times as long


def _predict_regions(
    net: ChrominanceNet,
    L: np.ndarray,
    strength: float,
    boxes: Sequence[Box],
    hints: Hints,
) -> list[DetailedMap]:
    """Predict ab for L* (H, W) and for each box in it; see `colorize`."""
    whole = predict_ab(net, L, hints)
    maps = [DetailedMap(whole * np.float32(strength), L)]
    for box in boxes:
        left, top, wide, high = box
        color = tuple(_crop(whole, box, L.shape).mean(axis=(0, 1)).tolist())
        region = L[top : top + high, left : left + wide]
        ab = predict_ab(net, region, hints.within(box, color))
        maps.append(DetailedMap(ab * np.float32(strength), region))
    return maps


def _crop(small: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a map (h, w, 2) that a box of the photograph touches."""
    left, top, wide, high = box
    down, across = small.shape[0] / size[0], small.shape[1] / size[1]
    rows = slice(int(top * down), max(int((top + high) * down), int(top * down) + 1))
    first = int(left * across)
    return small[rows, first : max(int((left + wide) * across), first + 1)]


def predict_ab(net: ChrominanceNet, L: np.ndarray, hints: Hints) -> np.ndarray:
    """Predict ab for L* (H, W): a map (h, w, 2) float32.

    If the photograph is larger than the network's input, the map at the network's own
    resolution is used, because the network's bilinear upsampling ignores the edges of L*.
    The map of a smaller photograph is larger than the photograph.
    """
    small_L = _shrink(L, 2**net.num_down)
    predict = net.predict_map if L.size > small_L.size else net.predict
    inputs = small_L[None]
    if hints:
        inputs = np.concatenate([inputs, hints.planes(L.shape, small_L.shape)])
    return _run(net, predict, inputs).permute(1, 2, 0).numpy()


def _run(
    net: torch.nn.Module,
    predict: Callable[[torch.Tensor], torch.Tensor],
    inputs: np.ndarray,
) -> torch.Tensor:
    """Apply the method `predict` of `net` to (C, H, W); return the result on the CPU."""
    device = next(net.parameters()).device
    with torch.no_grad():  # evaluation_mode disables gradients only in its own thread
        return predict(torch.from_numpy(inputs)[None].to(device))[0].cpu()


def _shrink(L: np.ndarray, multiple: int) -> np.ndarray:
    """Resize L* (H, W) to the network's input size, in multiples of `multiple` pixels."""
    height, width = L.shape
    scale = NETWORK_SIZE / min(height, width)
    scale = min(scale, (MAX_PIXELS / (height * width)) ** 0.5)
    small = [max(1, round(n * scale / multiple)) * multiple for n in (width, height)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(L, small, interpolation=how)


def _strips(height: int, width: int) -> list[slice]:
    """Split the rows into strips: a whole photograph in Lab needs too much memory."""
    rows = max(1, STRIP_PIXELS // width)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _check_box(box: Box, height: int, width: int) -> None:
    left, top, wide, high = box
    is_inside = left >= 0 and top >= 0 and left + wide <= width and top + high <= height
    if not is_inside or wide < 1 or high < 1:
        raise InputError(
            f"box {left},{top},{wide},{high}: not inside the photograph of {width} x "
            f"{height} pixels; give left, top, width, height"
        )


def _blend(
    ab: np.ndarray, rows: slice, region: DetailedMap, box: Box, size: tuple[int, int]
) -> None:
    """Blend a box's region in place into `ab` (n, W, 2), the photograph's ab at `rows`.

    The region fades out at the edges of the box, except at the edges of the photograph.
    """
    left, top, wide, high = box
    first, end = max(rows.start - top, 0), min(rows.stop - top, high)
    if first >= end:
        return
    fade = max(1, round(FADE * min(wide, high)))
    down = _fade_weights(high, fade, top > 0, top + high < size[0])[first:end]
    across = _fade_weights(wide, fade, left > 0, left + wide < size[1])
    start = first + top - rows.start
    below = ab[start : start + end - first, left : left + wide]
    weight = (down[:, None] * across)[..., None]
    below += weight * (region.rows(slice(first, end)) - below)


def _fade_weights(length: int, fade: int, at_start: bool, at_end: bool) -> np.ndarray:
    """Return weights (length,) float32: 1, with a smooth fade to 0 at the given ends."""
    place = np.arange(length, dtype=np.float32) + 0.5
    rise = np.clip(place / fade, 0, 1) if at_start else 1
    fall = np.clip((length - place) / fade, 0, 1) if at_end else 1
    weight = np.ones_like(place) * rise * fall
    return weight * weight * (3 - 2 * weight)


@contextmanager
def _worker_pool(count: int, stopped: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of workers with one torch thread each; cancel queued work at the end."""
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)


def _in_order(pool, work: Callable, items: Iterable[tuple], ahead: int) -> Iterator:
    """Yield (item, work(*item)) in order, with at most `ahead` items in the pool.

    `pool.map` would submit all items and keep all results at once.
    """
    items = iter(items)
    waiting = deque((item, pool.submit(work, *item)) for item in islice(items, ahead))
    while waiting:
        item, future = waiting.popleft()
        yield item, future.result()
        waiting.extend((item, pool.submit(work, *item)) for item in islice(items, 1))
