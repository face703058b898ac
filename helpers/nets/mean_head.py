"""A U-Net with a separate head for the mean color, to generalize to unseen people."""

import inspect

import torch
from torch import nn
from torch.nn import functional as F

from helpers.nets.unet import UNet

NUM_QUANTILES = 7  # quantiles of L*, which describe an image's lighting
POOL = 4  # side of the cells, in pixels, over which L* is averaged to reduce noise
DROPOUT = 0.5  # dropout rate for the encoder's features in the mean head


def lightness_features(L: torch.Tensor) -> torch.Tensor:
    """Map L*/100 (B, 1, H, W) to (B, 7): its 5% quantile and the steps to the next ones.

    The quantiles are at 5, 20, ..., 95%; all values are shifted and scaled to about -1..1.
    """
    shares = torch.linspace(0.05, 0.95, NUM_QUANTILES, device=L.device)
    pixels = F.avg_pool2d(L, POOL).flatten(1)
    quantiles = torch.quantile(pixels, shares, dim=1).T  # (B, 7), rising
    steps = quantiles.diff(dim=1, prepend=torch.zeros_like(quantiles[:, :1]))
    return 8 * (steps - 0.1)


class MeanHeadUNet(UNet):
    """A U-Net that predicts the mean color separately from the deviations from it.

    An image's mean color depends on the lighting and the background, and a U-Net memorizes
    it for each person. Here, the map has zero mean. The mean is a linear function of the
    quantiles of L* and the encoder's features, and its gradient does not reach the encoder.
    Dropout uses torch's global generator, which the training loop seeds at every step.

    Options and forward: see `UNet`.
    """

    __signature__ = inspect.signature(UNet)

    def __init__(self, **options):
        super().__init__(**options)
        num_features = self.trunk.down[-1][-2].num_features
        self.from_lightness = nn.Linear(NUM_QUANTILES, 2)
        self.from_features = nn.Linear(num_features, 2)
        for layer in (self.from_lightness, self.from_features):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) in 0..1 to (B, 2, H, W) on the scale of the head."""
        levels = self.trunk.encode(L)
        features = levels[-1].mean(dim=(2, 3)).detach()
        features = F.dropout(features, DROPOUT, self.training)
        mean = self.from_lightness(lightness_features(L)) + self.from_features(features)
        small = self.last_layer(levels, L)
        small = small - small.mean(dim=(2, 3), keepdim=True)
        return self.enlarge(small + mean[:, :, None, None])
