"""Predictors that a network has to beat: constants and tables, fitted in one pass.

Each takes the training part and predicts natural ab (B, 2, H, W) float32 from natural
L* (B, 1, H, W), as a network's `predict` does, so that one `evaluate` serves all.
"""

import torch

from helpers.data.lab import L_MAX, LabImages

CHUNK = 256  # images converted to float32 at a time


class Baseline:
    """What all share: they predict the color of each pixel, unless they say otherwise."""

    def __init__(self, train: LabImages):
        pass

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """What of the natural ab (B, 2, H, W) the baseline predicts."""
        return ab


class NeutralGray(Baseline):
    """a* = b* = 0 everywhere: the photograph as it is without color."""

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Zeros (B, 2, H, W)."""
        return torch.zeros(len(L), 2, *L.shape[2:])


class MeanColor(Baseline):
    """One (a*, b*) for all pixels: the mean of the training part."""

    def __init__(self, train: LabImages):
        self.ab = train.ab.mean(dim=(0, 2, 3), dtype=torch.float32)  # (2,)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """The mean color at every pixel."""
        return self.ab.view(1, 2, 1, 1).expand(len(L), 2, *L.shape[2:])


class MeanChrominance(MeanColor):
    """The same constant, tested as a regressor is: on the mean (a*, b*) of an image."""

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """The mean over all pixels, (B, 2)."""
        return ab.mean(dim=(2, 3), dtype=torch.float32)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """The constant for each image, (B, 2)."""
        return self.ab.expand(len(L), 2)


class PixelMean(Baseline):
    """The mean (a*, b*) of the training part at each pixel position."""

    def __init__(self, train: LabImages):
        self.ab = train.ab.mean(dim=0, dtype=torch.float32)  # (2, H, W)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """The same map for every image."""
        return self.ab.expand(len(L), -1, -1, -1)


class LightnessTable(Baseline):
    """A table of 256 entries: level of L* -> mean (a*, b*) of the training pixels.

    Entries that no training pixel meets hold the mean color.
    """

    levels = 256
    cell = None  # one table for the whole picture

    def __init__(self, train: LabImages):
        height, width = train.L.shape[2:]
        self.shape = (height, width) if self.cell else None
        self.num_cells = self._cells(height, width).max().item() + 1
        size = self.num_cells * self.levels
        total, count = torch.zeros(2, size, dtype=torch.float64), torch.zeros(size)
        for part_L, part_ab in zip(
            train.L.split(CHUNK), train.ab.split(CHUNK), strict=True
        ):
            entry = self._entry(part_L).flatten()
            count += torch.bincount(entry, minlength=size)
            for channel in range(2):
                values = part_ab[:, channel].double().flatten()
                total[channel] += torch.bincount(entry, values, minlength=size)
        mean = MeanColor(train).ab.view(2, 1)
        self.table = torch.where(count > 0, total / count.clamp_min(1), mean).float()

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Look each pixel's color up."""
        return self.table[:, self._entry(L)].transpose(0, 1)  # (B, 2, H, W)

    def _entry(self, L: torch.Tensor) -> torch.Tensor:
        if self.shape and self.shape != L.shape[2:]:
            raise ValueError(f"fitted at {self.shape}, asked at {tuple(L.shape[2:])}")
        level = (L[:, 0].float() * (self.levels / L_MAX)).long()
        level = level.clamp(0, self.levels - 1)  # (B, H, W)
        return self._cells(*L.shape[2:]) * self.levels + level

    def _cells(self, height: int, width: int) -> torch.Tensor:
        if self.cell is None:
            return torch.zeros(height, width, dtype=torch.long)
        row = torch.arange(height).view(-1, 1) // self.cell
        column = torch.arange(width) // self.cell
        return row * -(-width // self.cell) + column


class PositionTable(LightnessTable):
    """A table per cell of 4x4 pixels with 32 levels of L*: it knows where faces are."""

    levels = 32
    cell = 4


BASELINES = {
    "neutral gray": NeutralGray,
    "mean color": MeanColor,
    "per-pixel mean": PixelMean,
    "table L -> ab": LightnessTable,
    "table (L, position) -> ab": PositionTable,
}
