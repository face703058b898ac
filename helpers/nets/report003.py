"""The networks in the ablation study (report 003), from gray to RGB at the same size."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.nets.base import RgbNet


class Stack(RgbNet):
    """A stack of `layers` convolutions, `kernel` x `kernel`, with ReLU in between.

    maps       feature maps of the hidden layers
    batchnorm  "": none;
               "everywhere": after each convolution, including the last, and with minibatch
               statistics even in evaluation mode, as in the study;
               "hidden": after each hidden convolution, with running statistics
    tanh       end with a Tanh

    forward: gray (B, 1, H, W) in -1..1 -> RGB (B, 3, H, W).
    """

    def __init__(
        self,
        layers: int = 2,
        kernel: int = 5,
        maps: int = 4,
        batchnorm: str = "",
        tanh: bool = False,
    ):
        super().__init__()
        if batchnorm not in ("", "everywhere", "hidden"):
            raise ValueError(f"batchnorm {batchnorm!r}: use '', everywhere or hidden")
        widths = [1, *[maps] * (layers - 1), 3]
        steps: list[nn.Module] = []
        for number in range(layers):
            before, after = widths[number : number + 2]
            is_last = number == layers - 1
            steps.append(nn.Conv2d(before, after, kernel, padding="same"))
            if batchnorm == "everywhere" or (batchnorm and not is_last):
                keeps = batchnorm == "hidden"
                steps.append(nn.BatchNorm2d(after, track_running_stats=keeps))
            if not is_last:
                steps.append(nn.ReLU())
        self.layers = nn.Sequential(*steps, *([nn.Tanh()] if tanh else []))

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        """Map gray (B, 1, H, W) in -1..1 to RGB (B, 3, H, W)."""
        return self.layers(gray)


class FlatUNet(RgbNet):
    """The study's U-Net: skips but no pooling; 5x5 convolutions 1-8-12-18-16, 12, 3."""

    def __init__(self):
        super().__init__()
        self.first, self.second = _conv(1, 8), _conv(8, 12)
        self.third, self.fourth = _conv(12, 18), _conv(18, 16)
        self.fifth, self.last = _conv(16 + 12, 12), _conv(12 + 8, 3)

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        """Map gray (B, 1, H, W) in -1..1 to RGB (B, 3, H, W)."""
        first = F.relu(self.first(gray))
        second = F.relu(self.second(first))
        x = F.relu(self.fourth(F.relu(self.third(second))))
        x = F.relu(self.fifth(torch.cat([x, second], dim=1)))
        return self.last(torch.cat([x, first], dim=1))


class WeirdNet(RgbNet):
    """The study's Weird-Net: stems with 8, 16 and 32 maps, halved and joined in pairs.

    Stems 1 -> 8, 16, 32 -> 4, 8, 16; pairs 12, 20, 24 -> 6, 10, 12; all 28 -> 8 -> 3.
    """

    def __init__(self):
        super().__init__()
        stems, halves = (8, 16, 32), (4, 8, 16)
        self.stems = nn.ModuleList(_conv(1, maps) for maps in stems)
        self.halves = nn.ModuleList(map(_conv, stems, halves))
        self.pairs = nn.ModuleList(_conv(maps, maps // 2) for maps in (12, 20, 24))
        self.join, self.last = _conv(6 + 10 + 12, 8), _conv(8, 3)

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        """Map gray (B, 1, H, W) in -1..1 to RGB (B, 3, H, W)."""
        narrow, middle, wide = (
            F.leaky_relu(half(F.leaky_relu(stem(gray))))
            for stem, half in zip(self.stems, self.halves, strict=True)
        )
        joined = [(narrow, middle), (narrow, wide), (middle, wide)]
        pairs = [
            F.leaky_relu(conv(torch.cat(pair, dim=1)))
            for conv, pair in zip(self.pairs, joined, strict=True)
        ]
        return self.last(F.leaky_relu(self.join(torch.cat(pairs, dim=1))))


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 5, padding=2)
