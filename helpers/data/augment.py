"""The assignment's data augmentation: flip, crop and resize, scale B, G and R.

Functions for one image take and return image_bgr (H, W, 3) uint8. Functions for a minibatch
run on its device. Only training images are augmented.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from helpers.data.aging import age
from helpers.data.lab import LabImages, bgr_batch_to_lab
from helpers.files import sha256

AREA_RANGE = (0.6, 1.0)  # fraction of the image's area that a crop keeps
SCALE_RANGE = (0.6, 1.0)  # the assignment's range for the RGB scalar
MAX_ZOOM = 1.3  # zoom factor in `affine_batch`, in or out, at strength 1
PORTRAIT_ZOOM = 1.6  # the same for `FreshImages.old_photo`
MAX_SHIFT = 0.06  # fraction of the image's side, at strength 1
MAX_ROTATION = 9  # degrees, at strength 1


def flip(image_bgr: np.ndarray) -> np.ndarray:
    """Flip the image horizontally."""
    return cv2.flip(image_bgr, 1)


def crop_and_resize(
    image_bgr: np.ndarray, top: int, left: int, side: int
) -> np.ndarray:
    """Crop the square [top, top + side) x [left, left + side) and resize it back.

    Raises ValueError if the square does not lie inside the image.
    """
    height, width = image_bgr.shape[:2]
    if not (side >= 1 and 0 <= top <= height - side and 0 <= left <= width - side):
        raise ValueError(f"crop {top}, {left}, {side} outside {height}x{width} image")
    crop = image_bgr[top : top + side, left : left + side]
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)


def scale_rgb(image_bgr: np.ndarray, factor: float) -> np.ndarray:
    """Multiply B, G and R by one `factor` in [0, 1] and round to uint8."""
    return cv2.convertScaleAbs(image_bgr, alpha=factor)


def random_crop(image_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crop a random square with 60 to 100% of the area and resize it back."""
    height, width = image_bgr.shape[:2]
    side = round(min(height, width) * np.sqrt(rng.uniform(*AREA_RANGE)))
    top = rng.integers(0, height - side + 1)
    left = rng.integers(0, width - side + 1)
    return crop_and_resize(image_bgr, top, left, side)


