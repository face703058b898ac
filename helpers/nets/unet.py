"""A U-Net on pixel-unshuffled input that predicts a low-resolution map of a*, b*."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import AbScale
from helpers.nets.base import (
    ChrominanceNet,
    activation,
    init_to_neutral,
    norm_and_relu,
)


class UNetTrunk(nn.Module):
    """A U-Net without its last layer, at half or a quarter of the input's size.

    base          feature maps at the first level; each further level has twice as many, up
                  to `max_channels`
    levels        number of resolutions; with 4 levels and unshuffle 2, an image of 128
                  pixels goes 64 -> 32 -> 16 -> 8 and back
    unshuffle     PixelUnshuffle factor for the input: every pixel is kept, in
                  unshuffle x unshuffle channels
    up_convs      convolutions per decoder level, 1 or 2
    extra_planes  planes that are joined to the unshuffled input

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
        extra_planes: int = 0,
    ):
        super().__init__()
        maps = [min(base * 2**level, max_channels) for level in range(levels)]
        self.unshuffle = nn.PixelUnshuffle(unshuffle)  # 2: 1 x 128^2 -> 4 x 64^2
        first_channels = unshuffle**2 + extra_planes
        self.down = nn.ModuleList(
            _convolutions(before, after)
            for before, after in zip([first_channels, *maps], maps, strict=False)
        )
        self.up = nn.ModuleList(
            _convolutions(maps[level + 1] + maps[level], maps[level], up_convs)
            for level in reversed(range(levels - 1))
        )

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) to feature maps (B, base, H/unshuffle, W/unshuffle)."""
        return self.decode(self.encode(L))

    def encode(self, L: torch.Tensor, *extra: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps of each encoder level, finest first.

        extra  planes (B, extra_planes, H/unshuffle, W/unshuffle), if there are any
        """
        first, *others = self.down
        levels = [first(torch.cat([self.unshuffle(L), *extra], dim=1))]
        for block in others:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        return levels

    def decode(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Upsample from the coarsest level, concatenating each level's skip connection."""
        *skips, x = levels
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        return x


class UpscaleBlock(nn.Module):
    """A step from a quarter to half of the input's size that also uses all pixels of L*.

    forward: feature maps (B, before, H/unshuffle, W/unshuffle) and L (B, 1, H, W) to
    feature maps (B, maps, H/2, W/2).
    Source: Shi et al., Real-Time Single Image Super-Resolution, CVPR 2016 (PixelShuffle).
    """

    def __init__(self, before: int, maps: int, unshuffle: int, extra_planes: int = 0):
        super().__init__()
        between, factor = maps // 2, unshuffle // 2
        self.enlarge = nn.Sequential(
            nn.Conv2d(before, between * factor**2, 1, bias=False),
            *norm_and_relu(between * factor**2),
            nn.PixelShuffle(factor),
        )
        self.unshuffle = nn.PixelUnshuffle(2)
        self.convolution = _convolutions(between + 4 + extra_planes, maps, 1)

    def forward(
        self, x: torch.Tensor, L: torch.Tensor, *extra: torch.Tensor
    ) -> torch.Tensor:
        """Map feature maps at a quarter of the size and L*/100 to feature maps at half.

        extra  planes (B, extra_planes, H/2, W/2), if there are any
        """
        planes = [self.enlarge(x), self.unshuffle(L), *extra]
        return self.convolution(torch.cat(planes, dim=1))


class UNet(ChrominanceNet):
    """A U-Net that predicts ab at half or a quarter of the size, upsampled bilinearly.

    Neither the eye nor the metric needs finer chrominance. `base`, `levels`,
    `max_channels`, `unshuffle` and `up_convs`: see `UNetTrunk`; `head`: see `Colorizer`.
    flip_tta      average the predictions for the image and its mirror image
    upscale_maps  feature maps of an `UpscaleBlock` before the last layer; 0 omits it

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^num_down -> (B, 2, H, W).
    """

    extra_planes = 0  # planes that a subclass joins to the input

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
        extra = self.extra_planes
        self.trunk = UNetTrunk(base, levels, max_channels, unshuffle, up_convs, extra)
        self.upscale_block = None
        if upscale_maps:
            self.upscale_block = UpscaleBlock(base, upscale_maps, unshuffle, extra)
        self.last = nn.Conv2d(upscale_maps or base, 2, 1)
        nn.init.zeros_(self.last.weight)  # start at the mean color
        init_to_neutral(self.last, head)
        self.activation = activation(head)
        self.upscale = 2 if upscale_maps else unshuffle

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) in 0..1 to (B, 2, H, W) on the scale of the head."""
        return self.enlarge(self.last_layer(self.trunk.encode(L), L))

    def enlarge(self, small: torch.Tensor) -> torch.Tensor:
        """Apply the activation to the map and upsample it to the size of the input."""
        y = self.activation(small)
        return F.interpolate(y, scale_factor=self.upscale, mode="bilinear")

    def last_layer(
        self, levels: list[torch.Tensor], L: torch.Tensor, *extra: torch.Tensor
    ) -> torch.Tensor:
        """Return the map before its activation, computed from the encoder's levels.

        extra  planes for the upscale block, (B, extra_planes, H/2, W/2), if there are any
        """
        x = self.trunk.decode(levels)
        return self.last(self.upscale_block(x, L, *extra) if self.upscale_block else x)


class UNetMean(UNet):
    """A regressor that learns the map as `UNet` does and predicts the map's mean."""

    task = "mean"

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural mean ab (B, 2) float32 from natural L* (B, 1, H, W)."""
        return super().predict(L).mean(dim=(2, 3))


def _convolutions(before: int, after: int, number: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(number):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        layers += norm_and_relu(after)
        before = after
    return nn.Sequential(*layers)
