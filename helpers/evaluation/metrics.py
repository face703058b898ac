"""Metrics of predictions, with bootstrap intervals for their means.

Chrominance errors are computed in natural CIELAB units and reported on scale S: the mean
over images, pixels and both channels of ((a - a_hat) / 255)^2 and ((b - b_hat) / 255)^2.
It equals the MSE of OpenCV's 8-bit Lab divided by 255, up to a rounding floor of 2e-6.
"""

from dataclasses import dataclass

import numpy as np
import skimage
import torch

from helpers.data.lab import SCALE_S, bgr_to_lab

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its 95% bootstrap interval; `unit` is what is resampled.

    One image has no interval: low and high then equal the mean.
    """

    mean: float
    low: float
    high: float
    unit: str = "images"  # or "sitters", or "one image"

    def __str__(self) -> str:
        if self.unit == "one image":
            return f"{self.mean:.3g} (one image: no interval)"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def chrominance_mse(ab_hat: torch.Tensor, ab: torch.Tensor) -> torch.Tensor:
    """Return each image's MSE on scale S.

    ab_hat, ab  (B, 2) or (B, 2, H, W), natural units; returns (B,) float32.
    Raises ValueError if the shapes differ (they would broadcast silently).
    """
    if ab_hat.shape != ab.shape:
        raise ValueError(f"shapes differ: {tuple(ab_hat.shape)}, {tuple(ab.shape)}")
    error = ab_hat.to(torch.float32, copy=True).sub_(ab).div_(SCALE_S)
    return error.square_().flatten(1).mean(dim=1)


def accuracy_12(rgb_hat: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
    """Return the share of R, G, B values with an error below 12 of 255, (N,) float32.

    rgb_hat, rgb  (N, 3, H, W) uint8. Source: report 003. Raises ValueError for any other
    dtype or if the shapes differ.
    """
    if rgb_hat.dtype != torch.uint8 or rgb.dtype != torch.uint8:
        raise ValueError(f"accuracy_12 needs uint8, got {rgb_hat.dtype}, {rgb.dtype}")
    if rgb_hat.shape != rgb.shape:
        raise ValueError(f"shapes differ: {tuple(rgb_hat.shape)}, {tuple(rgb.shape)}")
    error = (rgb_hat.short() - rgb.short()).abs()
    return (error < 12).float().flatten(1).mean(dim=1)


def psnr(image_hat: np.ndarray, image: np.ndarray) -> float:
    """Return the PSNR in dB of two uint8 images (H, W, 3); infinite if they are equal."""
    error = np.mean((image_hat.astype(np.float64) - image) ** 2)
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")


def ssim(image_hat: np.ndarray, image: np.ndarray) -> float:
    """Return the SSIM, in -1..1, of two uint8 images (H, W, 3).

    Uses an 11x11 Gaussian window with sigma 1.5 (Wang, Bovik, Sheikh, Simoncelli, 2004).
    """
    return float(
        skimage.metrics.structural_similarity(
            image_hat,
            image,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ciede2000(image_hat_bgr: np.ndarray, image_bgr: np.ndarray) -> np.ndarray:
    """Return each pixel's perceived color difference, (H, W); 1 is just noticeable."""
    return skimage.color.deltaE_ciede2000(
        bgr_to_lab(image_bgr), bgr_to_lab(image_hat_bgr)
    )


def colorfulness(image_bgr: np.ndarray) -> float:
    """Return the colorfulness (Hasler and Suesstrunk, 2003) of a uint8 image (H, W, 3).

    It is 0 for a gray image; about 15 is slightly, 45 quite, and 80 highly colorful.
    """
    B, G, R = image_bgr.astype(np.float64).transpose(2, 0, 1)
    rg, yb = R - G, (R + G) / 2 - B
    spread = np.hypot(rg.std(), yb.std())
    return float(spread + 0.3 * np.hypot(rg.mean(), yb.mean()))


def bootstrap(values, groups=None, seed: int = 0) -> Estimate:
    """Return the mean of per-image values with its 95% percentile interval.

    values  (N,) one number per image
    groups  (N,) the sitter of each image. Images of one sitter are not independent, so
            whole sitters are drawn with replacement, 2000 times (cluster bootstrap).
            Without groups, or with only one, images are drawn.
    The result's `unit` is "sitters", "images" or "one image".

    With few sitters, even this interval is too narrow. In a simulation with equal variance
    between and within sitters (14 images per sitter), it covers the true mean in 84 % of
    cases for 5 sitters, 90 % for 10 and 93 % for 50; drawing images, in about 50 %.
    """
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    groups = np.zeros(len(values)) if groups is None else np.asarray(groups)
    numbers = np.unique(groups, return_inverse=True)[1]
    if numbers.max() == 0:
        drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
        means = values[drawn].mean(axis=1)
        unit = "images" if len(values) > 1 else "one image"
    else:
        counts = np.bincount(numbers)
        drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
        sums = np.bincount(numbers, weights=values)[drawn].sum(axis=1)
        means, unit = sums / counts[drawn].sum(axis=1), "sitters"
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), unit)


def paired_difference(ours, theirs, groups=None, seed: int = 0) -> Estimate:
    """Return the mean of ours - theirs on the same images; see `bootstrap`.

    For errors, a negative value means that ours is better.
    """
    return bootstrap(np.asarray(ours) - np.asarray(theirs), groups, seed)


def picture_metrics(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, list]:
    """Return PSNR, SSIM, CIEDE2000 and colorfulness for each pair of images.

    predicted, truth  (N, 3, H, W) uint8 BGR; the result maps each name to N numbers.
    """
    rows = []
    for image_hat, image in zip(predicted, truth, strict=True):
        image_hat = np.ascontiguousarray(image_hat.permute(1, 2, 0).numpy())
        image = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        difference = ciede2000(image_hat, image)
        rows.append(
            {
                "psnr": min(psnr(image_hat, image), 99.0),  # finite for equal images
                "ssim": ssim(image_hat, image),
                "ciede2000": float(difference.mean()),
                "ciede2000_p95": float(np.percentile(difference, 95)),
                "colorfulness": colorfulness(image_hat),
                "colorfulness_truth": colorfulness(image),
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}
