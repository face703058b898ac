"""The demo: a page in the browser that colors the photograph that is dropped on it."""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.apps.colorize import colorize
from helpers.apps.page import HOST, MAX_MEGAPIXELS, build_page, import_gradio, launch
from helpers.data.images import UnreadableImage, decode_picture, write_image
from helpers.data.portraits import render_portrait
from helpers.files import InputError
from helpers.nets import ChrominanceNet
from helpers.training.checkpoint import WEIGHTS, find_weights, load_network
from helpers.training.signals import StopSignals

OWN = ("colorizer", "classifier")  # the networks of weights/ that color
SHOWN_PIXELS = 1600  # longer side of what the page shows; the download is full size
PORTS = 100  # so many ports are tried, from the wished one on
POLL_SECONDS = 0.2
EXAMPLE_SITTERS = {"gray": 7, "faded": 3, "sepia": 11, "dark": 2}
SEPIA_BGR = np.array([0.72, 0.93, 1.08], np.float32)


def serve(weights: tuple[str, ...], port: int, log: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or TERM.

    weights  names or files of networks, as `load_networks` takes them
    port     the first to try; the next free one is taken when it is not

    Raises InputError when gradio is missing, no network can color, or no port is free.
    """
    with (
        StopSignals() as signals,
        tempfile.TemporaryDirectory(
            prefix="deepcolor-demo-", ignore_cleanup_errors=True
        ) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        gradio = import_gradio()
        nets = load_networks(weights)
        examples = draw_examples(Path(folder) / "examples")
        page = build_page(gradio, list(nets), examples, partial(color_file, nets))
        port = free_port(port)
        launch(gradio, page, port)
        log(f"networks: {', '.join(nets)}")
        log(f"open http://{HOST}:{port} in a browser; Ctrl-C ends it")
        while signals.received is None:
            time.sleep(POLL_SECONDS)
        page.close(verbose=False)


def load_networks(weights: tuple[str, ...] = ()) -> dict[str, ChrominanceNet]:
    """The networks to choose from, by name.

    `weights` are names or files, as `find_weights` takes them; none: those of OWN that
    are there. Raises InputError when none is, or one that is named colors nothing.
    """
    own = [name for name in OWN if (WEIGHTS / f"{name}.safetensors").is_file()]
    nets = {}
    for path in map(find_weights, weights or own):
        net = load_network(path, "colorizer")
        nets[path.stem if path.stem not in nets else str(path)] = net
    if not nets:
        raise InputError(
            "weights/: no network that colors lies here; train one "
            "(`deepcolor train best/scratch`) and give its file with --weights"
        )
    return nets


def free_port(first: int) -> int:
    """The first port from `first` on that is free here; raises InputError."""
    for port in range(first, min(first + PORTS, 2**16)):
        with socket.socket() as probe:
            if os.name == "posix":  # on Windows this would share a taken port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise InputError(f"--port {first}: none of {PORTS} ports is free; give another")


def read_photograph(path: Path) -> np.ndarray:
    """A file that was dropped on the page, as `decode_picture` has it.

    Its size is looked at before its pixels are. Raises InputError with the file's name
    (not its folder), the reason and the next step.
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
            f"{path.name}: no longer kept here; choose it again"
        ) from error
    return image_bgr


def shown(image_bgr: np.ndarray) -> np.ndarray:
    """What the page shows of a picture of 8 or 16 bits, with alpha or without.

    Returns (H, W, 3) uint8 BGR, its longer side at most SHOWN_PIXELS.
    """
    height, width = image_bgr.shape[:2]
    scale = SHOWN_PIXELS / max(height, width)
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
    """Color one photograph file by the network of a name; three files go to `folder`.

    Returns what to show before and after (JPEG, at most SHOWN_PIXELS) and what to
    download (PNG, full size; 16 bits and alpha are kept). Raises InputError for a file
    that cannot be read.
    """
    image_bgr = read_photograph(path)
    before, after = folder / "before.jpg", folder / "after.jpg"
    download = folder / f"{Path(path).stem}-colored.png"
    write_image(before, shown(image_bgr))
    colored_bgr = colorize(nets[name], image_bgr, strength)
    del image_bgr  # a large photograph's PNG needs the memory
    write_image(after, shown(colored_bgr))
    write_image(download, colored_bgr)
    return before, after, download


def draw_examples(folder: Path, size: int = 384) -> list[Path]:
    """Four drawn portraits as old photographs: PNG files in `folder`, named by `age`."""
    paths = []
    for name, sitter in EXAMPLE_SITTERS.items():
        paths.append(folder / f"{name}.png")
        write_image(paths[-1], age(render_portrait(sitter, 1, size=size), name))
    return paths


def age(image_bgr: np.ndarray, how: str) -> np.ndarray:
    """A portrait (H, W, 3) uint8 BGR without its colors, of the same shape and type.

    how  "gray", no more; "faded", low in contrast; "sepia", brown and grained; "dark",
         with dim corners
    """
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    tone = np.ones(3, np.float32)
    if how == "faded":
        gray = 70 + 0.6 * gray
    elif how == "sepia":
        grain = np.random.default_rng(0).normal(0, 6, gray.shape)
        gray, tone = 25 + 0.8 * gray + grain.astype(np.float32), SEPIA_BGR
    elif how == "dark":
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in gray.shape)
        gray = 0.8 * gray * (1 - 0.3 * (x**2 + y[:, None] ** 2))
    return np.clip(np.round(gray[:, :, None] * tone), 0, 255).astype(np.uint8)


def _announced_size(path: Path) -> tuple[int, int]:
    """(width, height) in the file's head; (0, 0) where only OpenCV can tell."""
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
