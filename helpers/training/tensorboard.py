"""A training watched in TensorBoard: errors, speed, learning rate, sample pictures."""

from collections.abc import Mapping
from pathlib import Path

import torch

from helpers.data.lab import to_bgr_images
from helpers.evaluation.evaluate import evaluate
from helpers.files import InputError
from helpers.nets import ChrominanceNet
from helpers.training.optim import minibatches

NUM_PICTURES = 6


class TensorBoardLogger:
    """Writes TensorBoard's files; to be called after each epoch.

    folder      for the event files; show them with `tensorboard --logdir`
    parts       what `fit` is given: train, and test where there is one, whose first six
                photographs are shown
    batch_size  of the training, to tell its steps per second

    Raises InputError when the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, parts: Mapping, batch_size: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                'tensorboard is missing; pip install "deepcolor[tensorboard]"'
            ) from error
        self.writer = SummaryWriter(str(folder))
        self.test, self.num_images = parts.get("test"), len(parts["train"])
        self.num_steps = len(minibatches(self.num_images, batch_size, seed=0, epoch=0))

    def __call__(self, row: dict, net: ChrominanceNet) -> None:
        """Note an epoch's numbers and what the network makes of the photographs."""
        epoch = row["epoch"]
        for name, value in row.items():
            if name not in ("epoch", "seconds"):
                self.writer.add_scalar(name, value, epoch)
        for name, number in (("images", self.num_images), ("steps", self.num_steps)):
            self.writer.add_scalar(f"{name} per second", number / row["seconds"], epoch)
        if net.task == "map" and self.test is not None:
            self.writer.add_image(
                "grayscale, truth, prediction", self._rows(net), epoch
            )
        self.writer.flush()

    def _rows(self, net: ChrominanceNet) -> torch.Tensor:
        """Three rows of pictures as one, (3, 3 H, n W) uint8 RGB."""
        shown = self.test[:NUM_PICTURES]
        ab_hat = evaluate(net, shown).ab_hat
        kinds = (torch.zeros_like(ab_hat), shown.ab, ab_hat)
        rows = [torch.cat(list(to_bgr_images(shown.L, ab)), 2) for ab in kinds]
        return torch.cat(rows, dim=1).flip(0)  # BGR to RGB
