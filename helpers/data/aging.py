"""Change the lightness of training images as age, lenses and scanners do.

A network trained only on good photographs fails on a faded or noisy scan. The colors that
it should predict remain unchanged.
"""

import cv2
import numpy as np
import torch
from torch.nn import functional as F

AGED_SHARE = 0.5  # the share of images that are changed
MAX_GAMMA = 1.4
MAX_FADE = 20.0  # lightness of black, and of 100 minus white, in a faded print
SCRATCH = 90.0  # lightness of a scratch
MAX_NOISE = 6.0  # standard deviation of the grain, in units of L*
JPEG_QUALITY = (20, 70)


def age(L: torch.Tensor) -> torch.Tensor:
    """Change the lightness L (B, 1, H, W), 0..100, of a random half of a minibatch.

    Each of these images gets a random gamma and contrast; some are also blurred, scratched,
    grainy or saved as JPEG. Random numbers come from torch's global generator.
    """
    is_aged = torch.rand(len(L)) < AGED_SHARE
    if not is_aged.any():
        return L
    L, aged = L.clone(), L[is_aged].clamp(0, 100)
    aged = _fade(aged)
    for change, share in ((_blur, 0.3), (_scratch, 0.1), (_grain, 0.4), (_jpeg, 0.3)):
        chosen = torch.rand(len(aged)) < share
        if chosen.any():
            aged[chosen] = change(aged[chosen])
    L[is_aged] = aged.clamp(0, 100)
    return L


def _uniform(L: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return (low + (high - low) * torch.rand(len(L), 1, 1, 1)).to(L.device)


def _fade(L: torch.Tensor) -> torch.Tensor:
    gamma = MAX_GAMMA ** _uniform(L, -1, 1)
    black, white = _uniform(L, 0, MAX_FADE), 100 - _uniform(L, 0, MAX_FADE)
    return black + (white - black) * (L / 100) ** gamma


def _blur(L: torch.Tensor) -> torch.Tensor:
    small = F.interpolate(L, scale_factor=0.5, mode="area")
    return F.interpolate(small, size=L.shape[2:], mode="bilinear")


def _scratch(L: torch.Tensor) -> torch.Tensor:
    column = torch.randint(L.shape[3], (len(L),))
    scratched = L.clone()
    scratched[torch.arange(len(L)), :, :, column] = SCRATCH
    return scratched


def _grain(L: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(L.shape).to(L.device)
    return (L + _uniform(L, 0, MAX_NOISE) * noise).clamp(0, 100)


def _jpeg(L: torch.Tensor) -> torch.Tensor:
    planes = (L[:, 0] * 2.55).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    qualities = torch.randint(*JPEG_QUALITY, (len(L),)).tolist()
    decoded = []
    for plane, quality in zip(planes, qualities, strict=True):
        _, data = cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded.append(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    values = torch.from_numpy(np.stack(decoded)).to(L.device, torch.float32)
    return values[:, None] / 2.55
