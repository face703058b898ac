"""Drawn portraits: the default images of a user who has no photographs.

The drawing is deterministic. A Sitter is drawn from one random generator, a Shot from
another; then room, body, head, hair, hat and glasses are painted over one another in linear
light on an enlarged canvas. Shapes are in head units: the origin lies between the eyes, x
points right, y down, the chin is at y = 1. Each shape has a relief, a small height map, so
that one lamp lights all of them.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.data.portraits.brush import (
    RELIEF_X,
    RELIEF_Y,
    both_sides,
    cast_shadow,
    cover,
    dome,
    ellipse,
    flood,
    half_outline,
    lit,
    mask_of,
    mirrored,
    paint,
    ribbon,
    smooth,
    whole_outline,
)
from helpers.data.portraits.rooms import furnish
from helpers.data.portraits.sitters import Frame, Shot, Sitter, linear_bgr, meet
from helpers.files import PROJECT, free_cores

NUM_SITTERS = 50
SHOTS_PER_SITTER = 15
OVERSAMPLING = 2
SATURATION = 0.85
AMBER_BGR = (-0.4, 0.0, 0.42)

# Soft spots of color (cheeks, nose, eye sockets, below nose and lip): x, y, half width,
# half height, and the share of blue, green and red that they absorb.
FACE_SPOTS = """
.42 .30  .14 .11  .14 .14 0    0 .34  .09 .08  .13 .13 0
.30 -.02  .16 .09  .18 .16 .12    0 .44  .10 .035  .42 .40 .30
0 .82  .11 .03  .28 .26 .20"""
# Hills and hollows of the face: x, y, half width, half height, rise.
FACE_HILLS = """
0 .06  .07 .20 .10    0 .33  .10 .09 .17    .13 .38  .05 .05 .05
0 .58  .20 .05 .03    0 .70  .16 .05 .05    0 .80  .16 .04 -.03
0 .92  .17 .10 .07    .30 -.02  .15 .09 -.07    .28 -.20  .20 .06 .04
.42 .26  .17 .15 .07    .68 -.25  .10 .25 -.05"""


def paint_room(shot: Shot, side: int) -> np.ndarray:
    """Return the blurred room behind the sitter, (side, side, 3) float32 linear."""
    room = furnish(shot.session.room, shot.session.room_seed)
    ramp = np.linspace(-0.5, 0.5, 160, dtype=np.float32)
    fall = 0.85 * (1 + 0.7 * shot.light[0] * ramp + shot.light[1] * ramp[:, None])
    room = room * cv2.merge([np.float32(fall)] * 3)
    zoom = side / 160 * shot.rng.uniform(1.05, 1.2)
    pan_x, pan_y = (side - 160 * zoom) * shot.rng.uniform(0, 1, 2)
    place = np.array([[zoom, 0, pan_x], [0, zoom, pan_y]])
    return cv2.warpAffine(room, place, (side, side), borderMode=cv2.BORDER_REFLECT)


def gaussians(frame: Frame, x, y, wide, high, weights) -> np.ndarray:
    """Return the weighted sum of Gaussians on the turned face, a relief."""
    x, y = frame.turned(np.stack([x, y], axis=1)).T
    across = np.exp(-(((RELIEF_X - x[:, None]) / wide[:, None]) ** 2) / 2)
    down = np.exp(-(((RELIEF_Y[:, None] - y) / high) ** 2) / 2)
    return (down * weights) @ across


def face_light(person: Sitter, shot: Shot, side: int) -> np.ndarray:
    """Return light times tint of the turned face, (side, side, 3) float32."""
    x, y, wide, high, rise = both_sides(FACE_HILLS, 5).T
    nose = np.where(abs(y - 0.35) < 0.05, person.nose, 1)
    rise = rise * np.where(abs(x) == 0.42, 1 + 0.6 * shot.smile, 1)
    hills = gaussians(shot.frame, x * nose, y, wide * nose, high, rise)
    x, y, wide, high, *taken = both_sides(FACE_SPOTS, 7).T
    tint = [1 - gaussians(shot.frame, x, y, wide, high, share) for share in taken]
    sheen = 0.14 * shot.key / person.skin_bgr
    relief = dome(0, 0.86, 1.2, 0.8) + hills
    return lit(relief, shot, shot.frame, side, sheen, np.stack(tint, axis=-1))


def hair_masks(person: Sitter, frame: Frame, side: int, rng) -> list[np.ndarray]:
    """Return the masks of all hair and of the hair in front, (side, side) float32."""
    arc = np.linspace(0, np.pi / 2, 9)
    low, half, top = person.drop, person.opening, person.hairline
    crown = np.stack([np.sin(arc), -0.25 - (0.77 + person.lift) * np.cos(arc)], 1)
    tips = np.array([(1, low / 2 - 0.15), (0.96, low - 0.15), (0.7, low), (0, low)])
    outline = mirrored(np.concatenate([crown, tips]) * (person.side, 1))
    around = np.linspace(0, 2 * np.pi, len(outline), endpoint=False)
    for ripples in (9, 16, 25):
        swell = np.sin(ripples * around + rng.uniform(0, 6)) * person.curl * 0.45
        outline *= 1 + swell[:, None]
    hair = mask_of(side, frame.place(outline, -0.1))
    if person.style == "bun":
        knot = frame.place(ellipse(0, -1.2, 0.3, 0.27), -0.2)
        hair = np.maximum(hair, mask_of(side, knot))
    right = [(0, top), (half * 0.55, top + 0.05), (half * 0.93, top + 0.3), (half, 0.1)]
    right += [(half, 0.6), (half * 0.86, 1.1), (0.5, 1.6), (0.55, 2.6), (0, 2.6)]
    opening = mirrored(right)
    opening[:, 1] += np.where(opening[:, 1] < 0, opening[:, 0] * person.part * 0.5, 0)
    return [hair, hair * (1 - mask_of(side, frame.place(opening)))]


def paint_hair(person: Sitter, shot: Shot, side: int, rng) -> np.ndarray:
    """Return a layer of lit strands of hair, (side, side, 3) float32, without a mask."""
    t = np.linspace(0, 1, 20)[:, None]
    spread = person.side * rng.uniform(-1.2, 1.2, (120, 1, 1)) * (1, 0)
    top, tip = np.array([0, -0.9 - person.lift]), (0, max(person.drop, 0.3))
    root, bend = top + np.array([person.part * 0.8, 0]), top + spread * 1.15
    paths = (1 - t) ** 2 * root + 2 * t * (1 - t) * bend + t**2 * (spread + tip)
    phase = t * rng.uniform(24, 40, (120, 1, 1)) + rng.uniform(0, 6, (120, 1, 1))
    paths += 1.5 * person.curl * np.concatenate([np.sin(phase), np.cos(phase)], -1)
    pixels = shot.frame.place(paths.reshape(-1, 2), -0.1).reshape(120, -1, 2)
    tone = np.full((side, side), 128, np.uint8)
    for level in range(8):
        lines, gray = list(pixels[level::8]), 50 + level * 61 % 170
        cv2.polylines(tone, lines, False, gray, 1 + side // 200, cv2.LINE_8, 4)
    tone = tone * np.float32(0.65 / 128) + np.float32(0.35)
    relief = dome(-0.1, person.side + 0.1, 1.15 + person.lift, 0.9)
    sheen = 0.1 + 0.03 / person.hair_bgr
    light = lit(relief, shot, shot.frame, side, sheen, power=12)
    light *= flood(person.hair_bgr, side)
    light *= cv2.merge([tone] * 3)
    return light


def weave(kind: str, x, y) -> np.ndarray:
    """Return the share of a cloth's second color, 0..1, at head units x, y."""
    wave_x, wave_y = np.sin(x * 20), np.sin(y * 20)
    if kind == "stripes":
        band = wave_y * 4
    elif kind == "check":
        band = np.clip(wave_x * 4, -1, 1) + np.clip(wave_y * 4, -1, 1)
    elif kind == "dots":
        band = (wave_x * wave_y - 0.55) * 8
    elif kind == "knit":
        band = np.sin(x * 34) * (1.2 + np.sin(y * 60))
    elif kind == "pins":
        band = (np.sin(x * (34 + y)) - 0.7) * 6
    else:
        band = np.sin(x * 3 + y * 2)
    return np.clip(0.5 + 0.5 * band, 0, 1).astype(np.float32)


