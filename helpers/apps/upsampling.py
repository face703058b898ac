"""Edge-aware upsampling of a low-resolution chrominance map to a photograph's size."""

import cv2
import numpy as np

NOISE = 30.0  # variance of L*, squared units, below which the local slope is damped


class DetailedMap:
    """A low-resolution chrominance map, upsampled along the edges of L* in strips of rows.

    ab  (h, w, 2) float32, natural units: the mean of each cell, see `predict_map`
    L   (H, W) float32, the photograph's L* in 0..100

    The map is upsampled by bicubic interpolation, and the missing detail is added: L* minus
    its own h x w copy, upsampled in the same way, times the local slope of ab against L*
    in 3 x 3 pixels of the map. Colors therefore end at the edges of L*.
    If H x W equals h x w, the result is the map itself.
    Source: the local linear model in He, Sun and Tang, Guided Image Filtering, TPAMI 2013,
    equations 5 and 6. Unlike in the paper, the map itself is not smoothed.
    """

    def __init__(self, ab: np.ndarray, L: np.ndarray):
        self.L = L
        height, width = np.minimum(L.shape, ab.shape[:2]).tolist()
        ab, small_L = (
            cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA)
            for x in (ab, L)
        )
        self.planes = [  # (H, w): a*, b*, their slopes, smooth L*; `rows` resizes W
            cv2.resize(plane, (width, len(L)), interpolation=cv2.INTER_CUBIC)
            for plane in (*cv2.split(ab), *cv2.split(_slope(ab, small_L)), small_L)
        ]

    def rows(self, rows: slice) -> np.ndarray:
        """Return ab for these rows of the photograph, (rows, W, 2) float32."""
        L = self.L[rows]
        a, b, slope_a, slope_b, smooth_L = (
            cv2.resize(plane[rows], L.shape[::-1], interpolation=cv2.INTER_CUBIC)
            for plane in self.planes
        )
        detail = L - smooth_L
        return cv2.merge([a + slope_a * detail, b + slope_b * detail])


def _slope(ab: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Return the slope of ab (h, w, 2) against L* (h, w) around each pixel, (h, w, 2)."""
    L = L[..., None]
    mean_L, mean_ab = _mean(L), _mean(ab)
    variance = _mean(L * L) - mean_L**2
    return (_mean(ab * L) - mean_ab * mean_L) / (variance + NOISE)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the 3 x 3 pixels around each pixel, (h, w, C)."""
    mean = cv2.blur(values, (3, 3))
    return mean.reshape(values.shape)  # OpenCV drops a single channel
