"""The colorizer: N downsampling and N upsampling layers, from L* to a*, b*."""

from collections.abc import Sequence

import torch
from torch import nn

from helpers.data.lab import AbScale
from helpers.nets.base import (
    ChrominanceNet,
    activation,
    init_to_neutral,
    norm_and_relu,
)


class Colorizer(ChrominanceNet):
    """An encoder-decoder without skip connections.

    maps       feature maps after each of the N downsampling layers; the decoder mirrors
               them. An int means the same number after each of the `num_down` layers.
    num_down   N, if `maps` is an int (the assignment starts with 5: 128 -> 4 -> 128)
    upsample   "transposed": 4x4 transposed convolution with stride 2;
               "nearest": nearest-neighbor upsampling, then a 3x3 convolution
    batchnorm  BatchNorm after each hidden convolution
    head       relu, sigmoid, tanh or linear
    labels     head whose scale the labels use; by default, `head`

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^N -> (B, 2, H, W).
    Source: the assignment, "Colorize the image" and "Batch Normalization".
    """

    def __init__(
        self,
        maps: int | Sequence[int] = 3,
        num_down: int = 5,
        upsample: str = "transposed",
        batchnorm: bool = True,
        head: str = "sigmoid",
        labels: str | None = None,
    ):
        super().__init__()
        if upsample not in ("transposed", "nearest"):
            raise ValueError(f"upsample {upsample!r}: use transposed or nearest")
        self.scale = AbScale(labels or head)
        maps = [maps] * num_down if isinstance(maps, int) else list(maps)
        bias = not batchnorm  # BatchNorm's shift replaces the bias

        def hidden(width: int) -> list[nn.Module]:
            return norm_and_relu(width) if batchnorm else [nn.ReLU()]

        down, channels = [], 1
        for width in maps:
            conv = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=bias)
            down += [conv, *hidden(width)]
            channels = width
        up = []
        for width in reversed(maps[:-1]):
            up += [*_double(channels, width, upsample, bias), *hidden(width)]
            channels = width
        last = _double(channels, 2, upsample, bias=True)
        init_to_neutral(last[-1], head)
        self.num_down = len(maps)
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(*up, *last, activation(head))

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) in 0..1 to (B, 2, H, W) on the scale of the head."""
        return self.up(self.down(L))


def _double(channels: int, maps: int, how: str, bias: bool) -> list[nn.Module]:
    """Return layers that double height and width."""
    if how == "transposed":
        return [nn.ConvTranspose2d(channels, maps, 4, stride=2, padding=1, bias=bias)]
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(channels, maps, 3, padding=1, bias=bias),
    ]