def paint_body(canvas, person: Sitter, shot: Shot) -> None:
    """Paint the lit neck and clothes over canvas, in place."""
    side, unit = len(canvas), shot.frame.unit
    frame = Frame(shot.frame.center + np.array([0.1 * unit * shot.frame.turn, 0]), unit)
    kind, main, second, depth, collar = shot.session.garment
    x, y = np.float32((np.arange(side) - frame.center[:, None]) / unit)
    share = cv2.merge([weave(kind, x, y[:, None] - 0.12 * x * x)] * 3)
    main, second = flood(linear_bgr(main), side), flood(linear_bgr(second), side)
    cloth = main + share * (second - main)
    draw = partial(paint, cloth, frame, depth=0)
    for x, y, lean in shot.rng.uniform((-1.4, 1.7, -0.4), (1.4, 2.1, 0.4), (5, 3)):
        fold = [(x, y - 0.3), (x + 0.1, y), (x + lean, y + 0.3)]
        draw(smooth(fold), (0.6,) * 3, 0.7, 0.05, tint=True)
    throat = whole_outline("throat") * (1, float(depth)) + (0, 1)
    draw(throat * 1.05, (0.72,) * 3, tint=True)
    draw(throat, person.skin_bgr)
    for sign in (-1, 1) if collar != "-" else ():
        flap = smooth(half_outline("flap") * (sign, 1))
        draw(flap + np.array([0, 0.03]), (0.5,) * 3, 0.7, 0.03, tint=True)
        draw(flap, linear_bgr(collar))
    relief = dome(3.0, 2.2, 1.9, 1.2) + dome(1.2, 0.6, 1.5, 0.5)
    light = lit(relief, shot, frame, side)
    neck = mask_of(side, frame.place(whole_outline("neck"), 0))
    cover(canvas, flood(person.skin_bgr * 0.85, side) * light, neck)
    cloth *= light
    cover(canvas, cloth, mask_of(side, frame.place(whole_outline("body"), 0)))


