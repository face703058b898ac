import cv2
import numpy as np
import pytest

from helpers.apps.upsampling import NOISE, DetailedMap, _slope


def upsample(ab: np.ndarray, L: np.ndarray) -> np.ndarray:
    return DetailedMap(ab, L).rows(slice(0, len(L)))


def two_halves(side: int, edge: int) -> np.ndarray:
    """Return L* (side, side): 30 left of column `edge`, 70 from there on."""
    L = np.full((side, side), 30, np.float32)
    L[:, edge:] = 70
    return L


def test_the_map_is_unchanged_at_its_own_size():
    rng = np.random.default_rng(0)
    ab = rng.normal(0, 20, (16, 24, 2)).astype(np.float32)
    L = rng.uniform(0, 100, (16, 24)).astype(np.float32)
    assert np.array_equal(upsample(ab, L), ab)


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (60, 40), (127, 255), (8, 8)])
def test_a_constant_map_stays_constant_at_any_size(shape):
    rng = np.random.default_rng(0)
    ab = np.full((8, 12, 2), (20, -15), np.float32)
    L = rng.uniform(0, 100, shape).astype(np.float32)
    found = upsample(ab, L)
    assert found.shape == (*shape, 2)
    assert found.dtype == np.float32
    assert np.abs(found - (20, -15)).max() < 0.2


def test_constant_lightness_gives_cubic_interpolation():
    rng = np.random.default_rng(0)
    ab = rng.normal(0, 20, (8, 12, 2)).astype(np.float32)
    expected = cv2.resize(ab, (120, 80), interpolation=cv2.INTER_CUBIC)
    found = upsample(ab, np.full((80, 120), 50, np.float32))
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("edge", [60, 64, 67])
def test_a_color_edge_follows_the_lightness_edge(edge):
    L = two_halves(128, edge)
    true_ab = np.dstack([L - 50, 50 - L])  # a* -20 and 20
    small = cv2.resize(true_ab, (16, 16), interpolation=cv2.INTER_AREA)
    linear = cv2.resize(small, (128, 128), interpolation=cv2.INTER_LINEAR)
    error, error_of_linear = (
        np.square(x - true_ab).mean() for x in (upsample(small, L), linear)
    )
    assert error < 0.1 * error_of_linear


def test_strips_equal_the_rows_of_the_whole_map():
    rng = np.random.default_rng(0)
    ab = rng.normal(0, 20, (8, 12, 2)).astype(np.float32)
    detailed = DetailedMap(ab, rng.uniform(0, 100, (90, 130)).astype(np.float32))
    rows = [detailed.rows(slice(top, top + 7)) for top in range(0, 90, 7)]
    assert np.abs(np.concatenate(rows) - detailed.rows(slice(0, 90))).max() < 1e-3


def test_the_slope_is_the_least_squares_slope_shrunk_by_noise():
    rng = np.random.default_rng(0)
    ab = rng.normal(0, 20, (5, 6, 2)).astype(np.float32)
    L = rng.uniform(0, 100, (5, 6)).astype(np.float32)
    near_L, near_a = L[1:4, 2:5].ravel(), ab[1:4, 2:5, 0].ravel()
    line = np.polyfit(near_L, near_a, 1)[0]
    expected = line * near_L.var() / (near_L.var() + NOISE)
    assert _slope(ab, L)[2, 3, 0] == pytest.approx(expected, rel=1e-3)
