"""The regressor: from a luminance image to its mean a* and mean b*."""

import torch
from torch import nn

from helpers.lab import AbScale
from helpers.nets.base import ChrominanceNet, activation, start_in_the_middle

NUM_MODULES = 7  # 128 -> 1


class Regressor(ChrominanceNet):
    """Seven modules of stride-2 convolution and ReLU, 128 to 1 pixel, two outputs.

    `maps` feature maps in the hidden layers (the assignment starts with 3), BatchNorm
    after each hidden convolution on or off, `head` one of relu, sigmoid, tanh, linear
    (the assignment's seventh ReLU is head="relu").

    forward: L*/100 (B, 1, 128, 128) -> (B, 2) in the numbers of the head.
    Source: the assignment, "Build a simple regressor".
    """

    def __init__(self, maps: int = 3, batchnorm: bool = False, head: str = "relu"):
        super().__init__()
        self.scale = AbScale(head)
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(NUM_MODULES - 1):  # 128 -> 64 -> 32 -> 16 -> 8 -> 4 -> 2
            layers.append(nn.Conv2d(channels, maps, 3, 2, 1, bias=not batchnorm))
            if batchnorm:
                layers.append(nn.BatchNorm2d(maps))
            layers.append(nn.ReLU())
            channels = maps
        last = nn.Conv2d(channels, 2, 3, 2, 1)  # 2 -> 1
        start_in_the_middle(last, head)
        self.layers = nn.Sequential(*layers, last, activation(head))

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """The mean of a* and of b* over all pixels, (B, 2)."""
        return ab.mean(dim=(2, 3), dtype=torch.float32)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) to (B, 2); sizes other than 128 are averaged at the end."""
        return self.layers(L).mean(dim=(2, 3))