def paint_eyes(face, person: Sitter, shot: Shot) -> None:
    """Paint both eyes with lids and brows on the face, in place."""
    draw, t = partial(paint, face, shot.frame), np.linspace(-1, 1, 9)
    lift, along = 0.085 * (1 - t**2) * shot.eyes_open, (t + 1) / 2
    arch = 0.05 * along - 0.07 * np.sin(2.2 * along) - 0.2 - 0.02 * shot.smile
    thick = 0.042 * person.brow * (1 - 0.75 * along)
    eyes, almonds = face.copy(), []
    look = partial(paint, eyes, shot.frame)
    for sign in (-1, 1):
        x, slant = sign * 0.305 + 0.168 * t, -person.eye_tilt * t * sign
        upper, lower = slant - 1.1 * lift, slant + 0.7 * lift
        pupil_x, skin_bgr = sign * 0.305 + shot.gaze, person.skin_bgr
        look(ribbon(x, upper, lower), linear_bgr("c4beb8"))
        look(ellipse(pupil_x, -0.012, 0.08, 0.08), person.iris_bgr * 0.35)
        look(ellipse(pupil_x, -0.012, 0.066, 0.066), person.iris_bgr)
        look(ellipse(pupil_x, -0.012, 0.034, 0.034), (0.01,) * 3)
        look(ellipse(pupil_x + 0.025, -0.04, 0.018, 0.018), (0.9,) * 3)
        almonds.append(shot.frame.place(ribbon(x, upper, lower)))
    cover(face, eyes, mask_of(len(face), *almonds))
    for sign in (-1, 1):
        x, upper = sign * 0.305 + 0.168 * t, -person.eye_tilt * t * sign - 1.1 * lift
        draw(ribbon(x, upper - 0.024, upper + 0.012), skin_bgr * 0.08, 0.85, 0.008)
        crease = ribbon(x, upper - 0.075, upper - 0.05)
        draw(crease, (0.55, 0.6, 0.68), 0.7, 0.012, tint=True)
        brow = ribbon(sign * (0.13 + 0.37 * along), arch - thick, arch + thick)
        draw(brow, person.hair_bgr * 0.5, 0.8, 0.014)


