"""A network's small map of chrominance at a photograph's size, edges taken from L*."""

import cv2
import numpy as np

NOISE = 30.0  # variance of L*, squared units, below which it tells nothing about ab


class DetailedMap:
    """A small map of ab as it is on a large photograph, a few rows at a time.

    ab  (h, w, 2) float32, natural units
    L   (H, W) float32, the photograph's L* in 0..100

    The map is enlarged by cubic interpolation. To that comes the detail that the map is too
    small for: what L* has beyond its own copy at h x w, times the slope of ab against
    L* among the 3 x 3 nearest pixels of the map. So colors end where the luminance
    has its edge. With H x W equal to h x w it is the map itself.
    Source: the local lines are those of He, Sun and Tang, Guided Image Filtering, TPAMI
    2013, equations 5 and 6. Unlike there the map itself is not smoothed.
    """

    def __init__(self, ab: np.ndarray, L: np.ndarray):
        self.L = L
        size = [
            min(large, small) for large, small in zip(L.shape, ab.shape, strict=False)
        ]
        ab, small_L = (
            cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA) for x in (ab, L)
        )
        tall = (small_L.shape[1], len(L))  # the rows first, the columns when asked for
        self.planes = [  # (H, w) of a*, b*, their slopes, and the map's copy of L*
            cv2.resize(plane, tall, interpolation=cv2.INTER_CUBIC)
            for plane in (*cv2.split(ab), *cv2.split(_slope(ab, small_L)), small_L)
        ]

    def rows(self, rows: slice) -> np.ndarray:
        """The chrominance of these rows of the photograph, (rows, W, 2) float32."""
        L = self.L[rows]
        a, b, slope_a, slope_b, smooth_L = (
            cv2.resize(plane[rows], L.shape[::-1], interpolation=cv2.INTER_CUBIC)
            for plane in self.planes
        )
        detail = L - smooth_L
        return cv2.merge([a + slope_a * detail, b + slope_b * detail])


def _slope(ab: np.ndarray, L: np.ndarray) -> np.ndarray:
    """How ab (h, w, 2) changes with L* (h, w) around each pixel, (h, w, 2)."""
    L = L[..., None]
    mean_L, mean_ab = _mean(L), _mean(ab)
    variance = _mean(L * L) - mean_L**2
    return (_mean(ab * L) - mean_ab * mean_L) / (variance + NOISE)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of the 3 x 3 pixels around each, (h, w, C)."""
    return cv2.blur(values, (3, 3)).reshape(
        values.shape
    )  # OpenCV drops a single channel
