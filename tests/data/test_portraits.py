"""Tests of the portraits: reproducible, distinct, colors partly given by lightness."""

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.data.portraits import render_portrait, write_portraits

NUM_SITTERS, SHOTS = 10, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("portraits")
    write_portraits(folder, num_sitters=NUM_SITTERS, shots=SHOTS)
    return folder


@pytest.fixture(scope="module")
def images_lab(folder):
    """Return (sitters, shots, 128, 128, 3) float32 in natural CIELAB units."""
    images_bgr = [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))]
    scaled = [image_bgr.astype(np.float32) / 255 for image_bgr in images_bgr]
    lab = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2LAB) for image in scaled])
    return lab.reshape(NUM_SITTERS, SHOTS, 128, 128, 3)


def scale_s(ab, guess):
    return float((((ab - guess) / 255) ** 2).mean())


def test_pixels_depend_on_the_arguments_only():
    first = render_portrait(3, 2)
    render_portrait(4, 7, seed=1)
    np.testing.assert_array_equal(first, render_portrait(3, 2))


def test_pixels_do_not_depend_on_the_number_of_threads():
    threads, pictures = cv2.getNumThreads(), {}
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            drawn = [render_portrait(sitter, 5).tobytes() for sitter in range(1, 5)]
            pictures[count] = drawn
    finally:
        cv2.setNumThreads(threads)
    assert pictures[1] == pictures[4]


@pytest.mark.parametrize("other", [(3, 2, 1), (3, 3, 0), (4, 2, 0)])
def test_seed_shot_and_sitter_each_change_the_picture(other):
    assert (render_portrait(3, 2) != render_portrait(*other)).mean() > 0.2


@pytest.mark.parametrize("size", [64, 128])
def test_shape_dtype_and_range(size):
    image_bgr = render_portrait(1, 1, size=size)
    assert image_bgr.shape == (size, size, 3)
    assert image_bgr.dtype == np.uint8
    assert image_bgr.min() < 40
    assert image_bgr.max() > 180


def test_files_have_names_comments_and_identical_bytes(folder, tmp_path):
    paths = write_portraits(tmp_path, num_sitters=2, shots=2)
    names = ["s01_01.jpg", "s01_02.jpg", "s02_01.jpg", "s02_02.jpg"]
    assert [path.name for path in paths] == names
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()
        with Image.open(path) as image:
            assert image.size == (128, 128)
            assert image.info["comment"] == f"s{int(path.name[1:3])}".encode()


def test_sitters_differ_more_than_shots_of_one_sitter(images_lab):
    faces_lab = images_lab[:, :, 44:84, 48:80].mean((2, 3))
    within = faces_lab.var(axis=1).mean()
    between = faces_lab.mean(axis=1).var(axis=0).mean()
    assert between > 2 * within


def test_color_is_partly_predictable_from_lightness(images_lab):
    lightness_bin = np.round(images_lab[..., 0] * 2.55).astype(int)
    train_ab, test_ab = images_lab[:, :5, ..., 1:], images_lab[:, 5:, ..., 1:]
    train_bin, test_bin = lightness_bin[:, :5].ravel(), lightness_bin[:, 5:]
    count = np.maximum(np.bincount(train_bin, minlength=256), 1)
    sums = [np.bincount(train_bin, train_ab[..., c].ravel(), 256) for c in (0, 1)]
    table_ab = np.stack(sums, axis=-1) / count[:, None]
    gray = scale_s(test_ab, 0)
    mean = scale_s(test_ab, train_ab.mean((0, 1, 2, 3)))
    table = scale_s(test_ab, table_ab[test_bin])
    assert 1e-3 < gray < 4e-3
    assert mean < 0.6 * gray
    assert table < 0.85 * mean


def test_the_number_of_rooms_is_right():
    from helpers.data.portraits.rooms import ROOMS
    from helpers.data.portraits.sitters import NUM_ROOMS

    assert len(ROOMS) == NUM_ROOMS
