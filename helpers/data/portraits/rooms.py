"""Rooms behind the drawn portraits, one function per room."""

from functools import lru_cache

import cv2
import numpy as np

from helpers.data.portraits.sitters import PALETTE, linear_bgr


def box(room, x, y, width, height, hex_rgb: str, gain=1.0) -> None:
    """Fill a rectangle of room, in place, with gain times a color."""
    x, y, right, bottom = (max(0, int(edge)) for edge in (x, y, x + width, y + height))
    room[y:bottom, x:right] = linear_bgr(hex_rgb) * gain


def bookshelf(room, rng) -> None:
    """Paint wooden boards and the spines of books."""
    room[:], board = linear_bgr("3a2a1e"), rng.integers(27, 40)
    for floor in range(board - 12, 200, board):
        x = 0
        while x < 160:
            width, height = rng.integers(3, 9), board * rng.uniform(0.5, 0.85)
            spine, gain = PALETTE["spine"][rng.integers(6)], rng.uniform(0.6, 1.2)
            box(room, x, floor - height, width, height, spine, gain)
            x += width
        box(room, 0, floor, 160, 3, "805a3a")


def curtain(room, rng) -> None:
    """Paint hanging folds; the color depends on their width."""
    dye, pitch = (("803834", 0.8), ("46626e", 0.5), ("a89678", 0.3))[rng.integers(3)]
    x = np.arange(160) + 3 * np.sin(np.arange(160) / rng.uniform(5, 9))
    folds = 0.62 + 0.38 * np.sin(x * pitch + rng.uniform(0, 6))
    room[:] = linear_bgr(dye) * folds[:, None]


def bricks(room, rng) -> None:
    """Paint rows of bricks in pale mortar."""
    room[:] = linear_bgr("968a7c")
    for x, y in np.ndindex(7, 14):
        box(room, x * 27 - y % 2 * 13, y * 12, 25, 10, "94543e", rng.uniform(0.6, 1.1))


def garden(room, rng) -> None:
    """Paint leaves from deep shade to sunlit yellow-green."""
    room[:] = shade = linear_bgr("1e2a1a")
    glow = linear_bgr("809048") - shade
    for sun in np.linspace(0, 1, 150) ** 2:
        x, y, angle = rng.integers((160, 160, 180)).tolist()
        axes = rng.integers((5, 3), (12, 6)).tolist()
        leaf = cv2.ellipse2Poly((x, y), axes, angle, 0, 360, 30)
        cv2.fillPoly(room, [leaf], (shade + sun * glow).tolist(), cv2.LINE_AA)


def planks(room, rng) -> None:
    """Paint upright boards with grain."""
    width, (y, x) = rng.integers(17, 28), np.mgrid[:160, :160]
    grain = 1 + 0.1 * np.sin(x * 1.4 + 3 * np.sin(y * 0.05 + 5 * (x // width)))
    board = rng.uniform(0.7, 1.15, 12)[x // width] * np.where(x % width < 1, 0.45, 1)
    room[:] = linear_bgr("8e6440") * (grain * board)[..., None]


def plaster(room, rng) -> None:
    """Paint a pale wall with framed pictures."""
    room[:] = linear_bgr(rng.choice(PALETTE["wall"]))
    for _ in range(rng.integers(1, 4)):
        (x, y), (w, h) = rng.integers(0, 138, 2), rng.integers((18, 25), (44, 50))
        box(room, x + 2, y + 4, w, h, "5a5a5a")
        box(room, x, y, w, h, "463022")
        box(room, x + 4, y + 4, w - 8, h - 8, "828270", rng.uniform(0.5, 1.4))


ROOMS = (bookshelf, curtain, bricks, garden, planks, plaster, plaster)


@lru_cache(maxsize=16)
def furnish(room_index: int, room_seed: int) -> np.ndarray:
    """Return a blurred room, (160, 160, 3) float32 linear BGR, shared by a session."""
    room, rng = np.zeros((160, 160, 3), np.float32), np.random.default_rng(room_seed)
    ROOMS[room_index](room, rng)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.7, 1.6))
