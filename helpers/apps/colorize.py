"""Color for photographs of any size, one or many, with a trained network."""

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

from helpers.apps.upsampling import DetailedMap
from helpers.data.images import to_square
from helpers.data.lab import bgr16_to_lab, bgr_to_lab, lab_to_bgr, lab_to_bgr16
from helpers.files import InputError, free_cores
from helpers.nets import Colorizer, Regressor, evaluation_mode

NETWORK_SIZE = 128  # pixels of the shorter side that the networks have learned
MAX_PIXELS = 64 * NETWORK_SIZE**2  # what a network sees at most: a strip is shrunk more
FADE = 1 / 8  # of a box's shorter side: how far it fades into the rest
STRIP_PIXELS = 2**18  # the pixels whose L*, a* and b* are joined at once
LARGE_PIXELS = 25_000_000  # photographs above this are colored one at a time
AHEAD = 8  # photographs for each worker that wait in line behind the oldest

Name = TypeVar("Name")
Read = Callable[[], np.ndarray]
Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the photograph


def colorize(
    net: Colorizer,
    image_bgr: np.ndarray,
    strength: float = 1.0,
    boxes: Sequence[Box] = (),
) -> np.ndarray:
    """Color one photograph.

    image_bgr  (H, W, 3) or with alpha (H, W, 4), uint8 or uint16, any size and aspect,
               gray or color; its own color is not looked at
    strength   what the predicted ab is multiplied by: 0 gray, 1 as predicted, up to 2
    boxes      parts that are predicted as if each were a photograph of its own, and
               blended into the rest: small faces, which the network would not see
    returns    the same shape and dtype, BGR: the predicted ab, enlarged to H x W (see
               `DetailedMap`), joined in float with the original L*; alpha as it was

    The network is used in evaluation mode and left as it was. Beside the photograph
    itself about 8 bytes a pixel are needed: L* in float32, and the result.
    Raises InputError for a box that is not inside the picture.
    """
    with evaluation_mode(net):
        return _colorize(net, image_bgr, strength, boxes)


def grayscale(image_bgr: np.ndarray) -> np.ndarray:
    """The photograph without color: its L* alone. Shape and dtype stay; so does alpha."""
    result_bgr, L = image_bgr.copy(), _luminance(image_bgr)
    for rows in _strips(*L.shape):
        gray = np.zeros((*L[rows].shape, 2), np.float32)
        result_bgr[rows, :, :3] = _join(L[rows], gray, image_bgr.dtype)
    return result_bgr


