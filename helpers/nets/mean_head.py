"""A U-Net whose mean color has a head of its own, for people it has never seen."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.nets.unet import UNet

TONES = 7  # quantiles of L* that tell how a picture is lit
POOL = 4  # pixels a side over which L* is averaged first: noise is no tone
DROPOUT = 0.5  # share of the features that the mean has to do without


def tones(L: torch.Tensor) -> torch.Tensor:
    """L*/100 (B, 1, H, W) to (B, 7): its 5 % quantile, and the steps to the next ones.

    The quantiles are at 5, 20, ..., 95 %; the steps are shifted and scaled to about -1..1.
    """
    shares = torch.linspace(0.05, 0.95, TONES, device=L.device)
    pixels = F.avg_pool2d(L, POOL).flatten(1)
    quantiles = torch.quantile(pixels, shares, dim=1).T  # (B, 7), rising
    steps = quantiles.diff(dim=1, prepend=torch.zeros_like(quantiles[:, :1]))
    return 8 * (steps - 0.1)


class MeanHeadUNet(UNet):
    """A U-Net that learns how colors differ from their mean, and the mean apart.

    The mean color of a picture is that of its light and its room. The map of a U-Net
    learns it by heart, person by person. Here the map has a mean of zero, and the mean is
    a linear function of the picture's tones and of what the encoder sees, which is not
    trained for it.

    Options and forward as `UNet`.
    """

    def __init__(self, **options):
        super().__init__(**options)
        bottom = self.trunk.down[-1][-2].num_features
        self.from_tones = nn.Linear(TONES, 2)
        self.from_features = nn.Linear(bottom, 2)
        for layer in (self.from_tones, self.from_features):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to the head's numbers (B, 2, H, W)."""
        levels = self.trunk.encode(L)
        features = levels[-1].mean(dim=(2, 3)).detach()
        features = F.dropout(features, DROPOUT, self.training)
        mean = self.from_tones(tones(L)) + self.from_features(features)  # (B, 2)
        small = self.small(levels, L)
        small = small - small.mean(dim=(2, 3), keepdim=True)
        return self.enlarge(small + mean[:, :, None, None])
