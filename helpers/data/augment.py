"""Augmentation as the assignment asks: flip, crop and resize back, scale B, G and R.

One-image functions take and return image_bgr (H, W, 3) uint8. `FreshImages` draws new
copies of a whole minibatch at once, on the device. Only training images are ever augmented.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from helpers.data.lab import LabImages, bgr_batch_to_lab
from helpers.files import sha256

AREA_RANGE = (0.6, 1.0)  # share of the image's area that a crop keeps
SCALE_RANGE = (0.6, 1.0)  # the assignment's range for the RGB scalar
MAX_ZOOM = 1.3  # of `affine_batch`, in and out
MAX_SHIFT = 0.06  # of the image's side
MAX_ROTATION = 9  # degrees


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


def augment(
    image_bgr: np.ndarray, rng: np.random.Generator, scale_brightness: bool = True
) -> np.ndarray:
    """One augmented copy: a crop of its own, mirrored or darkened with probability 1/2.

    All three may meet in one image (the assignment's paragraph "Augment your dataset").
    """
    if rng.random() < 0.5:
        image_bgr = flip(image_bgr)
    image_bgr = random_crop(image_bgr, rng)
    if scale_brightness and rng.random() < 0.5:
        image_bgr = scale_rgb(image_bgr, rng.uniform(*SCALE_RANGE))
    return image_bgr


def augment_copies(
    images: torch.Tensor, copies: int = 10, seed: int = 0, scale_brightness: bool = True
) -> torch.Tensor:
    """The fixed set, `copies` times as large: the images themselves, then their copies.

    images   (N, 3, H, W) uint8 BGR
    scale_brightness  whether B, G and R are scaled
    returns  (copies * N, 3, H, W) uint8 BGR; copy c of image i is at c * N + i
    """
    num_images = len(images)
    augmented = images.repeat(copies, 1, 1, 1)
    planes = augmented.numpy()  # the same memory; numpy writes small pieces faster
    for copy in range(1, copies):
        for i in range(num_images):
            rng = np.random.default_rng([seed, copy, i])
            image_bgr = np.ascontiguousarray(planes[i].transpose(1, 2, 0))
            planes[copy * num_images + i] = augment(
                image_bgr, rng, scale_brightness
            ).transpose(2, 0, 1)
    return augmented


# mirror?, area, top, left, darken?, factor; to move: mirror?, -, down, across, turn, zoom
NUM_AUG_PARAMS = 6


def random_aug_params(num_images: int, seed: int, epoch: int) -> torch.Tensor:
    """The epoch's random numbers (N, 6) float32 in [0, 1), a row an image.

    A function of seed and epoch: whoever knows the position in an epoch can go on there.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch + 500_000)
    return torch.rand(num_images, NUM_AUG_PARAMS, generator=generator)


def augment_batch(images: torch.Tensor, aug_params: torch.Tensor) -> torch.Tensor:
    """Augment a minibatch as `augment` does an image, with one resampling for all of it.

    images   (B, 3, H, W) uint8 BGR
    draws    (B, 6) float32 in [0, 1), rows of `random_aug_params`
    returns  (B, 3, H, W) float32 BGR in 0..1, on the images' device
    """
    mirror, area, top, left, darken, factor = aug_params.unbind(1)
    low, high = AREA_RANGE
    side = (low + (high - low) * area).sqrt()  # of the crop; the image's side is 1
    x = (2 * left - 1) * (1 - side)  # the crop's middle; the image reaches from -1 to 1
    y = (2 * top - 1) * (1 - side)
    zero = torch.zeros_like(side)
    across = torch.where(mirror < 0.5, -side, side)
    rows = [across, zero, x, zero, side, y]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    cropped = _resampled(images, theta, "border")
    low, high = SCALE_RANGE
    scale = torch.where(darken < 0.5, low + (high - low) * factor, 1.0)
    return cropped * scale.view(-1, 1, 1, 1)


def affine_batch(images: torch.Tensor, aug_params: torch.Tensor) -> torch.Tensor:
    """Mirror, zoom in or out, shift and turn each picture of a minibatch.

    What is missing at an edge is the picture's reflection. On average the faces stay as
    large as they are, and where they are; nothing is darkened.
    images, draws, and what is returned: as `augment_batch` has them
    """
    mirror, _, down, across, turn, zoom = (2 * aug_params - 1).unbind(1)
    size = MAX_ZOOM**zoom  # of what is seen; the image reaches from -1 to 1
    angle = torch.deg2rad(MAX_ROTATION * turn)
    cos, sin = size * angle.cos(), size * angle.sin()
    side = torch.where(mirror < 0, -1.0, 1.0)
    x, y = 2 * MAX_SHIFT * across, 2 * MAX_SHIFT * down
    theta = torch.stack([cos * side, -sin, x, sin * side, cos, y], dim=1).view(-1, 2, 3)
    return _resampled(images, theta, "reflection")


def _resampled(images: torch.Tensor, theta: torch.Tensor, edges: str) -> torch.Tensor:
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(
        images.float() / 255, grid, padding_mode=edges, align_corners=False
    )


def without_brightness(aug_params: torch.Tensor) -> torch.Tensor:
    """The draws (N, 6) with no picture darkened."""
    aug_params = aug_params.clone()
    aug_params[:, 4] = 1.0
    return aug_params


def only_flips(aug_params: torch.Tensor) -> torch.Tensor:
    """The draws (N, 6) with no picture cropped, darkened or moved."""
    aug_params = aug_params.clone()
    aug_params[:, 1:] = 0.5
    aug_params[:, 1] = 1.0
    return aug_params


@dataclass(frozen=True)
class FreshImages:
    """Training images that are augmented anew each time a minibatch is taken.

    images   (N, 3, H, W) uint8 BGR: a twelfth of the fixed set's memory, and never the
             same picture twice
    scale_brightness  whether B, G and R are scaled
    random_affine  zoomed, shifted and turned, in place of cropped and darkened
    """

    images: torch.Tensor
    scale_brightness: bool = True
    random_affine: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def truth(self) -> torch.Tensor:
        """Chrominance ab (N, 2, H, W) float16 of the images as they are."""
        parts = self.images.split(64)
        return torch.cat([bgr_batch_to_lab(p.float() / 255).ab.half() for p in parts])

    def to(self, device: str) -> "FreshImages":
        """The same images on another device."""
        return replace(self, images=self.images.to(device))

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor) -> LabImages:
        """The images at `index`, augmented by their rows of `aug_params` (N, 6)."""
        images, mine = self.images[index], aug_params[index]
        if self.random_affine:
            return bgr_batch_to_lab(affine_batch(images, mine))
        mine = mine if self.scale_brightness else without_brightness(mine)
        return bgr_batch_to_lab(augment_batch(images, mine))

    def data_hash(self) -> str:
        """SHA-256 of all pixels, and of how they are augmented: equal hash, equal data."""
        return sha256(
            self.images.cpu().numpy().tobytes(),
            bytes([self.scale_brightness, self.random_affine]),
        )
