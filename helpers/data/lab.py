"""The only place that converts to and from L*a*b* and scales it for a network's head.

Lab is CIELAB (D65) in natural units: L* 0..100, a* and b* about -128..127. Conversions
go through OpenCV's float32 path, which wants B, G, R in 0..1; `bgr_batch_to_lab` does the
same in torch, for minibatches that are augmented on a device.
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

# B, G, R (linear, 0..1) to X, Y, Z of the D65 white: ITU-R BT.709, as OpenCV has it.
BGR_TO_XYZ = (
    (0.180423 / 0.950456, 0.357580 / 0.950456, 0.412453 / 0.950456),
    (0.072169, 0.715160, 0.212671),
    (0.950227 / 1.088754, 0.119193 / 1.088754, 0.019334 / 1.088754),
)

HEAD_SCALES = {  # head: (offset, unit) with y = (ab - offset) / unit
    "relu": (-128.0, 255.0),
    "sigmoid": (-128.0, 255.0),
    "tanh": (0.0, 128.0),
    "linear": None,  # offset: the training part's mean, unit: its standard deviation
}


@dataclass(frozen=True)
class LabImages:
    """Photographs as luminance and chrominance, ready for a network.

    L    (N, 1, H, W) float16, L* in 0..100
    ab   (N, 2, H, W) float16, a* and b* in natural units
    group  (N,) int64, the number of each image's sitter, or None where nobody knows

    float16 halves the memory; it moves a value by at most 1/32 and the error of a picture
    by less than a thousandth of that error.
    """

    L: torch.Tensor
    ab: torch.Tensor
    group: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.L)

    def __getitem__(self, index) -> "LabImages":
        group = None if self.group is None else self.group[index]
        return LabImages(self.L[index], self.ab[index], group)

    @property
    def truth(self) -> torch.Tensor:
        """What is to be predicted: ab."""
        return self.ab

    def to(self, device: str) -> "LabImages":
        """The same images on another device."""
        group = None if self.group is None else self.group.to(device)
        return LabImages(self.L.to(device), self.ab.to(device), group)

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor) -> "LabImages":
        """The images at `index` as they are: a fixed set needs no random `aug_params`."""
        return self[index]

    def data_hash(self) -> str:
        """SHA-256 of all values: equal hash, equal data."""
        parts = (part for part in (self.L, self.ab, self.group) if part is not None)
        return sha256(*(part.cpu().numpy().tobytes() for part in parts))


def is_gray(images: LabImages) -> torch.Tensor:
    """Which pictures have no color: every |a*| and |b*| is under 1; (N,) bool.

    Report 004 left such pictures out: there is nothing to learn from them but gray.
    """
    return images.ab.abs().amax(dim=(1, 2, 3)) < 1


def bgr_to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """image_bgr (H, W, 3), uint8 or float32 in 0..1, to image_lab (H, W, 3) float32.

    Raises ValueError for another dtype or for floats outside 0..1: OpenCV would clip
    them without a word.
    """
    if image_bgr.dtype == np.uint8:
        image_bgr = image_bgr.astype(np.float32) / 255
    elif image_bgr.dtype != np.float32 or not (
        image_bgr.min() >= 0 and image_bgr.max() <= 1  # false for NaN, too
    ):
        raise ValueError(
            f"bgr_to_lab wants uint8 or float32 in 0..1, got {image_bgr.dtype} in "
            f"{image_bgr.min()}..{image_bgr.max()}"
        )
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2Lab)


def lab_to_bgr(image_lab: np.ndarray) -> np.ndarray:
    """image_lab (H, W, 3) float32 in natural units to image_bgr (H, W, 3) uint8.

    Colors outside sRGB are clipped to it.
    """
    image_bgr = cv2.cvtColor(image_lab.astype(np.float32), cv2.COLOR_Lab2BGR)
    return np.rint(np.clip(image_bgr, 0, 1) * 255).astype(np.uint8)


def bgr16_to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """image_bgr (H, W, 3) uint16 to image_lab (H, W, 3) float32.

    OpenCV's own way from sRGB knows 513 grays only, in which a fine gradient shows steps.
    Here its curve is a table of all 65536 values, and OpenCV converts linear light.
    """
    return cv2.cvtColor(_linear_light()[image_bgr], cv2.COLOR_LBGR2Lab)


def lab_to_bgr16(image_lab: np.ndarray) -> np.ndarray:
    """image_lab (H, W, 3) float32 in natural units to image_bgr (H, W, 3) uint16.

    Colors outside sRGB are clipped to it.
    """
    linear = np.clip(cv2.cvtColor(image_lab, cv2.COLOR_Lab2LBGR), 0, 1)
    curved = 1.055 * linear ** np.float32(1 / 2.4) - 0.055
    image_bgr = np.where(linear <= 0.0031308, linear * 12.92, curved)
    return np.rint(image_bgr * 65535).astype(np.uint16)


@cache
def _linear_light() -> np.ndarray:
    """The linear light of each 16-bit value of sRGB, (65536,) float32 in 0..1."""
    value = np.arange(65536) / 65535
    curved = ((value + 0.055) / 1.055) ** 2.4
    return np.where(value <= 0.04045, value / 12.92, curved).astype(np.float32)


def to_lab_images(images: torch.Tensor, chunk: int = 256) -> LabImages:
    """Convert (N, 3, H, W) uint8 BGR to LabImages."""
    num_images, _, height, width = images.shape
    L = torch.empty(num_images, 1, height, width, dtype=torch.float16)
    ab = torch.empty(num_images, 2, height, width, dtype=torch.float16)
    for start in range(0, num_images, chunk):
        part = images[start : start + chunk].permute(0, 2, 3, 1).contiguous().numpy()
        tall = part.reshape(-1, width, 3)  # one tall image: OpenCV uses all cores
        lab = torch.from_numpy(bgr_to_lab(tall)).view(-1, height, width, 3)
        lab = lab.permute(0, 3, 1, 2)
        L[start : start + chunk] = lab[:, :1]
        ab[start : start + chunk] = lab[:, 1:]
    return LabImages(L, ab)


def bgr_batch_to_lab(images: torch.Tensor) -> LabImages:
    """B, G, R (B, 3, H, W) float32 in 0..1 to LabImages in float32, on the same device.

    Agrees with `bgr_to_lab` within 0.5 units: OpenCV reads its curves from tables.
    Source: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*).
    """
    curved = _power((images + 0.055) / 1.055, 2.4)
    linear = torch.where(images <= 0.04045, images / 12.92, curved)
    matrix = torch.tensor(BGR_TO_XYZ, device=images.device)
    xyz = (matrix @ linear.flatten(2)).view_as(images)  # white is 1, 1, 1
    root = _power(xyz.clamp_min(1e-6), 1 / 3)
    fx, fy, fz = torch.where(xyz > 0.008856, root, 7.787 * xyz + 16 / 116).unbind(1)
    L = 116 * fy - 16
    ab = torch.stack([500 * (fx - fy), 200 * (fy - fz)], dim=1)
    return LabImages(L.unsqueeze(1), ab)


def _power(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """`pow` for values over 0, in half of its time."""
    return values.log().mul_(exponent).exp_()


def to_bgr_images(L: torch.Tensor, ab: torch.Tensor) -> torch.Tensor:
    """Join L (N, 1, H, W) and ab (N, 2, H, W), natural units, to (N, 3, H, W) uint8 BGR."""
    lab = torch.cat([L, ab], dim=1).float().cpu().permute(0, 2, 3, 1).numpy()
    return torch.stack([torch.from_numpy(lab_to_bgr(x)) for x in lab]).permute(
        0, 3, 1, 2
    )


class AbScale(nn.Module):
    """Between natural a*, b* and the numbers of a head: y = (ab - offset) / unit.

    `head` is relu or sigmoid (0..1), tanh (-1..1) or linear (zero mean, unit variance on
    the training part, after `fit`). Offset and unit are buffers, so that saved weights
    carry them. One unit serves both channels: the loss stays proportional to scale S.
    """

    def __init__(self, head: str):
        super().__init__()
        if head not in HEAD_SCALES:
            raise ValueError(f"head {head!r}: use one of {', '.join(HEAD_SCALES)}")
        self.head = head
        self.is_fixed = HEAD_SCALES[head] is not None
        offset, unit = HEAD_SCALES[head] or (0.0, 1.0)
        self.register_buffer("offset", torch.full((2,), offset))
        self.register_buffer("unit", torch.tensor(unit))

    def fit(self, ab: torch.Tensor) -> None:
        """Take mean and deviation from ab (N, 2) or (N, 2, H, W) of the training part."""
        if self.is_fixed:
            return
        every_but_channel = [0, *range(2, ab.ndim)]
        self.offset.copy_(ab.mean(dim=every_but_channel, dtype=torch.float32))
        squares = [  # in chunks: the whole set in float32 would fill the memory
            (chunk.float() - self._shaped(chunk)).square().sum()
            for chunk in ab.split(256)
        ]
        variance = torch.stack(squares).sum() / ab.numel()
        self.unit.copy_(
            variance.sqrt().clamp_min(1e-3)
        )  # all images gray: no division by 0

    def encode(self, ab: torch.Tensor) -> torch.Tensor:
        """Natural ab (B, 2) or (B, 2, H, W) to the head's numbers, float32."""
        return (ab.float() - self._shaped(ab)) / self.unit

    def decode(self, y: torch.Tensor) -> torch.Tensor:
        """A head's numbers (B, 2) or (B, 2, H, W) to natural ab, float32."""
        return y.float() * self.unit + self._shaped(y)

    def loss_on_scale_s(self, loss: float) -> float:
        """An MSE between encoded values as an MSE on scale S."""
        return loss * (float(self.unit) / SCALE_S) ** 2

    def extra_repr(self) -> str:
        """Show the head where the network is printed."""
        return self.head

    def _shaped(self, values: torch.Tensor) -> torch.Tensor:
        return self.offset.view(2, *[1] * (values.ndim - 2))
