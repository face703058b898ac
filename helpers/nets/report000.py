"""The networks from report 000 on the course's photographs, layer by layer.

As in the report, they use PyTorch's default initialization, and their convolutions have a
bias even though BatchNorm follows.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import AbScale
from helpers.nets.base import (
    ChrominanceNet,
    MeanNet,
    activation,
    norm_and_relu,
    transposed_decoder,
)


class PooledRegressor(MeanNet):
    """Seven 3x3 convolutions, the first six with max pooling, and a linear layer.

    forward: L*/100 (B, 1, 128, 128) -> 128, 64, 32, 16, 8, 4, 2 -> (B, 2).
    """

    def __init__(self, maps: int = 3, head: str = "linear", labels: str = "sigmoid"):
        super().__init__()
        self.scale = AbScale(labels)
        layers = _pooled(1, [maps] * 6)
        layers += [nn.Conv2d(maps, maps, 3, padding=1), *norm_and_relu(maps)]
        last = [nn.Flatten(), nn.Linear(maps * 2 * 2, 2), activation(head)]
        self.layers = nn.Sequential(*layers, *last)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, 128, 128) in 0..1 to (B, 2)."""
        return self.layers(L)


class PooledColorizer(ChrominanceNet):
    """3x3 convolutions with max pooling, then 4x4 transposed convolutions.

    maps, up_maps  feature maps after each encoder layer and each hidden decoder layer
    head, labels   see `Colorizer`
    planes         input planes: 1 for L*, or 3 for L* and the two means

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^len(maps) -> (B, 2, H, W).
    """

    def __init__(
        self,
        maps: Sequence[int] = (3, 3, 3, 3),
        up_maps: Sequence[int] = (3, 3, 3),
        head: str = "sigmoid",
        labels: str | None = None,
        planes: int = 1,
    ):
        super().__init__()
        self.scale = AbScale(labels or head)
        self.num_down = len(maps)
        up = transposed_decoder(maps[-1], up_maps, head)
        self.layers = nn.Sequential(*_pooled(planes, maps), *up)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Map planes (B, planes, H, W) in 0..1 to (B, 2, H, W) on the scale of the head."""
        return self.layers(planes)


class GuidedColorizer(ChrominanceNet):
    """The colorizer, with a trained regressor's two means as additional input planes.

    The regressor is frozen and always in evaluation mode. It gets the image at 128 x 128
    pixels, the size it is designed for. Options: see `PooledColorizer`, except `planes`.
    """

    __signature__ = inspect.signature(PooledColorizer)

    def __init__(self, **options):
        super().__init__()
        self.regressor = PooledRegressor().requires_grad_(False)
        self.colorizer = PooledColorizer(planes=3, **options)
        self.num_down = self.colorizer.num_down

    @property
    def scale(self) -> AbScale:
        """The scale of the colorizer."""
        return self.colorizer.scale

    def load_pretrained(self, regressor: PooledRegressor) -> None:
        """Copy a trained regressor's weights."""
        self.regressor.load_state_dict(regressor.state_dict())

    def train(self, mode: bool = True) -> "GuidedColorizer":
        """Set the mode of the colorizer; the regressor stays in evaluation mode."""
        super().train(mode)
        self.regressor.eval()
        return self

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) to (B, 2, H, W) on the scale of the head."""
        size = [self.regressor.size] * 2
        small = L if list(L.shape[2:]) == size else F.interpolate(L, size, mode="area")
        means = self.regressor(small)[:, :, None, None].expand(-1, -1, *L.shape[2:])
        return self.colorizer(torch.cat([L, means], dim=1))


def _pooled(channels: int, maps: Sequence[int]) -> list[nn.Module]:
    layers = []
    for width in maps:
        convolution = nn.Conv2d(channels, width, 3, padding=1)
        layers += [convolution, *norm_and_relu(width), nn.MaxPool2d(2)]
        channels = width
    return layers
