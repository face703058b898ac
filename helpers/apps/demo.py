"""The demo: a browser page that colorizes the photos dropped on it."""

import os
import secrets
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor
from skimage import data as skimage_data

from helpers.apps.colorize import LIVELY, Box, colorize
from helpers.apps.face_boxes import find_faces, is_available
from helpers.apps.hints import Hints, Point, parse_color
from helpers.apps.page import (
    HOST,
    MAX_MEGAPIXELS,
    USER,
    Settings,
    build_page,
    import_gradio,
    launch,
)
from helpers.data.images import UnreadableImage, decode_picture, write_image
from helpers.data.portraits import render_portrait
from helpers.files import InputError
from helpers.nets import ChrominanceNet
from helpers.training.signals import StopSignals
from helpers.training.weights import WEIGHTS, find_weights, load_weights

OWN = ("portrait",)  # the network in weights/ that the page uses
WHITE = (255, 255, 255)
KEPT_PREVIEWS = 4
PREVIEW_PIXELS = 1600  # longer side of the images shown; downloads have full size
POLL_SECONDS = 0.2
EXAMPLE_SITTERS = {"gray": 7, "faded": 3, "sepia": 11}
SEPIA_BGR = np.array([0.72, 0.93, 1.08], np.float32)


def serve(
    weights: tuple[str, ...],
    port: int,
    log: Callable[[str], None],
    host: str = HOST,
) -> None:
    """Serve the page until Ctrl-C or TERM.

    weights  names or files of networks, see `load_networks`
    port     the first port to try; if it is in use, the next free one is used
    host     HOST serves this computer only; for any other, a password is made and logged

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
        page = build_page(gradio, list(nets), examples, Painter(nets))
        password = "" if host == HOST else secrets.token_urlsafe(9)
        address = launch(gradio, page, port, host, password)
        log(f"networks: {', '.join(nets)}")
        if password:
            log(f"user name: {USER}, password: {password}")
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
    return to_8_bits(image_bgr)[:, :, :3]


def to_8_bits(image_bgr: np.ndarray) -> np.ndarray:
    """Convert an 8-bit or 16-bit image to 8 bits."""
    is_16_bits = image_bgr.dtype == np.uint16
    return (image_bgr >> 8).astype(np.uint8) if is_16_bits else image_bgr


class Painter:
    """Colorizes the photos of the page; see `page.Worker`.

    The previews of the last few photos and their small faces are kept, so that a click
    on a large photo is answered quickly.
    """

    def __init__(self, nets: dict[str, ChrominanceNet]):
        self.nets = nets
        self._preview = lru_cache(KEPT_PREVIEWS)(self._read_preview)

    def paint(
        self, paths: Sequence[Path], settings: Settings, folder: Path
    ) -> tuple[list[Path], list[str]]:
        """Colorize photos; the first one is shown.

        Returns four files in `folder`: previews before and after (JPEG), a preview with
        the hints and faces marked, and the download: a PNG of full size (with 16 bits and
        alpha if the photo has them) or a JPEG; a zip if there are several photos. Also
        returns why others than the first could not be read, one line per file. Raises
        InputError if the first cannot be read.
        """
        first, *others = paths
        before, after = folder / "before.jpg", folder / "after.jpg"
        image_bgr, small_bgr = read_photograph(first), self._preview(first)[0]
        colored_bgr = self._colorize(image_bgr, settings)
        write_image(before, small_bgr)
        write_image(after, preview(colored_bgr))
        del image_bgr  # encoding a large PNG needs its memory
        files = [write_download(colored_bgr, first, folder, settings.jpeg)]
        canvas = self._mark(preview(colored_bgr), first, settings, folder)
        del colored_bgr
        plain, unreadable = replace(settings, points=(), boxes=()), []
        for path in others:
            try:
                colored_bgr = self._colorize(read_photograph(path), plain)
            except InputError as error:
                unreadable.append(str(error))
            else:
                files.append(write_download(colored_bgr, path, folder, settings.jpeg))
        download = _zip(files, folder / "colored.zip") if others else files[0]
        return [before, after, canvas, download], unreadable

    def touch(self, path: Path, settings: Settings, folder: Path) -> Path:
        """Colorize only the preview of a photo, and mark the hints and faces in it."""
        small_bgr, faces = self._preview(path)
        colored_bgr = self._colorize(small_bgr, settings, faces)
        return self._mark(colored_bgr, path, settings, folder)

    def _read_preview(self, path: Path) -> tuple[np.ndarray, list[Box]]:
        small_bgr = preview(read_photograph(path))
        return small_bgr, find_faces(small_bgr)[0] if is_available() else []

    def _colorize(self, image_bgr, settings: Settings, faces=None) -> np.ndarray:
        """Colorize a photo; `faces` are its small faces, if they have been found."""
        net, (height, width) = self.nets[settings.network], image_bgr.shape[:2]
        if not settings.faces:
            faces = []
        elif faces is None:
            faces = find_faces(image_bgr)[0] if is_available() else []
        boxes = faces + [scale_box(box, width, height) for box in settings.boxes]
        points = [
            Point(int(x * width), int(y * height), parse_color(color))
            for x, y, color in settings.points
        ]
        strength = settings.strength * (LIVELY if settings.lively else 1)
        return colorize(net, image_bgr, strength, boxes, Hints(points))

    def _mark(self, small_bgr, path: Path, settings: Settings, folder: Path) -> Path:
        """Draw the small faces and the hints; write the picture, return its path."""
        marked_bgr, file = small_bgr.copy(), folder / "canvas.jpg"
        height, width = marked_bgr.shape[:2]
        radius = max(4, max(height, width) // 150)
        faces = self._preview(path)[1] if settings.faces else []
        drawn = [scale_box(box, width, height) for box in settings.boxes]
        for left, top, wide, high in faces + drawn:
            corners = (left, top), (left + wide, top + high)
            cv2.rectangle(marked_bgr, *corners, WHITE, max(1, radius // 4))
        for x, y, color in settings.points:
            center = int(x * width), int(y * height)
            cv2.circle(marked_bgr, center, radius + 2, WHITE, -1, cv2.LINE_AA)
            color_bgr = ImageColor.getrgb(color)[2::-1]
            cv2.circle(marked_bgr, center, radius, color_bgr, -1, cv2.LINE_AA)
        write_image(file, marked_bgr)
        return file


def scale_box(box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """Convert (left, top, right, bottom) in 0..1 to a box of at least 1 x 1 pixels."""
    left, top, right, bottom = box
    first = int(left * width), int(top * height)
    return (
        *first,
        max(1, round(right * width) - first[0]),
        max(1, round(bottom * height) - first[1]),
    )


def write_download(image_bgr, path: Path, folder: Path, jpeg: bool) -> Path:
    """Write a colorized photo in full size as JPEG or PNG; return the new file's path."""
    if jpeg:
        image_bgr = to_8_bits(image_bgr)[:, :, :3]
    number, stem = 1, f"{Path(path).stem}-colored"
    suffix = ".jpg" if jpeg else ".png"
    while (file := folder / (stem + suffix)).exists():  # two photos of one name
        number += 1
        stem = f"{Path(path).stem}-{number}-colored"
    write_image(file, image_bgr)
    return file