def augment_image(
    image_bgr: np.ndarray, rng: np.random.Generator, scale_brightness: bool = True
) -> np.ndarray:
    """Return one augmented copy of an image.

    It is always cropped, flipped with probability 1/2 and, if `scale_brightness`,
    darkened with probability 1/2. Source: the assignment, "Augment your dataset".
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
    """Return the fixed augmented set: the images and `copies` - 1 augmented copies of each.

    images            (N, 3, H, W) uint8 BGR
    scale_brightness  whether to scale B, G and R
    returns           (copies * N, 3, H, W) uint8 BGR; copy c of image i is at c * N + i
    """
    num_images = len(images)
    augmented = images.repeat(copies, 1, 1, 1)
    planes = augmented.numpy()  # shares memory; NumPy writes small arrays faster
    for copy in range(1, copies):
        for i in range(num_images):
            rng = np.random.default_rng([seed, copy, i])
            image_bgr = np.ascontiguousarray(planes[i].transpose(1, 2, 0))
            image_bgr = augment_image(image_bgr, rng, scale_brightness)
            planes[copy * num_images + i] = image_bgr.transpose(2, 0, 1)
    return augmented


# The columns of aug_params in `augment_batch`: flip?, area, top, left, darken?, factor;
# in `affine_batch`: flip?, unused, shift_y, shift_x, angle, scale.
NUM_AUG_PARAMS = 6


def random_aug_params(num_images: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the random numbers for an epoch: aug_params (N, 6) float32 in [0, 1).

    There is one row per image. The numbers depend only on seed and epoch, so training
    can resume in the middle of an epoch.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch + 500_000)
    return torch.rand(num_images, NUM_AUG_PARAMS, generator=generator)


def augment_batch(images: torch.Tensor, aug_params: torch.Tensor) -> torch.Tensor:
    """Augment a minibatch like `augment_image`, in a single resampling step.

    images      (B, 3, H, W) uint8 BGR
    aug_params  (B, 6) float32 in [0, 1), one row per image
    returns     (B, 3, H, W) float32 BGR in 0..1, on the images' device
    """
    flip, area, top, left, darken, factor = aug_params.unbind(1)
    low, high = AREA_RANGE
    side = (low + (high - low) * area).sqrt()  # the crop's side; the image's is 1
    center_x = (2 * left - 1) * (1 - side)  # the crop's center; the image spans -1 to 1
    center_y = (2 * top - 1) * (1 - side)
    zero = torch.zeros_like(side)
    scale_x = torch.where(flip < 0.5, -side, side)
    theta = [scale_x, zero, center_x, zero, side, center_y]
    cropped = _resample(images, theta, "border")
    low, high = SCALE_RANGE
    brightness = torch.where(darken < 0.5, low + (high - low) * factor, 1.0)
    return cropped * brightness.view(-1, 1, 1, 1)


def affine_batch(
    images: torch.Tensor,
    aug_params: torch.Tensor,
    strength: float = 1.0,
    max_zoom: float = MAX_ZOOM,
) -> torch.Tensor:
    """Flip, scale, shift and rotate each image in a minibatch, keeping its brightness.

    On average, faces keep their size and position. Areas beyond the edges are filled by
    reflection. The arguments and the result are the same as for `augment_batch`, except

    strength  multiplies the largest shift and rotation, and the logarithm of `max_zoom`
    """
    flip, _, shift_y, shift_x, angle, scale = (2 * aug_params - 1).unbind(1)
    scale = max_zoom ** (strength * scale)
    angle = torch.deg2rad(strength * MAX_ROTATION * angle)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    sign = torch.where(flip < 0, -1.0, 1.0)
    max_shift = 2 * strength * MAX_SHIFT
    shift_x, shift_y = max_shift * shift_x, max_shift * shift_y
    theta = [cos * sign, -sin, shift_x, sin * sign, cos, shift_y]
    return _resample(images, theta, "reflection")


def _resample(
    images: torch.Tensor, theta: list[torch.Tensor], padding_mode: str
) -> torch.Tensor:
    """Resample images with affine maps `theta`: six entries of shape (B,) in row order."""
    matrix = torch.stack(theta, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(
        images.float() / 255, grid, padding_mode=padding_mode, align_corners=False
    )


def without_brightness(aug_params: torch.Tensor) -> torch.Tensor:
    """Return aug_params (N, 6) changed so that `augment_batch` darkens no image."""
    aug_params = aug_params.clone()
    aug_params[:, 4] = 1.0
    return aug_params


def only_flips(aug_params: torch.Tensor) -> torch.Tensor:
    """Return aug_params (N, 6) that flip the same images and change nothing else."""
    aug_params = aug_params.clone()
    aug_params[:, 1:] = 0.5
    aug_params[:, 1] = 1.0
    return aug_params


@dataclass(frozen=True)
class FreshImages:
    """Training images that are augmented on the fly for each minibatch.

    images            (N, 3, H, W) uint8 BGR: one twentieth of the fixed set's memory
    scale_brightness  whether to scale B, G and R
    random_affine     its strength: use `affine_batch`; 0 uses `augment_batch`
    old_photo         zoom further, and change L* as in old photographs; see `age`.
                      This uses torch's global generator
    """

    images: torch.Tensor
    scale_brightness: bool = True
    random_affine: float = 0.0
    old_photo: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> "FreshImages":
        return replace(self, images=self.images[index])

    @property
    def truth(self) -> torch.Tensor:
        """The chrominance ab (N, 2, H, W) float16 of the unaugmented images."""
        chunks = self.images.split(64)
        return torch.cat([bgr_batch_to_lab(x.float() / 255).ab.half() for x in chunks])

    def to(self, device: str) -> "FreshImages":
        """Return the same images on another device."""
        return replace(self, images=self.images.to(device))

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor) -> LabImages:
        """Return the images at `index`, augmented by their rows of aug_params (N, 6)."""
        images, aug_params = self.images[index], aug_params[index]
        if self.old_photo:
            lab = bgr_batch_to_lab(
                affine_batch(images, aug_params, max_zoom=PORTRAIT_ZOOM)
            )
            return LabImages(age(lab.L), lab.ab)
        if self.random_affine:
            moved = affine_batch(images, aug_params, self.random_affine)
            return bgr_batch_to_lab(moved)
        if not self.scale_brightness:
            aug_params = without_brightness(aug_params)
        return bgr_batch_to_lab(augment_batch(images, aug_params))

    def data_hash(self) -> str:
        """Return the SHA-256 of all pixels and the augmentation options."""
        return sha256(
            self.images.cpu().numpy().tobytes(),
            str([self.scale_brightness, self.random_affine, self.old_photo]).encode(),
        )
