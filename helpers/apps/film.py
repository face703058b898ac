"""Colorize a short film with colors that are steady from frame to frame."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from helpers.apps.colorize import NO_HINTS, lightness, predict_ab, to_bgr
from helpers.apps.hints import Hints
from helpers.apps.upsampling import DetailedMap
from helpers.files import InputError, WorkFailed, make_folder
from helpers.nets import ChrominanceNet, evaluation_mode
from helpers.progress import progress
from helpers.training.signals import StopSignals

FILM_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"}
STEADINESS = 0.85  # weight of the previous colors where the picture does not change
GRAIN = 3.0  # difference in L* that counts as grain, not as a change
CHANGE = 8.0  # difference in L* beyond GRAIN at which that weight has fallen to 1/e
CUT = 0.5  # difference of two lightness histograms, 0 to 1, that starts a new shot
NUM_BINS = 32


class SteadyColor:
    """Smooth the predicted chrominance over time, per pixel, within one shot.

    The previous colors count less where L* changes, so that a moving edge does not leave a
    trail. If the histogram of L* changes abruptly, there is a cut, and smoothing restarts.
    """

    def __init__(self):
        self.ab = self.L = self.histogram = None

    def smooth(self, ab: np.ndarray, L: np.ndarray) -> np.ndarray:
        """Return the smoothed ab (h, w, 2) of a frame with lightness L (H, W)."""
        small = cv2.resize(L, ab.shape[1::-1], interpolation=cv2.INTER_AREA)
        counts, _ = np.histogram(L, NUM_BINS, (0, 100))
        histogram = counts / L.size
        if not self._is_cut(ab, histogram):
            change = np.maximum(np.abs(small - self.L) - GRAIN, 0)
            weight = STEADINESS * np.exp(-change / CHANGE)
            ab = ab + weight[..., None] * (self.ab - ab)
        self.ab, self.L, self.histogram = ab, small, histogram
        return ab

    def _is_cut(self, ab: np.ndarray, histogram: np.ndarray) -> bool:
        if self.ab is None or self.ab.shape != ab.shape:
            return True
        return bool(np.abs(histogram - self.histogram).sum() / 2 > CUT)


def colorize_frames(
    net: ChrominanceNet,
    frames: Iterator[np.ndarray],
    strength: float = 1.0,
    hints: Hints = NO_HINTS,
) -> Iterator[np.ndarray]:
    """Colorize frames (H, W, 3) uint8 BGR of one size, in order; see `SteadyColor`."""
    steady = SteadyColor()
    with evaluation_mode(net):
        for frame_bgr in frames:
            L = lightness(frame_bgr)
            ab = steady.smooth(predict_ab(net, L, hints), L)
            detailed = DetailedMap(ab * np.float32(strength), L)
            yield to_bgr(L, detailed.rows(slice(0, len(L))), frame_bgr.dtype)


def colorize_film(
    net: ChrominanceNet,
    source: Path,
    target: Path,
    strength: float = 1.0,
    hints: Hints = NO_HINTS,
    log: Callable[[str], None] = print,
) -> None:
    """Colorize a film file and write it as MP4; keep its sound if ffmpeg is installed.

    Raises InputError if OpenCV cannot read the film, WorkFailed if it cannot write, and
    KeyboardInterrupt after a signal. An unfinished film is removed, even after TERM or HUP.
    """
    film, (width, height) = open_film(source)
    hints.check(net, height, width)
    make_folder(target.parent)
    stop = StopSignals()
    scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".film-")
    try:
        with stop, scratch as folder:
            silent = Path(folder, "silent.mp4")
            count = _write(silent, net, film, stop, strength, hints)
            film.release()
            if not count:
                raise InputError(f"{source}: contains no frame that can be read")
            if not _is_complete(silent, count):
                raise WorkFailed(f"{target}: cannot be written; check the free space")
            with_sound = Path(folder, "film.mp4")
            reason = _add_sound(silent, source, with_sound)
            if stop.received:  # perhaps by ffmpeg, too
                raise KeyboardInterrupt
            if reason:
                log(f"{source.name}: colorized without its sound ({reason})")
            (silent if reason else with_sound).replace(target)
    except KeyboardInterrupt:
        stop.pass_on()  # the unfinished film is gone
        raise


def open_film(path: Path) -> tuple[cv2.VideoCapture, tuple[int, int]]:
    """Open a film; return it and the width and height of its frames.

    Raises InputError if OpenCV cannot read it.
    """
    film = cv2.VideoCapture(str(path))
    size = tuple(
        int(film.get(n)) for n in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if not film.isOpened() or min(size) < 1:
        raise InputError(f"{path}: not a film that OpenCV can read; convert it to MP4")
    return film, size


def _write(path: Path, net, film, stop: StopSignals, strength, hints) -> int:
    """Write the colorized frames of an open film; return their number."""
    writer, code = cv2.VideoWriter(), cv2.VideoWriter_fourcc(*"mp4v")
    count, total = 0, int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = film.get(cv2.CAP_PROP_FPS) or 25.0
    with progress(None, "colorizing", total=max(total, 0)) as bar:
        for frame_bgr in colorize_frames(net, _frames(film), strength, hints):
            if stop.received:
                writer.release()
                raise KeyboardInterrupt
            # After rotation, unlike the film's properties.
            size = frame_bgr.shape[1::-1]
            if not count and not writer.open(str(path), code, rate, size):
                raise WorkFailed(f"{path.parent.parent}: OpenCV cannot write MP4 here")
            writer.write(frame_bgr)
            count += 1
            bar.update()
    writer.release()
    return count


def _is_complete(path: Path, count: int) -> bool:
    """Check a written film: OpenCV reports neither a full disk nor a missing end."""
    film = cv2.VideoCapture(str(path))
    has_all = int(film.get(cv2.CAP_PROP_FRAME_COUNT)) >= count
    is_read, _ = film.read()
    film.release()
    return has_all and is_read


def _frames(film: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        is_read, frame_bgr = film.read()
        if not is_read:
            return
        yield frame_bgr


def _add_sound(silent: Path, source: Path, target: Path) -> str:
    """Join the pictures of `silent` and the sound of `source`; return why not, or ""."""
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        return "ffmpeg is not installed"
    command = [ffmpeg, "-v", "error", "-y", "-i", silent, "-i", source]
    command += ["-map", "0:v", "-map", "1:a?", "-c:v", "copy", target]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        return f"ffmpeg: {' '.join(result.stderr.split()) or result.returncode}"
    return ""
