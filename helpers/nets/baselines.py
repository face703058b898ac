"""Baselines that a network must beat: constants and lookup tables, fitted in one pass.

Each is fitted to the training set and predicts natural ab from natural L* (or RGB from
gray), as a network's `predict` does, so the same `evaluate` works for all.
"""

import torch

from helpers.data.lab import L_MAX, LabImages
from helpers.data.pairs import GrayRgb, to_signed

CHUNK = 256  # images converted to float at a time


class Baseline:
    """Base class for baselines, which predict the color of each pixel by default."""

    task = "map"
    flip_tta = False

    def __init__(self, train: LabImages):
        pass


class NeutralGray(Baseline):
    """a* = b* = 0 everywhere: the image without color."""

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Return zeros (B, 2, H, W)."""
        return torch.zeros(len(L), 2, *L.shape[2:])


class MeanColor(Baseline):
    """One (a*, b*) for all pixels: the mean of the training set."""

    def __init__(self, train: LabImages):
        self.ab = train.ab.mean(dim=(0, 2, 3), dtype=torch.float32)  # (2,)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Return the mean color at every pixel, (B, 2, H, W)."""
        return self.ab.view(1, 2, 1, 1).expand(len(L), 2, *L.shape[2:])


class MeanChrominance(MeanColor):
    """The same constant, as the prediction for an image's mean (a*, b*)."""

    task = "mean"

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Return the constant for each image, (B, 2)."""
        return self.ab.expand(len(L), 2)


class PixelMean(Baseline):
    """The training set's mean (a*, b*) at each pixel position."""

    def __init__(self, train: LabImages):
        self.ab = train.ab.mean(dim=0, dtype=torch.float32)  # (2, H, W)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Return the same map for every image, (B, 2, H, W)."""
        return self.ab.expand(len(L), -1, -1, -1)


class LightnessTable(Baseline):
    """A table with 256 entries: level of L* -> mean (a*, b*) of the training pixels.

    levels  number of entries over the range of the input
    cell    None, or the side in pixels of square cells with a separate table each

    Entries without training pixels are set to the training set's mean.
    """

    levels = 256
    cell = None

    def __init__(self, train: LabImages | GrayRgb):
        height, width = train.inputs.shape[2:]
        self.shape = (height, width) if self.cell else None
        size = self.levels * (self._cells(height, width).max().item() + 1)
        channels = train.truth.shape[1]
        total, count = (
            torch.zeros(channels, size, dtype=torch.float64),
            torch.zeros(size),
        )
        for inputs, truth in zip(
            train.inputs.split(CHUNK), train.truth.split(CHUNK), strict=True
        ):
            entry = self._entry(inputs).flatten()
            count += torch.bincount(entry, minlength=size)
            for sums, values in zip(total, self._values(inputs, truth), strict=True):
                sums += torch.bincount(entry, values.double().flatten(), minlength=size)
        mean = self._mean(train, total, count).view(-1, 1)
        self.table = torch.where(count > 0, total / count.clamp_min(1), mean).float()

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Return the color from the table for each pixel, (B, 2, H, W)."""
        return self.table[:, self._entry(L)].transpose(0, 1)

    def _values(self, inputs: torch.Tensor, truth: torch.Tensor):
        """Return one tensor (B, H, W) per channel: what the table averages."""
        return truth.unbind(1)

    def _mean(self, train, total, count) -> torch.Tensor:
        return MeanColor(train).ab

    def _level(self, inputs: torch.Tensor) -> torch.Tensor:
        level = (inputs[:, 0].float() * (self.levels / L_MAX)).long()
        return level.clamp(0, self.levels - 1)  # (B, H, W)

    def _entry(self, inputs: torch.Tensor) -> torch.Tensor:
        height, width = inputs.shape[2:]
        if self.shape and self.shape != (height, width):
            raise ValueError(f"fitted at {self.shape}, used at {(height, width)}")
        return self._cells(height, width) * self.levels + self._level(inputs)

    def _cells(self, height: int, width: int) -> torch.Tensor:
        if self.cell is None:
            return torch.zeros(height, width, dtype=torch.long)
        row = torch.arange(height).view(-1, 1) // self.cell
        column = torch.arange(width) // self.cell
        return row * -(-width // self.cell) + column


class PositionTable(LightnessTable):
    """A separate table with 32 levels for each cell of 4x4 pixels, to use the position."""

    levels = 32
    cell = 4


class RgbTable(LightnessTable):
    """A table gray -> mean RGB of the training pixels, for the ablation study.

    An entry is the mean of R, G, B minus gray; `predict` adds the pixel's own gray.
    """

    task = "rgb"

    def predict(self, gray: torch.Tensor) -> torch.Tensor:
        """Return RGB (B, 3, H, W) in about -1..1 for gray (B, 1, H, W) uint8."""
        return to_signed(gray) + super().predict(gray) / 127.5

    def _values(self, inputs: torch.Tensor, truth: torch.Tensor):
        return (truth.double() - inputs).unbind(1)

    def _mean(self, train, total, count) -> torch.Tensor:
        return total.sum(dim=1) / count.sum()

    def _level(self, gray: torch.Tensor) -> torch.Tensor:
        return gray[:, 0].long() * self.levels // 256


class RgbPositionTable(RgbTable):
    """A separate table with 32 levels for each cell of 4x4 pixels."""

    levels = 32
    cell = 4


BASELINES = {
    "neutral gray": NeutralGray,
    "mean color": MeanColor,
    "per-pixel mean": PixelMean,
    "table L -> ab": LightnessTable,
    "table (L, position) -> ab": PositionTable,
}
RGB_TABLES = {
    "table gray -> RGB": RgbTable,
    "table (gray, position) -> RGB": RgbPositionTable,
}
