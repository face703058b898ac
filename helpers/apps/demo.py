"""The demo: a browser page that colorizes the photos dropped on it."""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.apps.colorize import colorize
from helpers.apps.page import MAX_MEGAPIXELS, build_page, import_gradio, launch
from helpers.data.images import UnreadableImage, decode_picture, write_image
from helpers.data.portraits import render_portrait
from helpers.files import InputError
from helpers.nets import ChrominanceNet
from helpers.training.signals import StopSignals
from helpers.training.weights import WEIGHTS, find_weights, load_weights

OWN = ("colorizer", "classifier")  # the networks in weights/ that colorize
PREVIEW_PIXELS = 1600  # longer side of the images shown; downloads have full size
POLL_SECONDS = 0.2
EXAMPLE_SITTERS = {"gray": 7, "faded": 3, "sepia": 11, "dark": 2}
SEPIA_BGR = np.array([0.72, 0.93, 1.08], np.float32)


def serve(weights: tuple[str, ...], port: int, log: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or TERM.

    weights  names or files of networks, see `load_networks`
    port     the first port to try; if it is in use, the next free one is used

    Raises InputError if gradio is missing, no network colorizes, or no port is free.
    """
    with (
        StopSignals() as signals,
        tempfile.TemporaryDirectory(
            prefix="deepcolor-demo-", ignore_cleanup_errors=True
        ) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        gradio = import_gradio(port)
        nets = load_networks(weights)
        examples = draw_examples(Path(folder) / "examples")
        page = build_page(gradio, list(nets), examples, partial(color_file, nets))
        address = launch(gradio, page, port)
        log(f"networks: {', '.join(nets)}")
        log(f"open {address} in a browser; press Ctrl-C to stop")
        while signals.received is None:
            time.sleep(POLL_SECONDS)
        page.close(verbose=False)


def load_networks(weights: tuple[str, ...] = ()) -> dict[str, ChrominanceNet]:
    """Load the networks that the page offers, by name.

    `weights` are names or files, see `find_weights`; by default, the available networks in
    OWN. Raises InputError if there are none, or if one of `weights` does not colorize.
    """
    own = [name for name in OWN if (WEIGHTS / f"{name}.safetensors").is_file()]
    nets = {}
    for path in map(find_weights, weights or own):
        net, _ = load_weights(path, "colorizer")
        nets[path.stem if path.stem not in nets else str(path)] = net
    if not nets:
        raise InputError(
            "weights/: contains no network that colorizes; train one "
            "(`deepcolor train best/scratch`) and give its file with --weights"
        )
    return nets


def read_photograph(path: Path) -> np.ndarray:
    """Read a file that was dropped on the page; return image_bgr, see `decode_picture`.

    The size is checked before the pixels are decoded. Raises InputError with the file
    name (without its folder), the reason and the next step.
    """
    path = Path(path)
    try:
        _check_size(*_announced_size(path))
        image_bgr = decode_picture(path.read_bytes())
        _check_size(*image_bgr.shape[1::-1])
    except UnreadableImage as error:
        raise InputError(f"{path.name}: {error}; choose another file") from error
    except OSError as error:
        raise InputError(
            f"{path.name}: no longer available; choose the file again"
        ) from error
    return image_bgr


def preview(image_bgr: np.ndarray) -> np.ndarray:
    """Convert an 8-bit or 16-bit image, with or without alpha, for display on the page.

    Returns (H, W, 3) uint8 BGR; the longer side is at most PREVIEW_PIXELS.
    """
    height, width = image_bgr.shape[:2]
    scale = PREVIEW_PIXELS / max(height, width)
    if scale < 1:
        size = [max(1, round(n * scale)) for n in (width, height)]
        image_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    if image_bgr.dtype == np.uint16:
        image_bgr = (image_bgr >> 8).astype(np.uint8)
    return image_bgr[:, :, :3]


def color_file(
    nets: dict[str, ChrominanceNet],
    path: Path,
    name: str,
    strength: float,
    folder: Path,
) -> tuple[Path, Path, Path]:
    """Colorize one file with the network `name` and write three files to `folder`.

    Returns the paths of the previews before and after (JPEG) and of the download (full-size
    PNG, with 16 bits and alpha if the file has them). Raises InputError if the file cannot
    be read.
    """
    image_bgr = read_photograph(path)
    before, after = folder / "before.jpg", folder / "after.jpg"
    download = folder / f"{Path(path).stem}-colored.png"
    write_image(before, preview(image_bgr))
    colored_bgr = colorize(nets[name], image_bgr, strength)
    del image_bgr  # encoding a large PNG needs its memory
    write_image(after, preview(colored_bgr))
    write_image(download, colored_bgr)
    return before, after, download


def draw_examples(folder: Path, size: int = 384) -> list[Path]:
    """Write four portraits that look like old photos to `folder` as PNG files."""
    paths = []
    for style, sitter in EXAMPLE_SITTERS.items():
        paths.append(folder / f"{style}.png")
        write_image(paths[-1], make_old(render_portrait(sitter, 1, size=size), style))
    return paths


def make_old(image_bgr: np.ndarray, style: str) -> np.ndarray:
    """Remove the colors from a portrait (H, W, 3) uint8 BGR; keep its shape and dtype.

    style  "gray"; "faded": low contrast; "sepia": brown, with grain; "dark": dim corners
    """
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    tone = np.ones(3, np.float32)
    if style == "faded":
        gray = 70 + 0.6 * gray
    elif style == "sepia":
        grain = np.random.default_rng(0).normal(0, 6, gray.shape)
        gray, tone = 25 + 0.8 * gray + grain.astype(np.float32), SEPIA_BGR
    elif style == "dark":
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in gray.shape)
        gray = 0.8 * gray * (1 - 0.3 * (x**2 + y[:, None] ** 2))
    return np.clip(np.round(gray[:, :, None] * tone), 0, 255).astype(np.uint8)


def _announced_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the file's header, or (0, 0) if Pillow cannot read it."""
    try:
        with Image.open(path) as image:
            return image.size
    except Image.DecompressionBombError:
        return 2**16, 2**16
    except (OSError, ValueError, SyntaxError):
        return 0, 0


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise UnreadableImage(f"more than {MAX_MEGAPIXELS} megapixels")
