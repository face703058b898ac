"""Color hints that a user gives for a photograph: points, or its mean color."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ImageColor

from helpers.data.images import read_image
from helpers.data.lab import bgr_to_lab
from helpers.files import InputError
from helpers.nets import HintedUNet
from helpers.nets.hinted import MEAN_MASK

POINT_SIDE = 8  # side of a point's square in pixels of the network's input
MIN_CHROMA = 1.0  # below this mean distance from gray, a reference has no color
TONES = {"warm": (2.0, 8.0), "neutral": (0.0, 0.0), "cool": (-2.0, -8.0)}

Color = tuple[float, float]  # a*, b* in natural units


@dataclass(frozen=True)
class Point:
    """A hint: the color of one place in a photograph, x and y in pixels."""

    x: int
    y: int
    color: Color


@dataclass(frozen=True)
class Hints:
    """The hints for one photograph.

    points  colors of single places
    mean    mean a*, b* of the whole photograph, or None
    """

    points: Sequence[Point] = ()
    mean: Color | None = None

    def __bool__(self) -> bool:
        return bool(self.points) or self.mean is not None

    def check(self, net, height: int, width: int) -> None:
        """Raise InputError if the network takes no hints or a point is outside."""
        if self and not isinstance(net, HintedUNet):
            raise InputError(
                "this network does not accept color hints; use --weights portrait"
            )
        for point in self.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise InputError(
                    f"hint {point.x},{point.y}: not inside the photograph of {width} x "
                    f"{height} pixels; x is counted from the left, y from the top"
                )

    def within(self, box: tuple[int, int, int, int], mean: Color) -> "Hints":
        """Return the hints for a box (left, top, width, height) of the photograph.

        mean  the color that has been predicted for the box with these hints
        """
        left, top, wide, high = box
        moved = [Point(p.x - left, p.y - top, p.color) for p in self.points]
        inside = [p for p in moved if 0 <= p.x < wide and 0 <= p.y < high]
        return Hints(inside, mean) if self else self

    def planes(self, photograph: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Return the planes a*, b*, mask, (3, h, w) float32, for the network's input.

        photograph  height and width in pixels, in which the points are given
        size        height and width of the network's input
        """
        planes = np.zeros((3, *size), np.float32)
        if self.mean is not None:
            planes[:] = np.array([*self.mean, MEAN_MASK])[:, None, None]
        for point in self.points:
            slices = [
                _around(place, length, new)
                for place, length, new in zip(
                    (point.y, point.x), photograph, size, strict=True
                )
            ]
            planes[:, *slices] = np.array([*point.color, 1.0])[:, None, None]
        return planes


def _around(place: int, length: int, new_length: int) -> slice:
    """Return the POINT_SIDE pixels around a place, after resizing `length`."""
    center = round((place + 0.5) * new_length / length)
    start = min(max(center - POINT_SIDE // 2, 0), max(new_length - POINT_SIDE, 0))
    return slice(start, start + POINT_SIDE)


def make_hints(
    net, points: Sequence[str] = (), like: str = "", tone: str = ""
) -> Hints:
    """Return the hints given on the command line.

    net     for `tone`: its mean color, which "warm" and "cool" shift
    points  X,Y=COLOR each, with a CSS name or a hex code
    like    a color photograph whose mean color is used
    tone    "warm", "neutral", "cool" or ""
    Raises InputError for anything that cannot be understood.
    """
    if like and tone:
        raise InputError("--like and --tone: both give the mean color; use only one")
    mean = None
    if like:
        mean = mean_color(read_image(Path(like)))
        if np.hypot(*mean) < MIN_CHROMA:
            raise InputError(f"{like}: has no color; give a color photograph")
    elif tone and isinstance(net, HintedUNet):
        shift = torch.tensor(TONES[tone])
        mean = tuple((net.scale.offset.cpu() + shift).tolist())
    elif tone:
        raise InputError("--tone: this network takes no hints; use --weights portrait")
    return Hints([parse_point(given) for given in points], mean)


def parse_point(given: str) -> Point:
    """Parse --hint X,Y=COLOR; raise InputError for anything else."""
    place, _, color = given.partition("=")
    try:
        x, y = map(int, place.split(","))
        return Point(x, y, parse_color(color))
    except (ValueError, OverflowError):  # rgb(300,0,0)
        raise InputError(
            f"--hint {given}: write X,Y=COLOR, two whole numbers in pixels and a color "
            "such as #c58c6a or navy"
        ) from None


def parse_color(text: str) -> Color:
    """Return a*, b* of a CSS color name or hex code; raise ValueError for others."""
    red, green, blue = ImageColor.getrgb(text.strip())[:3]
    return mean_color(np.array([[[blue, green, red]]], np.uint8))


def mean_color(image_bgr: np.ndarray) -> Color:
    """Return the mean a* and b* of image_bgr (H, W, 3) uint8."""
    a, b = bgr_to_lab(image_bgr)[:, :, 1:].mean(axis=(0, 1), dtype=np.float64)
    return float(a), float(b)
