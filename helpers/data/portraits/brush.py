"""Drawing operations of the portraits: outlines, paint, shadows and lamp light."""

from functools import cache

import cv2
import numpy as np

from helpers.data.portraits.sitters import Frame, Shot, read_rows

# Right halves, from top to bottom, as x y pairs.
HALF_OUTLINES = read_rows("""\
skull     0 -1  .4 -.92  .66 -.6  .73 -.15  .71 .25  .6 .62  .3 .93  0 1
ear       0 -.16  .09 -.12  .1 .05  .05 .24  0 .3
beard     0 .8  .24 .74  .36 .55  .56 .4  .64 .1  .74 .1  .72 .5  .5 1.08  0 1.14
moustache 0 .47  .2 .52  .33 .68  .25 .64  0 .57
fold      .19 .4  .3 .52  .34 .66  .36 .66  .33 .5
temple    .53 -.06  .74 -.08  .74 -.04  .53 -.01
neck      0 .5  .4 .6  .38 1.1  .6 1.5  0 1.9
body      0 1.1  .42 1.2  .8 1.38  1.36 1.56  1.52 2  1.6 3.2  0 3.2
throat    0 -.1  .4 .1  .36 .45  .2 .86  .04 1
flap      .4 1.02  .4 1.02  .62 1.25  .34 1.66  .34 1.66  .02 1.48
beanie    0 -1.24  .5 -1.12  .8 -.75  .83 -.4  0 -.5
rim       0 -.68  .6 -.64  .86 -.54  .86 -.3  .5 -.42  0 -.46""")

RELIEF_CELLS = 24  # per head unit
RELIEF_X = np.arange(-1.6, 1.6, 1 / RELIEF_CELLS, np.float32)
RELIEF_Y = np.arange(-1.8, 2.2, 1 / RELIEF_CELLS, np.float32)


def flood(color, width: int) -> np.ndarray:
    """Return a row of one color, (width, 3) float32.

    NumPy combines images with such a row ten times faster than with three numbers.
    """
    return np.tile(np.asarray(color, np.float32), (width, 1))


@cache
def half_outline(name: str) -> np.ndarray:
    """Return an outline of the table, (N, 2) float64."""
    return np.array(HALF_OUTLINES[name], float).reshape(-1, 2)


@cache
def whole_outline(name: str) -> np.ndarray:
    """Return the closed curve of a symmetric outline of the table, (N, 2) float64."""
    return mirrored(half_outline(name))


def mirrored(right) -> np.ndarray:
    """Return the smooth closed curve of a right half (N, 2) and its mirror image."""
    right = np.asarray(right)
    return smooth(np.concatenate([right, right[::-1] * (-1, 1)]))


def smooth(points, steps: int = 6) -> np.ndarray:
    """Return the closed Catmull-Rom curve through points (N, 2) as (N * steps, 2)."""
    closed = np.concatenate([points[-1:], points, points[:2]])[:, None]
    before, here, after, beyond = closed[:-3], closed[1:-2], closed[2:-1], closed[3:]
    t = np.arange(steps)[:, None] / steps
    square, cube = 2 * before - 5 * here + 4 * after - beyond, 3 * (here - after)
    curve = after - before + t * (square + t * (cube + beyond - before))
    return (here + 0.5 * t * curve).reshape(-1, 2)