def paint_mouth(face, person: Sitter, shot: Shot) -> None:
    """Paint nostrils, folds, lips and teeth on the face, in place."""
    draw, t = partial(paint, face, shot.frame), np.linspace(-1, 1, 13)
    for sign in (-1, 1):
        nostril = ellipse(sign * 0.08 * person.nose, 0.405, 0.042, 0.022)
        draw(nostril, person.skin_bgr * 0.12, 0.8, 0.012)
        fold = smooth(half_outline("fold") * (sign, 1))
        strength = min(0.2 + 0.4 * shot.smile + 0.5 * person.age, 1)
        draw(fold, (0.62, 0.64, 0.7), strength, 0.02, tint=True)
    x = t * person.mouth * (1 + 0.28 * shot.smile)
    middle = 0.65 - 0.07 * shot.smile * t**2 - 0.01 * t**2
    gap, full = 0.055 * shot.mouth_open * (1 - t**2), person.lip_fullness * (1 - t**4)
    cupid = 0.055 - 0.022 * np.exp(-((t / 0.16) ** 2)) - 0.015 * t**2
    teeth = np.minimum(middle + gap, middle - gap + 0.06)

    draw(ribbon(x, middle - gap, middle + gap), linear_bgr("3c1616"))
    draw(ribbon(x, middle - gap, teeth) * (0.9, 1), linear_bgr("dcd4c6"))
    upper, lower, lips_bgr = middle - gap, middle + gap, person.lips_bgr
    draw(ribbon(x, upper - full * cupid, upper), lips_bgr * 0.8, 0.9, 0.01)
    draw(ribbon(x, lower, lower + full * 0.085 * np.cos(t * 1.5)), lips_bgr, 0.9, 0.012)
    draw(ribbon(x, upper - 0.01, upper + 0.01), lips_bgr * 0.15, 0.8, 0.01)


def paint_head(canvas, person: Sitter, shot: Shot) -> None:
    """Paint the ears and the lit face over canvas, in place."""
    side, frame = len(canvas), shot.frame
    light = face_light(person, shot, side)
    face = np.empty_like(canvas)
    face[:] = flood(person.skin_bgr, side)
    for sign in (-1, 1):
        ear = smooth(half_outline("ear")) + np.array([0.74 * person.width, 0.02])
        ear *= (sign, 1)
        paint(canvas, frame, ear, person.skin_bgr * (0.68, 0.72, 0.8), depth=-0.15)
        inner = (ear - ear.mean(0)) * 0.5 + ear.mean(0)
        paint(canvas, frame, inner, (0.5, 0.5, 0.6), 0.7, 0.02, tint=True, depth=-0.15)
    for name in ("beard", "moustache") if person.beard else ():
        bristles = person.hair_bgr * 0.7 + person.skin_bgr * 0.06
        paint(face, frame, whole_outline(name), bristles, person.beard, 0.035)
    paint_eyes(face, person, shot)
    paint_mouth(face, person, shot)
    outline = whole_outline("skull") * (person.width, 1)
    outline[:, 0] *= 1 + person.jaw * np.clip(outline[:, 1] * 2, 0, 1)
    outline = frame.place(outline, 0.4 * np.clip(outline[:, 1], -0.3, 1))
    face *= light
    cover(canvas, face, mask_of(side, outline))


def paint_glasses(canvas, person: Sitter, shot: Shot) -> None:
    """Paint spectacles over canvas, in place."""
    dark, draw = person.hair_bgr * 0.3 + 0.01, partial(paint, canvas, shot.frame)
    draw(ellipse(0, -0.03, 0.1, 0.02), dark)
    for sign in (-1, 1):
        rim, inner = (
            ellipse(sign * 0.31, 0.01, 0.235 - thin, 0.19 - thin, person.glasses)
            for thin in (0, 0.03)
        )
        draw(inner, (1.0,) * 3, 0.02)
        draw(np.concatenate([rim, rim[:1], inner[:1], inner[::-1]]), dark)
        draw(half_outline("temple") * (sign, 1), dark)


def paint_hat(canvas, shot: Shot) -> None:
    """Paint a knitted hat over canvas, in place."""
    side, frame = len(canvas), shot.frame
    light = lit(dome(-0.2, 0.95, 1.15, 0.9), shot, frame, side)
    wool = light * flood(shot.session.hat_bgr, side)
    rim = whole_outline("rim")
    paint(wool, frame, rim, (0.65,) * 3, blur=0.005, tint=True)
    mask = mask_of(side, frame.place(whole_outline("beanie"), 0), frame.place(rim))
    cast_shadow(canvas, mask, (0, frame.unit * 0.1), frame.unit * 0.06, 0.5)
    cover(canvas, wool, mask)


