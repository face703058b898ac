"""The networks of two earlier reports on the course's photographs, layer by layer.

They start as PyTorch starts them, and their convolutions keep the bias that BatchNorm
makes needless: so they were.
"""

from collections.abc import Sequence

import torch
from torch import nn

from helpers.data.lab import AbScale
from helpers.nets.base import ChrominanceNet, MeanNet, activation


class PooledRegressor(MeanNet):
    """Report 000: seven 3x3 convolutions, max-pooling after six of them, a linear layer.

    forward: L*/100 (B, 1, 128, 128) -> 128, 64, 32, 16, 8, 4, 2 -> (B, 2).
    """

    def __init__(self, maps: int = 3, head: str = "linear", labels: str = "sigmoid"):
        super().__init__()
        self.scale = AbScale(labels)
        layers = _pooled(1, [maps] * 6)
        layers += [nn.Conv2d(maps, maps, 3, padding=1), *_norm(maps)]
        last = [nn.Flatten(), nn.Linear(maps * 2 * 2, 2), activation(head)]
        self.layers = nn.Sequential(*layers, *last)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, 128, 128) in 0..1 to (B, 2)."""
        return self.layers(L)


class PooledColorizer(ChrominanceNet):
    """Report 000: 3x3 convolutions and max-pooling down, 4x4 transposed convolutions up.

    maps    feature maps after each layer down; up_maps  after each hidden layer up
    head    relu, sigmoid or tanh; labels  their scale, the head's own unless named
    planes  input planes: 1, or 3 with the two means beside L*

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
        up, channels = [], maps[-1]
        for width in up_maps:
            up += [nn.ConvTranspose2d(channels, width, 4, 2, 1), *_norm(width)]
            channels = width
        up += [nn.ConvTranspose2d(channels, 2, 4, 2, 1), activation(head)]
        self.layers = nn.Sequential(*_pooled(planes, maps), *up)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """The planes (B, planes, H, W), each in 0..1, to the head's (B, 2, H, W)."""
        return self.layers(planes)


class GuidedColorizer(ChrominanceNet):
    """Report 000: a trained regressor's two means as planes beside L*, then the colorizer.

    The regressor is not trained further, and always in evaluation mode.
    """

    def __init__(self, **options):
        super().__init__()
        self.regressor = PooledRegressor().requires_grad_(False)
        self.colorizer = PooledColorizer(planes=3, **options)
        self.num_down = self.colorizer.num_down

    @property
    def scale(self) -> AbScale:
        """The colorizer's."""
        return self.colorizer.scale

    def take(self, trained: ChrominanceNet) -> None:
        """Take over the weights of a trained regressor."""
        self.regressor.load_state_dict(trained.state_dict())

    def train(self, mode: bool = True) -> "GuidedColorizer":
        """Set the mode of the colorizer; the regressor stays in evaluation mode."""
        super().train(mode)
        self.regressor.eval()
        return self

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, 128, 128) in 0..1 to the head's numbers (B, 2, 128, 128)."""
        means = self.regressor(L)[:, :, None, None].expand(-1, -1, *L.shape[2:])
        return self.colorizer(torch.cat([L, means], dim=1))


class StridedRegressor(MeanNet):
    """Report 001: six 4x4 convolutions of stride 2 with BatchNorm and LeakyReLU, linear.

    maps  feature maps, from the first layer down (architecture 1 or 2)
    forward: L*/100 (B, 1, 128, 128) -> 64, 32, 16, 8, 4, 2 -> (B, 2).
    """

    def __init__(self, maps: Sequence[int] = (32, 64, 128, 256, 256, 512)):
        super().__init__()
        self.scale = AbScale("sigmoid")
        last = [nn.Flatten(), nn.Linear(maps[-1] * 2 * 2, 2), nn.Sigmoid()]
        self.layers = nn.Sequential(*_strided(maps), *last)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, 128, 128) in 0..1 to (B, 2) in 0..1."""
        return self.layers(L)


class StridedColorizer(ChrominanceNet):
    """Report 001: the regressor's six convolutions, then six 4x4 transposed ones.

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^len(maps) -> (B, 2, H, W).
    """

    def __init__(
        self,
        maps: Sequence[int] = (32, 64, 128, 256, 256, 512),
        head: str = "sigmoid",
    ):
        super().__init__()
        self.scale = AbScale(head)
        self.num_down = len(maps)
        up, channels = [], maps[-1]
        for width in reversed(maps[:-1]):  # 256, 256, 128, 64, 32 in architecture 1
            up += [nn.ConvTranspose2d(channels, width, 4, 2, 1), *_norm(width, 0.01)]
            channels = width
        up += [nn.ConvTranspose2d(channels, 2, 4, 2, 1), activation(head)]
        self.layers = nn.Sequential(*_strided(maps), *up)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to the head's numbers (B, 2, H, W)."""
        return self.layers(L)


def _norm(maps: int, slope: float = 0.0) -> list[nn.Module]:
    """BatchNorm and ReLU, or LeakyReLU where it has a slope."""
    rectifier = nn.LeakyReLU(slope) if slope else nn.ReLU()
    return [nn.BatchNorm2d(maps), rectifier]


def _pooled(channels: int, maps: Sequence[int]) -> list[nn.Module]:
    layers = []
    for width in maps:
        convolution = nn.Conv2d(channels, width, 3, padding=1)
        layers += [convolution, *_norm(width), nn.MaxPool2d(2)]
        channels = width
    return layers


def _strided(maps: Sequence[int]) -> list[nn.Module]:
    layers, channels = [], 1
    for width in maps:
        layers += [nn.Conv2d(channels, width, 4, 2, 1), *_norm(width, 0.01)]
        channels = width
    return layers