def ellipse(x: float, y: float, width: float, height: float, power=2.0) -> np.ndarray:
    """Return a (super)ellipse of half width and half height as points (24, 2)."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.sign(circle) * abs(circle) ** (2 / power) * (width, height) + (x, y)


def ribbon(x, upper_y, lower_y) -> np.ndarray:
    """Return the outline (2 N, 2) between two curves over the same x, (N,) each."""
    upper, lower = np.stack([x, upper_y], axis=1), np.stack([x, lower_y], axis=1)
    return np.concatenate([upper, lower[::-1]])


def mask_of(side: int, *outlines) -> np.ndarray:
    """Return outlines of `Frame.place` as a filled mask, (side, side) float32 0..1."""
    mask = np.zeros((side, side), np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def paint(layer, frame, points, color, opacity=1.0, blur=0.0, tint=False, depth=None):
    """Paint a shape (N, 2) on layer (H, W, 3) float32, in place.

    points and blur are in head units; color is linear BGR. With tint, the layer is
    multiplied by the color.
    """
    outline, softness = frame.place(points, depth), blur * frame.unit
    pad = int(3 * softness) + 2
    left, top = np.maximum(outline.min(0) // 16 - pad, 0)
    right, bottom = np.maximum(outline.max(0) // 16 + pad, 0)
    region = layer[top:bottom, left:right]
    if not region.size:
        return
    mask = np.zeros(region.shape[:2], np.uint8)
    outline = outline - np.array([left, top], np.int32) * 16
    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)
    if softness:
        # Not stackBlur: its pixels depend on the number of threads.
        mask = cv2.GaussianBlur(mask, (0, 0), softness)
    weight = cv2.merge([mask] * 3) * np.float32(opacity / 255)
    color = flood(color, region.shape[1])
    region += weight * (region * (color - 1) if tint else color - region)


def cover(canvas, layer, mask) -> None:
    """Blend layer (H, W, 3) over canvas, in place, with the weights mask (H, W)."""
    cv2.blendLinear(layer, canvas, mask, 1 - mask, dst=canvas)


def cast_shadow(layer, mask, shift, blur: float, strength: float) -> None:
    """Darken layer, in place, by the shadow of mask moved by shift (x, y) pixels."""
    small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, shift[0] / 4], [0, 1, shift[1] / 4]])
    small = cv2.warpAffine(small, move, small.shape[::-1])
    small = 1 - np.float32(strength) * cv2.GaussianBlur(small, (0, 0), blur / 4)
    layer *= cv2.resize(cv2.merge([small] * 3), mask.shape[::-1])


def both_sides(table: str, columns: int) -> np.ndarray:
    """Return the rows of a table, and their mirror images where x is not 0."""
    rows = np.array(table.split(), float).reshape(-1, columns)
    mirror = np.where(np.arange(columns) == 0, -1, 1)
    return np.concatenate([rows, rows[rows[:, 0] > 0] * mirror])


def dome(y: float, width: float, height: float, rise: float) -> np.ndarray:
    """Return half an ellipsoid around (0, y) as a relief, flattened at its rim."""
    square = (RELIEF_X / width) ** 2 + ((RELIEF_Y[:, None] - y) / height) ** 2
    return rise * np.sqrt(np.clip(1 - square, 0.02, 1))


def lit(relief, shot: Shot, frame: Frame, side: int, sheen=0.0, tint=1.0, power=24):
    """Return the light on a relief, (side, side, 3) float32, a factor of the color.

    sheen is the weight of the reflected light, a number or (3,) BGR; tint is a factor.
    """
    slope_y, slope_x = np.gradient(relief.astype(np.float32), 1 / RELIEF_CELLS)
    steep = np.sqrt(slope_x**2 + slope_y**2 + 1)
    cos, sin = np.cos(frame.roll), np.sin(frame.roll)
    light = shot.light @ [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
    half = light + np.array([0, 0, 1])
    half /= np.linalg.norm(half)

    def facing(way) -> np.ndarray:
        across, down, ahead = way.tolist()
        cosine = (ahead - across * slope_x - down * slope_y) / steep
        return np.maximum(cosine, 0)[..., None]

    diffuse = 0.42 + shot.key * (0.1 + 0.9 * facing(light))
    # Skin and cloth let red light through, so the edge of a shadow is warmer.
    warmer = np.array([1.12, 1.0, 0.9], np.float32)
    bounced = tint * diffuse**warmer + sheen * facing(half) ** power
    grid = frame.matrix()
    grid[:, 2] += grid[:, :2] @ (RELIEF_X[0], RELIEF_Y[0])
    grid[:, :2] /= RELIEF_CELLS
    light, size = bounced.astype(np.float32), (side, side)
    return cv2.warpAffine(light, grid, size, borderMode=cv2.BORDER_REPLICATE)
