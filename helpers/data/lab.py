"""Convert to and from CIELAB (D65) and scale its chrominance for a network's head.

Lab is always in natural units: lightness L* in 0..100, a* and b* in about -128..127. OpenCV
converts in float32, from B, G, R in 0..1. `bgr_batch_to_lab` does the same in PyTorch for
minibatches that are augmented on a device.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from torch import nn

from helpers.files import sha256

L_MAX = 100.0
SCALE_S = 255.0  # chrominance errors are reported as ((a - a_hat) / 255)^2

# Linear B, G, R in 0..1 to X, Y, Z relative to D65 white: ITU-R BT.709, as in OpenCV.
BGR_TO_XYZ = (
    (0.180423 / 0.950456, 0.357580 / 0.950456, 0.412453 / 0.950456),
    (0.072169, 0.715160, 0.212671),
    (0.950227 / 1.088754, 0.119193 / 1.088754, 0.019334 / 1.088754),
)

HEAD_SCALES = {  # head: (offset, unit) with y = (ab - offset) / unit
    "relu": (-128.0, 255.0),
    "sigmoid": (-128.0, 255.0),
    "tanh": (0.0, 128.0),
    "linear": (0.0, 1.0),  # `fit` sets the training set's mean and deviation
}


@dataclass(frozen=True)
class ImagePairs:
    """The network inputs and ground truth for N images.

    inputs  (N, 1, H, W), the network's input
    truth   (N, C, H, W), what the network should predict
    group   (N,) int64, the number of each image's sitter, or None if unknown
    """

    inputs: torch.Tensor
    truth: torch.Tensor
    group: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index):
        group = None if self.group is None else self.group[index]
        return type(self)(self.inputs[index], self.truth[index], group)

    def to(self, device: str):
        """Return the same images on another device."""
        group = None if self.group is None else self.group.to(device)
        return type(self)(self.inputs.to(device), self.truth.to(device), group)

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor):
        """Return the images at `index`; a fixed set is not augmented again."""
        return self[index]

    def data_hash(self) -> str:
        """Return the SHA-256 of all values."""
        tensors = [x for x in (self.inputs, self.truth, self.group) if x is not None]
        return sha256(*(x.cpu().numpy().tobytes() for x in tensors))


class LabImages(ImagePairs):
    """Images as lightness and chrominance.

    inputs, L  (N, 1, H, W) float16, L* in 0..100
    truth, ab  (N, 2, H, W) float16, a* and b* in natural units

    float16 halves the memory. It changes a value by at most 1/32, and an image's error by
    less than one ten-thousandth of that error.
    """

    L = property(lambda self: self.inputs)
    ab = property(lambda self: self.truth)


def is_gray(images: LabImages) -> torch.Tensor:
    """Return which images have no color, (N,) bool: every |a*| and |b*| is below 1.

    Report 004 excludes such images.
    """
    return images.ab.abs().amax(dim=(1, 2, 3)) < 1


def bgr_to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """Convert image_bgr (H, W, 3), uint8 or float32 in 0..1, to image_lab float32.

    Raises ValueError for any other dtype or for floats outside 0..1, which OpenCV would
    silently clip.
    """
    if image_bgr.dtype == np.uint8:
        image_bgr = image_bgr.astype(np.float32) / 255
    elif image_bgr.dtype != np.float32 or not (
        image_bgr.min() >= 0 and image_bgr.max() <= 1  # also false for NaN
    ):
        raise ValueError(
            f"bgr_to_lab needs uint8 or float32 in 0..1, got {image_bgr.dtype} in "
            f"{image_bgr.min()}..{image_bgr.max()}"
        )
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2Lab)


def lab_to_bgr(image_lab: np.ndarray) -> np.ndarray:
    """Convert image_lab (H, W, 3) float32 to image_bgr uint8, clipped to sRGB."""
    image_bgr = cv2.cvtColor(image_lab.astype(np.float32), cv2.COLOR_Lab2BGR)
    return np.rint(np.clip(image_bgr, 0, 1) * 255).astype(np.uint8)


def bgr16_to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """Convert image_bgr (H, W, 3) uint16 to image_lab (H, W, 3) float32.

    OpenCV's conversion from sRGB has only 513 gray levels, which causes banding in smooth
    gradients. Here, a table of all 65536 values gives linear light, which OpenCV converts.
    """
    return cv2.cvtColor(_linear_light()[image_bgr], cv2.COLOR_LBGR2Lab)


def lab_to_bgr16(image_lab: np.ndarray) -> np.ndarray:
    """Convert image_lab (H, W, 3) float32 to image_bgr uint16, clipped to sRGB."""
    linear = np.clip(cv2.cvtColor(image_lab, cv2.COLOR_Lab2LBGR), 0, 1)
    curved = 1.055 * linear ** np.float32(1 / 2.4) - 0.055
    image_bgr = np.where(linear <= 0.0031308, linear * 12.92, curved)
    return np.rint(image_bgr * 65535).astype(np.uint16)


@cache
def _linear_light() -> np.ndarray:
    """Return the linear light of each 16-bit sRGB value, (65536,) float32 in 0..1."""
    value = np.arange(65536) / 65535
    curved = ((value + 0.055) / 1.055) ** 2.4
    return np.where(value <= 0.04045, value / 12.92, curved).astype(np.float32)


def to_lab_images(images: torch.Tensor, chunk: int = 256) -> LabImages:
    """Convert (N, 3, H, W) uint8 BGR to LabImages."""
    num_images, _, height, width = images.shape
    L = torch.empty(num_images, 1, height, width, dtype=torch.float16)
    ab = torch.empty(num_images, 2, height, width, dtype=torch.float16)
    for start in range(0, num_images, chunk):
        batch = images[start : start + chunk].permute(0, 2, 3, 1).contiguous().numpy()
        tall = batch.reshape(-1, width, 3)  # one tall image, so OpenCV uses all cores
        lab = torch.from_numpy(bgr_to_lab(tall)).view(-1, height, width, 3)
        lab = lab.permute(0, 3, 1, 2)
        L[start : start + chunk] = lab[:, :1]
        ab[start : start + chunk] = lab[:, 1:]
    return LabImages(L, ab)


def bgr_batch_to_lab(images: torch.Tensor) -> LabImages:
    """Convert BGR (B, 3, H, W) float32 in 0..1 to float32 LabImages on the same device.

    The result differs from `bgr_to_lab` by up to 0.5 because OpenCV interpolates in tables.
    Source: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*).
    """
    curved = _power((images + 0.055) / 1.055, 2.4)
    linear = torch.where(images <= 0.04045, images / 12.92, curved)
    matrix = torch.tensor(BGR_TO_XYZ, device=images.device)
    xyz = (matrix @ linear.flatten(2)).view_as(images)  # white is (1, 1, 1)
    root = _power(xyz.clamp_min(1e-6), 1 / 3)
    fx, fy, fz = torch.where(xyz > 0.008856, root, 7.787 * xyz + 16 / 116).unbind(1)
    L = 116 * fy - 16
    ab = torch.stack([500 * (fx - fy), 200 * (fy - fz)], dim=1)
    return LabImages(L.unsqueeze(1), ab)


def _power(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return values**exponent for positive values, in half the time `pow` takes."""
    return values.log().mul_(exponent).exp_()


