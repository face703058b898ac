"""The regressor: from a luminance image to its mean a* and mean b*."""

import torch
from torch import nn

from helpers.data.lab import AbScale
from helpers.nets.base import MeanNet, activation, init_to_neutral

NUM_MODULES = 7  # 128 -> 1


class Regressor(MeanNet):
    """Seven modules of 5x5 convolution, stride 2, and ReLU: 128 to 1 pixel, two outputs.

    `maps` feature maps in the hidden layers (the assignment starts with 3), BatchNorm
    after each hidden convolution on or off, `head` one of relu, sigmoid, tanh, linear
    (the assignment's seventh ReLU is head="relu").

    The hidden weights start as He et al. (ICCV 2015) propose: with PyTorch's default each
    layer would halve what it is given, and little would arrive after seven.

    forward: L*/100 (B, 1, 128, 128) -> (B, 2) in the numbers of the head.
    Source: the assignment, "Build a simple regressor".
    """

    def __init__(self, maps: int = 3, batchnorm: bool = False, head: str = "relu"):
        super().__init__()
        self.scale = AbScale(head)
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(NUM_MODULES - 1):  # 128 -> 64 -> 32 -> 16 -> 8 -> 4 -> 2
            conv = nn.Conv2d(channels, maps, 5, 2, 2, bias=not batchnorm)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers.append(conv)
            if batchnorm:
                layers.append(nn.BatchNorm2d(maps))
            layers.append(nn.ReLU())
            channels = maps
        last = nn.Conv2d(channels, 2, 5, 2, 2)  # 2 -> 1
        init_to_neutral(last, head)
        self.layers = nn.Sequential(*layers, last, activation(head))

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) to (B, 2); sizes other than 128 are averaged at the end."""
        return self.layers(L).mean(dim=(2, 3))

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) to natural (B, 2): the mean of both ways to look at it.

        A mirrored picture has the same mean color, so the network is asked twice.
        """
        return (super().predict(L) + super().predict(L.flip(3))) / 2