def colorize_all(
    net: Colorizer,
    photographs: Iterable[tuple[Name, Read]],
    write: Callable[[Name, np.ndarray, np.ndarray], None],
    report: Callable[[Name, InputError | None], None],
    workers: int = 0,
    strength: float = 1.0,
    boxes: Sequence[Box] = (),
) -> None:
    """Color any number of photographs; reading, network and writing overlap.

    photographs  (name, read) of each; read() returns image_bgr as `colorize` has it, or
                 raises InputError: the photograph is reported and passed over
    write        write(name, image_bgr, result_bgr) keeps a colored photograph
    report       report(name, error) is called in the given order, in the caller's thread,
                 when the photograph is written (None) or could not be read
    workers      threads, each with one photograph in hand; 0 takes the free cores
    strength, boxes  as `colorize` has them

    At most `workers` photographs are in memory, and of those above LARGE_PIXELS at most
    one with more than its own pixels. The first exception of another kind, of `write` or
    of `report` ends the work: what is being colored is finished, no other is begun.
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
                write(name, image_bgr, _colorize(net, image_bgr, strength, boxes))

    workers = workers or free_cores()
    with evaluation_mode(net), _threads(workers, stopped) as pool:
        for (name, _), error in _in_order(pool, work, photographs, AHEAD * workers):
            report(name, error)


def predict_mean_chrominance(
    net: Regressor, image_bgr: np.ndarray
) -> tuple[float, float]:
    """The mean a* and mean b* that a regressor sees in the luminance of one photograph.

    image_bgr is (H, W, 3) uint8 of any size; its center square is resized to 128x128, as
    the training images were.
    """
    L = bgr_to_lab(to_square(image_bgr, NETWORK_SIZE))[:, :, :1]
    with evaluation_mode(net):
        a, b = _predict(net, L)[0]
    return float(a), float(b)


def _colorize(
    net: Colorizer, image_bgr: np.ndarray, strength: float, boxes: Sequence[Box]
) -> np.ndarray:
    """`colorize` with a network that is in evaluation mode already."""
    height, width = image_bgr.shape[:2]
    for box in boxes:
        _check(box, height, width)
    L = _luminance(image_bgr)
    whole = _enlarged(net, L, strength)
    parts = [_enlarged(net, _cut(L, box), strength) for box in boxes]
    result_bgr = image_bgr.copy()
    for rows in _strips(height, width):
        ab = whole.rows(rows)
        for box, part in zip(boxes, parts, strict=True):
            _blend(ab, rows, part, box, (height, width))
        result_bgr[rows, :, :3] = _join(L[rows], ab, image_bgr.dtype)
    return result_bgr


def _luminance(image_bgr: np.ndarray) -> np.ndarray:
    """L* (H, W) float32 of a photograph of 8 or 16 bits, with alpha or without."""
    to_lab = bgr16_to_lab if image_bgr.dtype == np.uint16 else bgr_to_lab
    L = np.empty(image_bgr.shape[:2], np.float32)
    for rows in _strips(*L.shape):
        L[rows] = to_lab(np.ascontiguousarray(image_bgr[rows, :, :3]))[:, :, 0]
    return L


def _join(L: np.ndarray, ab: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """L* (H, W) and ab (H, W, 2) to image_bgr (H, W, 3) of 8 or 16 bits."""
    to_bgr = lab_to_bgr16 if dtype == np.uint16 else lab_to_bgr
    return to_bgr(cv2.merge([L, *cv2.split(ab)]))  # np.dstack takes four times as long


def _enlarged(net: Colorizer, L: np.ndarray, strength: float) -> DetailedMap:
    """What the network predicts for L* (H, W), as it is at H x W.

    Of a network that enlarges its map itself, a large photograph gets the map before
    that: its edges are to be found.
    """
    small_L = _shrink(L, 2**net.num_down)
    ab = _predict(net, small_L)[0].permute(1, 2, 0).numpy() * np.float32(strength)
    if L.size > small_L.size:
        height, width = (n // net.upscale for n in small_L.shape)
        ab = cv2.resize(ab, (width, height), interpolation=cv2.INTER_AREA)
    return DetailedMap(ab, L)


def _check(box: Box, height: int, width: int) -> None:
    left, top, wide, high = box
    is_inside = left >= 0 and top >= 0 and left + wide <= width and top + high <= height
    if not is_inside or wide < 1 or high < 1:
        raise InputError(
            f"box {left},{top},{wide},{high}: is not inside the picture of {width} x "
            f"{height} pixels; give left, top, width, height"
        )


def _cut(values: np.ndarray, box: Box) -> np.ndarray:
    left, top, wide, high = box
    return values[top : top + high, left : left + wide]


def _blend(
    ab: np.ndarray, rows: slice, part: DetailedMap, box: Box, size: tuple[int, int]
) -> None:
    """Lay the part of a box over ab (n, W, 2), these rows of the picture, in place.

    At the box's edges, where they are not the picture's, the part fades out.
    """
    left, top, wide, high = box
    first, end = max(rows.start - top, 0), min(rows.stop - top, high)
    if first >= end:
        return
    fade = max(1, round(FADE * min(wide, high)))
    down = _fades(high, fade, top > 0, top + high < size[0])[first:end]
    across = _fades(wide, fade, left > 0, left + wide < size[1])
    start = first + top - rows.start
    below = ab[start : start + end - first, left : left + wide]
    weight = (down[:, None] * across)[..., None]
    below += weight * (part.rows(slice(first, end)) - below)


def _fades(length: int, fade: int, at_start: bool, at_end: bool) -> np.ndarray:
    """Weights (length,) float32: 1, falling smoothly to 0 in `fade` pixels at the ends."""
    place = np.arange(length, dtype=np.float32) + 0.5
    rise = np.clip(place / fade, 0, 1) if at_start else np.ones_like(place)
    fall = np.clip((length - place) / fade, 0, 1) if at_end else np.ones_like(place)
    weight = rise * fall
    return weight * weight * (3 - 2 * weight)


def _strips(height: int, width: int) -> list[slice]:
    """A picture's rows in pieces; Lab of all pixels at once would fill the memory."""
    rows = max(1, STRIP_PIXELS // width)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _shrink(L: np.ndarray, step: int) -> np.ndarray:
    """L* (H, W) at the network's size: NETWORK_SIZE at the shorter side, or fewer."""
    height, width = L.shape
    scale = NETWORK_SIZE / min(height, width)
    scale = min(scale, (MAX_PIXELS / (height * width)) ** 0.5)
    small = [max(step, round(n * scale / step) * step) for n in (width, height)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(L, small, interpolation=how)


def _predict(net, L: np.ndarray) -> torch.Tensor:
    """Natural L* (H, W) or (H, W, 1) to what `net` predicts, on the CPU."""
    device = next(net.parameters()).device
    with torch.no_grad():  # of this thread: other threads' modes do not reach it
        return net.predict(
            torch.from_numpy(L).view(1, 1, *L.shape[:2]).to(device)
        ).cpu()


@contextmanager
def _threads(count: int, stopped: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch uses one core; when they are left, nothing more is begun."""
    found = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(found)


def _in_order(pool, work: Callable, items: Iterable[tuple], ahead: int) -> Iterator:
    """(item, work(*item)) for each item in turn, `ahead` of them given to the pool.

    `pool.map` would take all items, and keep all results, at once.
    """
    items = iter(items)
    waiting = deque((item, pool.submit(work, *item)) for item in islice(items, ahead))
    while waiting:
        item, future = waiting.popleft()
        yield item, future.result()
        waiting.extend((item, pool.submit(work, *item)) for item in islice(items, 1))
