"""Colour for one photograph of any size, with a trained network."""

import cv2
import numpy as np
import torch

from helpers.images import to_square
from helpers.lab import bgr_to_lab, lab_to_bgr
from helpers.nets import Colorizer, Regressor, evaluation_mode

NETWORK_SIZE = 128  # pixels of the shorter side that the networks have learned
MAX_PIXELS = 64 * NETWORK_SIZE**2  # what a network sees at most: a strip is shrunk more


def colorize(net: Colorizer, image_bgr: np.ndarray) -> np.ndarray:
    """Colour one photograph.

    image_bgr  (H, W, 3) uint8, any size and aspect, grey or colour; its own colour is
               not looked at
    returns    (H, W, 3) uint8 BGR: the predicted ab, enlarged to H x W, joined in float
               with the original L*

    The network is used in evaluation mode and left as it was.
    """
    height, width = image_bgr.shape[:2]
    L = bgr_to_lab(image_bgr)[:, :, :1]
    step = 2**net.num_down
    scale = NETWORK_SIZE / min(height, width)
    scale = min(scale, (MAX_PIXELS / (height * width)) ** 0.5)
    small = [max(step, round(n * scale / step) * step) for n in (width, height)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small_L = cv2.resize(L, small, interpolation=how)
    ab = _predict(net, small_L)[0].permute(1, 2, 0).numpy()  # (h, w, 2)
    ab = cv2.resize(ab, (width, height), interpolation=cv2.INTER_LINEAR)
    return lab_to_bgr(np.concatenate([L, ab], axis=2))


def predict_mean_chrominance(
    net: Regressor, image_bgr: np.ndarray
) -> tuple[float, float]:
    """The mean a* and mean b* that a regressor sees in the luminance of one photograph.

    image_bgr is (H, W, 3) uint8 of any size; its centre square is resized to 128x128, as
    the training images were.
    """
    L = bgr_to_lab(to_square(image_bgr, NETWORK_SIZE))[:, :, :1]
    a, b = _predict(net, L)[0]
    return float(a), float(b)


def _predict(net, L: np.ndarray) -> torch.Tensor:
    device = next(net.parameters()).device
    with evaluation_mode(net):
        return net.predict(
            torch.from_numpy(L).view(1, 1, *L.shape[:2]).to(device)
        ).cpu()
