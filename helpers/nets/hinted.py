"""A U-Net that also accepts color hints: points, or the mean color of the image."""

import torch
from torch.nn import functional as F

from helpers.data.lab import L_MAX, LabImages
from helpers.nets.unet import UNet

HINT_PLANES = 3  # a*, b*, and a mask
MEAN_MASK = 0.5  # mask of a hint that gives the mean color of the whole image
MAX_POINTS = 10
POINT_SIDES = (4, 12)  # range of a training point's side in pixels
SHARES = {"none": 0.3, "mean": 0.25}  # training images; the others get points


class HintedUNet(UNet):
    """A U-Net with three optional input planes: a*, b* where known, and a mask.

    The planes enter at a quarter and again at half of the input's size, each as the mean of
    the cell's pixels. During training, each image gets no hint, its mean color, or up to
    ten squares of their true color; see `training_hints`.

    Options: see `UNet`. forward: (B, 1, H, W) L*/100, or (B, 4, H, W) L*/100 followed by
    hints: a* and b* in natural units, and a mask: 0 unknown, 1 known, MEAN_MASK everywhere
    for the mean color -> (B, 2, H, W) on the scale of the head.
    Source: Zhang et al., Real-Time User-Guided Image Colorization, SIGGRAPH 2017.
    """

    extra_planes = HINT_PLANES

    def inputs(self, minibatch: LabImages) -> torch.Tensor:
        """Return L*/100 with hints drawn from the truth, (B, 4, H, W) float32."""
        L = super().inputs(minibatch)
        return torch.cat([L, training_hints(minibatch.ab.float())], dim=1)

    def predict_once(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab from L* (B, 1, H, W), or L* and hints (B, 4, H, W)."""
        L = L.float()
        return self.scale.decode(self(torch.cat([L[:, :1] / L_MAX, L[:, 1:]], dim=1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map L*/100 and optional hints (B, 1 or 4, H, W) to (B, 2, H, W)."""
        L, ab, mask = x[:, :1], x[:, 1:3], x[:, 3:]
        if x.shape[1] == 1:
            ab, mask = torch.zeros_like(x.expand(-1, 2, -1, -1)), torch.zeros_like(x)
        hints = torch.cat([self.scale.encode(ab) * mask, mask], dim=1)
        half, factor = F.avg_pool2d(hints, 2), self.trunk.unshuffle.downscale_factor
        levels = self.trunk.encode(L, F.avg_pool2d(hints, factor))
        return self.enlarge(self.last_layer(levels, L, half))


def training_hints(ab: torch.Tensor) -> torch.Tensor:
    """Draw hints for ab (B, 2, H, W), natural units, from torch's global generator.

    Returns planes a*, b*, mask, (B, 3, H, W): the shares SHARES get no hint or the mean
    color; the others get 1 to MAX_POINTS squares.
    """
    kind = torch.rand(len(ab))
    is_mean = (kind >= SHARES["none"]) & (kind < SHARES["none"] + SHARES["mean"])
    has_points = kind >= SHARES["none"] + SHARES["mean"]
    number = (MAX_POINTS ** torch.rand(len(ab))).round() * has_points
    hints = point_hints(ab, number.long())
    mean = mean_hint(ab.mean(dim=(2, 3)), ab.shape[2:])
    return torch.where(is_mean.to(ab.device)[:, None, None, None], mean, hints)


def mean_hint(mean: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the planes (B, 3, H, W) that give the mean color, (B, 2) in natural units."""
    mask = torch.full_like(mean[:, :1], MEAN_MASK)
    planes = torch.cat([mean, mask], dim=1)[:, :, None, None]
    return planes.expand(-1, -1, *size)


def point_hints(
    ab: torch.Tensor, number: torch.Tensor, sides: tuple[int, int] = POINT_SIDES
) -> torch.Tensor:
    """Draw `number` (B,) squares per image at random; each shows its mean color.

    ab     (B, 2, H, W), natural units
    sides  smallest and largest side of a square, in pixels
    Returns planes a*, b*, mask, (B, 3, H, W). Random numbers come from torch's global
    generator. Where squares overlap, their colors are averaged.
    """
    count, (height, width) = max(int(number.max()), 1), ab.shape[2:]
    shape = (len(ab), count, 1)
    side = torch.randint(sides[0], sides[1] + 1, shape)
    inside = []
    for length in (height, width):
        start = (torch.rand(shape) * (length - side + 1)).floor()
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + side))
    is_used = torch.arange(count) < number[:, None]
    rows, columns = inside[0] & is_used[..., None], inside[1]
    squares = (rows[..., :, None] & columns[..., None, :]).flatten(2)  # (B, count, HW)
    squares = squares.to(ab.device, torch.float32)
    area = squares.sum(dim=2, keepdim=True).clamp_min(1)
    colors = squares @ ab.flatten(2).transpose(1, 2) / area  # (B, count, 2)
    covered = squares.sum(dim=1, keepdim=True)  # (B, 1, HW)
    planes = colors.transpose(1, 2) @ squares / covered.clamp_min(1)
    planes = torch.cat([planes, (covered > 0).float()], dim=1)
    return planes.unflatten(2, (height, width))
