"""Colour for photographs of any size, one or many, with a trained network."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
import torch

from helpers.files import InputError, free_cores
from helpers.images import to_square
from helpers.lab import bgr_to_lab, lab_to_bgr
from helpers.nets import Colorizer, Regressor, evaluation_mode

NETWORK_SIZE = 128  # pixels of the shorter side that the networks have learned
MAX_PIXELS = 64 * NETWORK_SIZE**2  # what a network sees at most: a strip is shrunk more
STRIP_PIXELS = 2**18  # the pixels whose L*, a* and b* are joined at once
LARGE_PIXELS = 25_000_000  # photographs above this are coloured one at a time
AHEAD = 8  # photographs for each worker that wait in line behind the oldest

Name = TypeVar("Name")
Read = Callable[[], np.ndarray]


def colorize(
    net: Colorizer, image_bgr: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Colour one photograph.

    image_bgr  (H, W, 3) uint8, any size and aspect, grey or colour; its own colour is
               not looked at
    strength   what the predicted ab is multiplied by: 0 grey, 1 as predicted, up to 2
    returns    (H, W, 3) uint8 BGR: the predicted ab, enlarged to H x W, joined in float
               with the original L*

    The network is used in evaluation mode and left as it was. Beside the photograph
    itself about 15 bytes a pixel are needed: L* and ab in float32, and the result.
    """
    with evaluation_mode(net):
        return _colorize(net, image_bgr, strength)


def colorize_all(
    net: Colorizer,
    photographs: Iterable[tuple[Name, Read]],
    write: Callable[[Name, np.ndarray], None],
    report: Callable[[Name, InputError | None], None],
    workers: int = 0,
) -> None:
    """Colour any number of photographs; reading, network and writing overlap.

    photographs  (name, read) of each; read() returns image_bgr (H, W, 3) uint8, or raises
                 InputError: the photograph is reported and passed over
    write        write(name, image_bgr) keeps a coloured photograph
    report       report(name, error) is called in the given order, in the caller's thread,
                 when the photograph is written (None) or could not be read
    workers      threads, each with one photograph in hand; 0 takes the free cores

    At most `workers` photographs are in memory, and of those above LARGE_PIXELS at most
    one with more than its own pixels. The first exception of another kind, of `write` or
    of `report` ends the work: what is being coloured is finished, no other is begun.
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
                write(name, _colorize(net, image_bgr))

    workers = workers or free_cores()
    with evaluation_mode(net), _threads(workers, stopped) as pool:
        for (name, _), error in _in_order(pool, work, photographs, AHEAD * workers):
            report(name, error)


def predict_mean_chrominance(
    net: Regressor, image_bgr: np.ndarray
) -> tuple[float, float]:
    """The mean a* and mean b* that a regressor sees in the luminance of one photograph.

    image_bgr is (H, W, 3) uint8 of any size; its centre square is resized to 128x128, as
    the training images were.
    """
    L = bgr_to_lab(to_square(image_bgr, NETWORK_SIZE))[:, :, :1]
    with evaluation_mode(net):
        a, b = _predict(net, L)[0]
    return float(a), float(b)


def _colorize(
    net: Colorizer, image_bgr: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """`colorize` with a network that is in evaluation mode already."""
    height, width = image_bgr.shape[:2]
    strips = _strips(height, width)
    L = np.empty((height, width), np.float32)
    for rows in strips:
        L[rows] = bgr_to_lab(image_bgr[rows])[:, :, 0]
    small_ab = _predict(net, _shrink(L, 2**net.num_down))[0].permute(1, 2, 0).numpy()
    small_ab = small_ab * np.float32(strength)
    ab = cv2.resize(small_ab, (width, height), interpolation=cv2.INTER_LINEAR)
    result_bgr = np.empty((height, width, 3), np.uint8)
    for rows in strips:
        result_bgr[rows] = lab_to_bgr(np.dstack([L[rows], ab[rows]]))
    return result_bgr


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
