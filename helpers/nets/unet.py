"""A half-size U-Net: an encoder and decoder with skips that predicts ab at half size."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.lab import AbScale
from helpers.nets.base import ChrominanceNet, activation, start_in_the_middle


class UNet(ChrominanceNet):
    """A U-Net on half-size planes; the eye and our metric need no finer chrominance.

    base      feature maps of the first level; doubled at each further one, up to `most`
    levels    resolutions: with 4 and 128 pixels, 64 -> 32 -> 16 -> 8 and back
    head      as for the colorizer

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^levels -> (B, 2, H, W). The input
    is folded to half size (PixelUnshuffle keeps every pixel, as 4 channels); the two
    output planes are enlarged bilinearly.
    Source: Ronneberger, Fischer and Brox, MICCAI 2015, with BatchNorm.
    """

    def __init__(
        self, base: int = 16, levels: int = 4, most: int = 256, head: str = "linear"
    ):
        super().__init__()
        self.scale = AbScale(head)
        self.num_down = levels  # input sizes are multiples of 2 ** num_down
        maps = [min(base * 2**level, most) for level in range(levels)]
        self.fold = nn.PixelUnshuffle(2)  # (B, 1, 128, 128) -> (B, 4, 64, 64)
        self.down = nn.ModuleList(
            _two_convolutions(before, after)
            for before, after in zip([4, *maps], maps, strict=False)
        )
        self.up = nn.ModuleList(
            _two_convolutions(maps[level + 1] + maps[level], maps[level])
            for level in reversed(range(levels - 1))
        )
        self.last = nn.Conv2d(maps[0], 2, 1)
        nn.init.zeros_(self.last.weight)  # starts at the mean colour
        start_in_the_middle(self.last, head)
        self.activation = activation(head)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to the head's numbers (B, 2, H, W)."""
        x, skips = self.fold(L), []
        for level, block in enumerate(self.down):
            if level:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            x = block(x)
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skips.pop()], dim=1))
        half = self.activation(self.last(x))  # (B, 2, H/2, W/2)
        return F.interpolate(half, scale_factor=2, mode="bilinear")


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
