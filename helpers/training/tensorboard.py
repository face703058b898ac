"""Logging for TensorBoard: errors, speed, learning rate, sample images."""

from pathlib import Path

import torch

from helpers.data.course import Datasets
from helpers.data.lab import to_bgr_images
from helpers.evaluation.evaluate import predict
from helpers.files import InputError
from helpers.nets.base import ChrominanceNet
from helpers.training.optim import minibatches

NUM_IMAGES = 6


class TensorBoardLogger:
    """A writer of event files for TensorBoard; pass it to `fit` as `after_epoch`.

    folder      for the event files; view them with `tensorboard --logdir`
    data        the data passed to `fit`; the first six images of its test set are shown
    batch_size  the training batch size, to compute steps per second

    Raises InputError if the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, data: Datasets, batch_size: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                'tensorboard is missing; pip install "deepcolor[tensorboard]"'
            ) from error
        self.writer = SummaryWriter(str(folder))
        self.test, self.num_images = data.test, len(data.train)
        self.num_steps = len(minibatches(self.num_images, batch_size, seed=0, epoch=0))

    def __call__(self, row: dict, net: ChrominanceNet) -> None:
        """Write an epoch's metrics and the network's predictions."""
        epoch = row["epoch"]
        for name, value in row.items():
            if name not in ("epoch", "seconds"):
                self.writer.add_scalar(name, value, epoch)
        for name, number in (("images", self.num_images), ("steps", self.num_steps)):
            self.writer.add_scalar(f"{name} per second", number / row["seconds"], epoch)
        if net.task == "map" and self.test is not None:
            rows = self._rows(net)
            self.writer.add_image("grayscale, truth, prediction", rows, epoch)
        self.writer.flush()

    def _rows(self, net: ChrominanceNet) -> torch.Tensor:
        """Return three rows of images as one image, (3, 3 H, n W) uint8 RGB."""
        shown = self.test[:NUM_IMAGES]
        ab_hat = predict(net, shown.L)
        kinds = (torch.zeros_like(ab_hat), shown.ab, ab_hat)
        rows = [torch.cat(list(to_bgr_images(shown.L, ab)), 2) for ab in kinds]
        return torch.cat(rows, dim=1).flip(0)  # BGR to RGB