def _zip(files: Sequence[Path], target: Path) -> Path:
    """Move files into a zip, without compression: they are compressed already."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in files:
            archive.write(file, file.name)
            file.unlink()
    return target


def draw_examples(folder: Path, size: int = 384) -> list[Path]:
    """Write examples to `folder` as PNG files: a free photograph, drawn portraits.

    The photograph is NASA's portrait of Eileen Collins, which scikit-image contains.
    """
    paths = []
    for style, sitter in EXAMPLE_SITTERS.items():
        paths.append(folder / f"{style}.png")
        write_image(paths[-1], make_old(render_portrait(sitter, 1, size=size), style))
    paths.insert(0, folder / "astronaut.png")
    gray = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2GRAY)
    write_image(paths[0], gray)
    return paths


def make_old(image_bgr: np.ndarray, style: str) -> np.ndarray:
    """Remove the colors from a portrait (H, W, 3) uint8 BGR; keep its shape and dtype.

    style  "gray"; "faded": low contrast; "sepia": brown, with grain
    """
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    tone = np.ones(3, np.float32)
    if style == "faded":
        gray = 70 + 0.6 * gray
    elif style == "sepia":
        grain = np.random.default_rng(0).normal(0, 6, gray.shape)
        gray, tone = 25 + 0.8 * gray + grain.astype(np.float32), SEPIA_BGR
    return np.clip(np.round(gray[:, :, None] * tone), 0, 255).astype(np.uint8)


def _announced_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the file's header, or (0, 0) if Pillow cannot read it."""
    try:
        with Image.open(path) as image:
            return image.size
    except Image.DecompressionBombError:
        return 2**16, 2**16
    except Exception:  # a damaged file can raise nearly anything
        return 0, 0


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise UnreadableImage(f"more than {MAX_MEGAPIXELS} megapixels")
