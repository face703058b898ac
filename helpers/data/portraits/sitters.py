"""Sitters, sessions and shots of the drawn portraits, drawn at random.

Shapes are in head units: the origin lies between the eyes, x points right, y down, the
chin is at y = 1. Colors are linear BGR.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

SHOTS_PER_SESSION = 5
NUM_ROOMS = 7  # the length of rooms.ROOMS


def read_rows(text: str) -> dict[str, list[str]]:
    """Read lines of words as {first word: the other words}."""
    return {name: words for name, *words in map(str.split, text.splitlines())}


# Lift above the skull, half width, y of the tips, y of the hairline, half width of the
# face between the hair, curl; five short styles, then five long or voluminous ones.
HAIR_STYLES = read_rows("""\
cropped   .06  .77  .02  -.66 .68 .005
combed    .17  .80  .04  -.65 .67 .008
quiff     .27  .79  .00  -.70 .68 .012
receding  .015 .78  .16 -1.30 .69 .012
curly     .24  .88  .15  -.64 .66 .040
bob       .17  .94  .85  -.34 .62 .008
long      .15  .90 1.70  -.68 .60 .010
wavy      .19 1.00 1.45  -.66 .60 .030
bun       .08  .78  .00  -.66 .68 .004
afro      .36 1.06  .40  -.67 .67 .040""")
PALETTE = read_rows("""\
hair   181515 2e2019 583c29 703821 a85a2e c8a36c 969392 d6d0c7
iris   3a2416 56381e 686034 4a6884 5c7460
hat    781e28 283c64 3c503c 5a5450 a0783c
spine  70342c 344258 968058 3e4c3a b0a084 3a2a1e
wall   cec6b8 babebe 969e94 b4bac4""")

# Weave, main color, second color, depth of the throat, color of the collar. The color
# depends on the weave, so a network can learn more than lightness alone contains.
GARMENTS = """\
plain   2c3858 242e4a  .6 -
plain   e4e2dc c8c6c2 1.0 dcdad6
pins    9e542e 823824  .7 -
plain   46484c 383a3e 1.2 -
plain   2e3036 26282e 1.0 e2e2e0
stripes ded8d0 2a3860  .6 -
stripes 3c646a cecabc  .9 -
check   962e2a 262024 1.0 962e2a
check   4a6282 ced2d4 1.0 4a6282
dots    622842 deccbc  .9 -
knit    84765c 625642 1.2 -
knit    385846 284034  .6 -
pins    acc0d6 e2e8f0 1.0 acc0d6""".splitlines()


@cache
def linear_bgr(hex_rgb: str) -> np.ndarray:
    """Return an sRGB color such as "ff8000" as linear light, (3,) float32 BGR 0..1."""
    return (np.array([*bytes.fromhex(hex_rgb)][::-1], np.float32) / 255) ** 2.2


def draw_skin(rng) -> np.ndarray:
    """Draw a skin color, (3,) float32 linear BGR, on the melanin and blood curve."""
    pale, deep, melanin = linear_bgr("f8d4be"), linear_bgr("4a2c21"), rng.beta(1.0, 1.8)
    # Melanin takes blue first and red last, so middle skins are golden, not gray.
    share = melanin ** np.array([0.8, 1.0, 1.2])
    blood = np.exp(rng.uniform(-0.14, 0.04) * np.array([0.9, 1.0, 0.0]))
    return (pale ** (1 - share) * deep**share * blood).astype(np.float32)


class Session:
    """Room, clothes and lamp, which the shots of one sitting share."""

    def __init__(self, rng) -> None:
        self.room, self.room_seed = rng.integers((NUM_ROOMS, 2**31)).tolist()
        self.garment = GARMENTS[rng.integers(len(GARMENTS))].split()
        self.hat_bgr = linear_bgr(rng.choice(PALETTE["hat"]))
        self.has_hat = rng.random() < 0.25
        self.lamp_x = rng.choice((-1, 1)) * rng.uniform(0.25, 0.75)
        self.warmth = rng.normal(0, 0.02)


class Sitter:
    """One person; lengths in head units or as factors, colors linear BGR."""

    def __init__(self, seed: int, sitter: int) -> None:
        rng = np.random.default_rng([seed, sitter])
        self.skin_bgr, self.age = draw_skin(rng), rng.beta(1.3, 2.0)
        dark, soft = 1 - self.skin_bgr[1] ** 0.45, rng.random() < 0.5
        self.style = list(HAIR_STYLES)[rng.integers(5) + 5 * soft]
        self.lift, self.side, self.drop, *rest = map(float, HAIR_STYLES[self.style])
        self.hairline, self.opening, self.curl = rest
        self.part = rng.uniform(-0.35, 0.35)
        self.hairline += rng.normal(0, 0.03)
        gray = 3 * self.age**2
        odds = np.array([1, 1.6, 1.4, 0.6, 0.6, 1.3, gray, gray * self.age])
        odds *= (3, 1.5, 0.2, 0, 0, 0, 1, 0.6) if dark > 0.45 else 1
        self.hair_bgr = linear_bgr(rng.choice(PALETTE["hair"], p=odds / odds.sum()))
        iris = rng.integers(2 if dark > 0.4 else 5)
        self.iris_bgr = linear_bgr(PALETTE["iris"][iris])
        lips = linear_bgr("ba5458" if soft else "b06e64")
        self.lips_bgr = self.skin_bgr * 0.3 + lips * (0.3 + 0.4 * self.skin_bgr[1])
        self.width, self.nose = rng.normal(1, 0.035), rng.uniform(0.8, 1.25)
        self.jaw = rng.uniform(-0.06, 0.02) if soft else rng.uniform(-0.02, 0.12)
        self.eye_tilt, self.mouth = rng.normal((0.015, 0.235), 0.015)
        self.brow = rng.uniform(0.6, 0.9) if soft else rng.uniform(0.8, 1.35)
        self.lip_fullness = rng.uniform(0.8, 1.2) + 0.35 * dark
        self.beard = 0.0 if soft else rng.choice((0, 0, 0.3, 0.55, 0.9))
        self.glasses = rng.choice((0, 0, 0, 0, 2, 4))  # the power of the superellipse
        self.sessions = [Session(rng) for _ in range(3)]


@lru_cache(maxsize=8)
def meet(seed: int, sitter: int) -> Sitter:
    """Return the sitter of a seed; the shots of one sitter share the object."""
    return Sitter(seed, sitter)


@dataclass(frozen=True)
class Frame:
    """A pose: maps head units to canvas pixels; points turn and nod by their depth."""

    center: np.ndarray
    unit: float
    roll: float = 0.0
    turn: float = 0.0
    nod: float = 0.0

    def matrix(self) -> np.ndarray:
        """Return the (2, 3) float64 affine map of turned head units to pixels."""
        cos, sin = self.unit * np.cos(self.roll), self.unit * np.sin(self.roll)
        return np.array([[cos, -sin, self.center[0]], [sin, cos, self.center[1]]])

    def turned(self, points, depth=None) -> np.ndarray:
        """Turn and nod points (N, 2); without a depth they lie on the face."""
        x, y = np.asarray(points, float).T
        if depth is None:
            square = 1 - (x / 0.86) ** 2 - (y / 1.2) ** 2
            depth = 0.8 * np.sqrt(np.maximum(square, 0.05))
        x = x * np.cos(self.turn) + depth * np.sin(self.turn)
        return np.stack([x, y + depth * np.sin(self.nod)], axis=1)

    def place(self, points, depth=None) -> np.ndarray:
        """Return points (N, 2) as sixteenths of pixels, (N, 2) int32, for OpenCV."""
        matrix = self.matrix()
        pixels = self.turned(points, depth) @ matrix[:, :2].T + matrix[:, 2]
        return np.round(pixels * 16).astype(np.int32)


class Shot:
    """One exposure: pose, expression, light and camera, on a canvas of side pixels."""

    def __init__(self, seed: int, sitter: int, shot: int, person: Sitter, side: int):
        self.rng = rng = np.random.default_rng([seed, sitter, shot])
        self.session = person.sessions[(shot - 1) // SHOTS_PER_SESSION % 3]
        center = side * rng.normal((0.5, 0.475), (0.025, 0.012))
        roll, turn, nod = np.clip(rng.normal(0, (0.05, 0.16, 0.07)), -0.35, 0.35)
        self.frame = Frame(center, side * rng.uniform(0.265, 0.315), roll, turn, nod)
        self.smile = rng.choice((0.0, 0.35, 0.8, 1.0))
        self.mouth_open = rng.uniform(0, 0.3)
        self.mouth_open += (self.smile > 0.5) * rng.uniform(0.2, 0.7)
        self.eyes_open = rng.uniform(0.8, 1.1) - 0.2 * self.smile
        self.gaze = rng.normal(0, 0.02)
        light = np.array([self.session.lamp_x + rng.normal(0, 0.2), -0.55, 0.8])
        self.light, self.key = light / np.linalg.norm(light), rng.uniform(0.6, 1.1)
        warmth, tint = self.session.warmth + rng.normal(0, 0.013), rng.normal(0, 0.006)
        balance = np.array([-1.3 * warmth, -tint, warmth])
        self.gains_bgr = np.exp(rng.normal(0, 0.12) + balance).astype(np.float32)
