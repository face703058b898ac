"""Augmentation as the assignment asks: flip, crop and resize back, scale B, G and R.

One-image functions take and return image_bgr (H, W, 3) uint8. Only training images are
ever augmented.
"""

import cv2
import numpy as np
import torch

AREA_RANGE = (0.6, 1.0)  # share of the image's area that a crop keeps
SCALE_RANGE = (0.6, 1.0)  # the assignment's range for the RGB scalar


def flip(image_bgr: np.ndarray) -> np.ndarray:
    """Mirror left and right."""
    return cv2.flip(image_bgr, 1)


def crop_and_resize(
    image_bgr: np.ndarray, top: int, left: int, side: int
) -> np.ndarray:
    """Cut the square [top, top + side) x [left, left + side), resize it back.

    Raises ValueError when the square does not lie inside the image.
    """
    height, width = image_bgr.shape[:2]
    if not (side >= 1 and 0 <= top <= height - side and 0 <= left <= width - side):
        raise ValueError(
            f"crop {top}, {left}, {side} leaves the {height}x{width} image"
        )
    crop = image_bgr[top : top + side, left : left + side]
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)


def scale_rgb(image_bgr: np.ndarray, factor: float) -> np.ndarray:
    """Multiply B, G and R by one `factor` in [0, 1]; rounded to uint8."""
    return cv2.convertScaleAbs(image_bgr, alpha=factor)


def random_crop(image_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crop a random square of 60 to 100 % of the area and resize it back."""
    height, width = image_bgr.shape[:2]
    side = round(min(height, width) * np.sqrt(rng.uniform(*AREA_RANGE)))
    top = rng.integers(0, height - side + 1)
    left = rng.integers(0, width - side + 1)
    return crop_and_resize(image_bgr, top, left, side)


def augment(image_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One augmented copy: a crop of its own, mirrored or darkened with probability 1/2.

    All three may meet in one image (the assignment's paragraph "Augment your dataset").
    """
    if rng.random() < 0.5:
        image_bgr = flip(image_bgr)
    image_bgr = random_crop(image_bgr, rng)
    if rng.random() < 0.5:
        image_bgr = scale_rgb(image_bgr, rng.uniform(*SCALE_RANGE))
    return image_bgr


def augment_copies(
    images: torch.Tensor, copies: int = 10, seed: int = 0
) -> torch.Tensor:
    """The fixed set, `copies` times as large: the images themselves, then their copies.

    images   (N, 3, H, W) uint8 BGR
    returns  (copies * N, 3, H, W) uint8 BGR; copy c of image i is at c * N + i
    """
    num_images = len(images)
    augmented = images.repeat(copies, 1, 1, 1)
    planes = augmented.numpy()  # the same memory; numpy writes small pieces faster
    for copy in range(1, copies):
        for i in range(num_images):
            rng = np.random.default_rng([seed, copy, i])
            image_bgr = np.ascontiguousarray(planes[i].transpose(1, 2, 0))
            planes[copy * num_images + i] = augment(image_bgr, rng).transpose(2, 0, 1)
    return augmented
