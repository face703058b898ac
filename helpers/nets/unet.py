"""A U-Net on folded planes: an encoder and decoder with skips that predicts small ab."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import AbScale
from helpers.nets.base import ChrominanceNet, activation, init_to_neutral


class UNetTrunk(nn.Module):
    """All of a U-Net but its last layer, at a half or a quarter of the input's size.

    base      feature maps of the first level; doubled at each further one, up to `max_channels`
    levels    resolutions: with unshuffle 2 and 128 pixels 4 are 64 -> 32 -> 16 -> 8 and back
    unshuffle      by how much the input is folded: PixelUnshuffle keeps every pixel, as
              unshuffle x unshuffle channels
    up_convs  convolutions of each level on the way up, 1 or 2

    forward: (B, 1, H, W), H and W multiples of unshuffle * 2^(levels - 1), to feature maps
    (B, base, H/unshuffle, W/unshuffle).
    Source: Ronneberger, Fischer and Brox, MICCAI 2015, with BatchNorm.
    """

    def __init__(
        self,
        base: int,
        levels: int,
        max_channels: int,
        unshuffle: int,
        up_convs: int = 2,
    ):
        super().__init__()
        maps = [min(base * 2**level, max_channels) for level in range(levels)]
        self.unshuffle = nn.PixelUnshuffle(
            unshuffle
        )  # with 2: (B, 1, 128, 128) -> (B, 4, 64, 64)
        self.down = nn.ModuleList(
            _convolutions(before, after)
            for before, after in zip([unshuffle**2, *maps], maps, strict=False)
        )
        self.up = nn.ModuleList(
            _convolutions(maps[level + 1] + maps[level], maps[level], up_convs)
            for level in reversed(range(levels - 1))
        )

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to feature maps (B, base, H/unshuffle, W/unshuffle)."""
        return self.decode(self.encode(L))

    def encode(self, L: torch.Tensor) -> list[torch.Tensor]:
        """The way down: the feature maps of each level, the finest first."""
        first, *others = self.down
        levels = [first(self.unshuffle(L))]
        for block in others:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        return levels

    def decode(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """The way up from the coarsest level, each joined to its skip."""
        *skips, x = levels
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        return x


class UpscaleBlock(nn.Module):
    """One step from a quarter of the input's size to a half, with all of L* beside it.

    forward: feature maps (B, before, H/unshuffle, W/unshuffle) and L (B, 1, H, W) to feature maps
    (B, maps, H/2, W/2).
    Source: Shi and others, Real-Time Single Image Super-Resolution, CVPR 2016 (shuffle).
    """

    def __init__(self, before: int, maps: int, unshuffle: int):
        super().__init__()
        between, factor = maps // 2, unshuffle // 2
        self.enlarge = nn.Sequential(
            nn.Conv2d(before, between * factor**2, 1, bias=False),
            nn.BatchNorm2d(between * factor**2),
            nn.ReLU(),
            nn.PixelShuffle(factor),
        )
        self.unshuffle = nn.PixelUnshuffle(2)
        self.convolution = _convolutions(between + 4, maps, 1)

    def forward(self, x: torch.Tensor, L: torch.Tensor) -> torch.Tensor:
        """Feature maps at a quarter, and L*/100, to feature maps at a half."""
        return self.convolution(torch.cat([self.enlarge(x), self.unshuffle(L)], dim=1))


class UNet(ChrominanceNet):
    """A U-Net that predicts ab at a half or a quarter of the size, enlarged bilinearly.

    The eye and our metric need no finer chrominance. `base`, `levels`, `max_channels`,
    `unshuffle` and `up_convs` as `UNetTrunk` has them; `head` as for the colorizer.
    flip_tta     predict the mirrored picture as well, and take the mean of both
    upscale_maps      feature maps of a `UpscaleBlock` before the last layer, 0 for none

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^num_down -> (B, 2, H, W).
    """

    def __init__(
        self,
        base: int = 16,
        levels: int = 4,
        max_channels: int = 256,
        head: str = "linear",
        unshuffle: int = 2,
        up_convs: int = 2,
        flip_tta: bool = False,
        upscale_maps: int = 0,
    ):
        super().__init__()
        self.flip_tta = flip_tta
        self.scale = AbScale(head)
        self.num_down = levels - 1 + unshuffle.bit_length() - 1
        self.trunk = UNetTrunk(base, levels, max_channels, unshuffle, up_convs)
        self.upscale_block = (
            UpscaleBlock(base, upscale_maps, unshuffle) if upscale_maps else None
        )
        self.last = nn.Conv2d(upscale_maps or base, 2, 1)
        nn.init.zeros_(self.last.weight)  # starts at the mean color
        init_to_neutral(self.last, head)
        self.activation = activation(head)
        self.upscale = 2 if upscale_maps else unshuffle

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to the head's numbers (B, 2, H, W)."""
        return self.enlarge(self.small(self.trunk.encode(L), L))

    def small(self, levels: list[torch.Tensor], L: torch.Tensor) -> torch.Tensor:
        """The encoder's levels to the map before its activation, H/enlarges high."""
        x = self.trunk.decode(levels)
        return self.last(self.upscale_block(x, L) if self.upscale_block else x)

    def enlarge(self, small: torch.Tensor) -> torch.Tensor:
        """The small map, after the head's activation, at the size of the input."""
        y = self.activation(small)
        return F.interpolate(y, scale_factor=self.upscale, mode="bilinear")

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) in 0..100 to natural ab (B, 2, H, W), float32."""
        ab = super().predict(L)
        return (ab + super().predict(L.flip(3)).flip(3)) / 2 if self.flip_tta else ab


class UNetMean(UNet):
    """A regressor that paints: it learns the map as `UNet` does, and answers its mean."""

    task = "mean"

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """The mean of a* and of b* over all pixels, (B, 2)."""
        return ab.mean(dim=(2, 3), dtype=torch.float32)

    def target(self, ab: torch.Tensor) -> torch.Tensor:
        """The head's numbers for natural ab (B, 2, H, W): all of the map."""
        return self.scale.encode(ab)

    def fit_scale(self, ab: torch.Tensor) -> None:
        """Take the head's scale from the training part's natural ab (N, 2, H, W)."""
        self.scale.fit(ab)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) in 0..100 to natural mean ab (B, 2), float32."""
        return super().predict(L).mean(dim=(2, 3))


def _convolutions(before: int, after: int, number: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(number):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers)
