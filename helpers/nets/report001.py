"""The networks from report 001 on the course's photographs, layer by layer.

As in the report, they use PyTorch's default initialization, and their convolutions have a
bias even though BatchNorm follows.
"""

from collections.abc import Sequence

import torch
from torch import nn

from helpers.data.lab import AbScale
from helpers.nets.base import ChrominanceNet, MeanNet, norm_and_relu, transposed_decoder

SLOPE = 0.01  # of LeakyReLU
MAPS = (32, 64, 128, 256, 256, 512)  # architecture 1


class StridedRegressor(MeanNet):
    """Six 4x4 stride-2 convolutions with BatchNorm and LeakyReLU, and a linear layer.

    maps  feature maps after each convolution (architecture 1 or 2)
    forward: L*/100 (B, 1, 128, 128) -> 64, 32, 16, 8, 4, 2 -> (B, 2).
    """

    def __init__(self, maps: Sequence[int] = MAPS):
        super().__init__()
        self.scale = AbScale("sigmoid")
        last = [nn.Flatten(), nn.Linear(maps[-1] * 2 * 2, 2), nn.Sigmoid()]
        self.layers = nn.Sequential(*_strided(maps), *last)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, 128, 128) in 0..1 to (B, 2) in 0..1."""
        return self.layers(L)


class StridedColorizer(ChrominanceNet):
    """The regressor's six convolutions, then six 4x4 transposed convolutions.

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^len(maps) -> (B, 2, H, W).
    """

    def __init__(self, maps: Sequence[int] = MAPS, head: str = "sigmoid"):
        super().__init__()
        self.scale = AbScale(head)
        self.num_down = len(maps)
        up = transposed_decoder(maps[-1], maps[-2::-1], head, SLOPE)
        self.layers = nn.Sequential(*_strided(maps), *up)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) to (B, 2, H, W) on the scale of the head."""
        return self.layers(L)


def _strided(maps: Sequence[int]) -> list[nn.Module]:
    layers, channels = [], 1
    for width in maps:
        layers += [nn.Conv2d(channels, width, 4, 2, 1), *norm_and_relu(width, SLOPE)]
        channels = width
    return layers