def to_bgr_images(L: torch.Tensor, ab: torch.Tensor) -> torch.Tensor:
    """Convert natural L (N, 1, H, W) and ab (N, 2, H, W) to (N, 3, H, W) uint8 BGR."""
    lab = torch.cat([L, ab], dim=1).float().cpu().permute(0, 2, 3, 1).numpy()
    images = torch.from_numpy(np.stack([lab_to_bgr(image_lab) for image_lab in lab]))
    return images.permute(0, 3, 1, 2)


class AbScale(nn.Module):
    """Scale natural a*, b* to the output range of a head: y = (ab - offset) / unit.

    `head` is relu or sigmoid (0..1), tanh (-1..1) or linear (after `fit`: zero mean, unit
    variance on the training set). Offset and unit are buffers, so they are saved with the
    weights. Both channels share one unit, so the loss is proportional to
    the error on scale S.
    """

    def __init__(self, head: str):
        super().__init__()
        if head not in HEAD_SCALES:
            raise ValueError(f"head {head!r}: use one of {', '.join(HEAD_SCALES)}")
        self.head = head
        offset, unit = HEAD_SCALES[head]
        self.register_buffer("offset", torch.full((2,), offset))
        self.register_buffer("unit", torch.tensor(unit))

    def fit(self, ab: torch.Tensor) -> None:
        """Fit the linear head to the training set's ab (N, 2) or (N, 2, H, W)."""
        if self.head != "linear":
            return
        every_but_channel = [0, *range(2, ab.ndim)]
        self.offset.copy_(ab.mean(dim=every_but_channel, dtype=torch.float32))
        squares = [  # in chunks: the whole set in float32 would need too much memory
            (chunk.float() - self._shaped(chunk)).square().sum()
            for chunk in ab.split(256)
        ]
        variance = torch.stack(squares).sum() / ab.numel()
        self.unit.copy_(
            variance.sqrt().clamp_min(1e-3)
        )  # nonzero even if all images are gray

    def encode(self, ab: torch.Tensor) -> torch.Tensor:
        """Scale natural ab (B, 2) or (B, 2, H, W) to the head's range, float32."""
        y = ab.to(
            torch.float32, copy=True
        )  # then in place: a third of the memory traffic
        return y.sub_(self._shaped(ab)).div_(self.unit)

    def decode(self, y: torch.Tensor) -> torch.Tensor:
        """Scale a head's outputs (B, 2) or (B, 2, H, W) back to natural ab, float32."""
        return y.float() * self.unit + self._shaped(y)

    def loss_on_scale_s(self, loss: float) -> float:
        """Convert an MSE between encoded values to an MSE on scale S."""
        return loss * (float(self.unit) / SCALE_S) ** 2

    def extra_repr(self) -> str:
        """Return the head's name, for printing a network."""
        return self.head

    def _shaped(self, values: torch.Tensor) -> torch.Tensor:
        return self.offset.view(2, *[1] * (values.ndim - 2))