def develop(canvas, shot: Shot, size: int) -> np.ndarray:
    """Shrink and expose the canvas; return image_bgr (size, size, 3) uint8."""
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    luma = image @ np.array([0.07, 0.72, 0.21], np.float32)
    exposure = (0.2 / luma.mean()) ** np.float32(0.3)
    luma = cv2.merge([luma] * 3)
    glow = np.sqrt(np.minimum(luma * exposure, 1))
    # As on film under a lamp: highlights turn amber and shadows lose their color.
    image = luma + SATURATION * (0.4 + 0.6 * glow) * (image - luma)
    image *= 1 + flood(AMBER_BGR, size) * glow
    image *= flood(shot.gains_bgr * exposure, size)
    image = 1.25 * (1 - np.exp(-1.35 * np.maximum(image, 0)))
    image = np.minimum(image, 1) ** np.float32(1 / 2.2) * 255
    grain = shot.rng.standard_normal((4, size, size), np.float32)
    image += 1.6 * cv2.merge([grain[0]] * 3) + 0.8 * cv2.merge(list(grain[1:]))
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def render_portrait(
    sitter: int, shot: int, seed: int = 0, size: int = 128
) -> np.ndarray:
    """Draw one portrait; sitters and shots count from 1.

    Returns image_bgr (size, size, 3) uint8, which depends on the arguments only.
    """
    person, side = meet(seed, sitter), size * OVERSAMPLING
    view = Shot(seed, sitter, shot, person, side)
    unit, away_x = view.frame.unit, -view.frame.unit * view.light[0]
    hair_rng = np.random.default_rng([seed, sitter, 0])  # the same hair in every shot
    all_hair, front_hair = hair_masks(person, view.frame, side, hair_rng)
    hair = paint_hair(person, view, side, hair_rng)
    canvas = paint_room(view, side)
    cast_shadow(canvas, all_hair, (0.3 * away_x, 0.1 * unit), unit * 0.2, 0.3)
    cover(canvas, hair * np.float32(0.5), all_hair)
    paint_body(canvas, person, view)
    chin = mask_of(side, view.frame.place(ellipse(0, 0.1, 0.62, 0.85), 0.2))
    cast_shadow(canvas, chin, (0.15 * away_x, 0.25 * unit), unit * 0.1, 0.6)
    paint_head(canvas, person, view)
    cast_shadow(canvas, front_hair, (0.05 * away_x, 0.06 * unit), unit * 0.04, 0.45)
    cover(canvas, hair, front_hair)
    if view.session.has_hat and person.lift < 0.2 and person.style != "bun":
        paint_hat(canvas, view)
    if person.glasses:
        paint_glasses(canvas, person, view)
    return develop(canvas, view, size)


def write_portraits(
    folder: Path, seed: int = 0, num_sitters=NUM_SITTERS, shots=SHOTS_PER_SITTER
) -> list[Path]:
    """Write folder/s01_01.jpg ... with JPEG comments b"s1" ...; return the paths.

    The sitters are divided among processes, one per core and four at most, because Python
    threads would wait for one another. Raises RuntimeError if a process fails.
    """
    folder = Path(folder).resolve()  # the processes run in another folder
    folder.mkdir(parents=True, exist_ok=True)
    workers = min(free_cores(), 4, 1 + num_sitters // 10)
    # A plain command, not multiprocessing: that would run the caller's script again.
    command = [sys.executable, "-m", "helpers.data.portraits", folder, seed, shots]
    running = [
        subprocess.Popen(
            [*map(str, (*command, first, num_sitters, workers))], cwd=PROJECT
        )
        for first in range(1, workers + 1)
    ]
    exit_codes = [process.wait() for process in running]
    if any(exit_codes):
        raise RuntimeError("drawing the portraits failed; see its message above")
    return sorted(folder.glob("s*.jpg"))


def write_sitter(folder: Path, sitter: int, seed: int, shots: int) -> None:
    """Write all shots of one sitter as JPEG files with the sitter in the comment."""
    for shot in range(1, shots + 1):
        image_rgb = render_portrait(sitter, shot, seed)[..., ::-1]
        path = folder / f"s{sitter:02d}_{shot:02d}.jpg"
        comment = f"s{sitter}".encode()
        Image.fromarray(image_rgb).save(path, quality=92, comment=comment)
