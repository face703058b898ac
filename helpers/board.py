"""A training watched in TensorBoard: errors, speed, learning rate, sample pictures."""

from pathlib import Path

import torch

from helpers.evaluation import evaluate
from helpers.files import InputError
from helpers.lab import LabImages, to_bgr_images
from helpers.nets import ChrominanceNet, Regressor

NUM_PICTURES = 6


class Board:
    """Writes TensorBoard's files; to be called after each epoch.

    folder      for the event files; show them with `tensorboard --logdir`
    test        photographs of the test part; the first six are shown
    num_images  training images seen in an epoch

    Raises InputError when the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, test: LabImages, num_images: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                'tensorboard is missing; pip install "deepcolor[tensorboard]"'
            ) from error
        self.writer = SummaryWriter(str(folder))
        self.test, self.num_images = test[:NUM_PICTURES], num_images

    def __call__(self, row: dict, net: ChrominanceNet) -> None:
        """Note an epoch's numbers and what the network makes of the photographs."""
        epoch = row["epoch"]
        for name in ("train_mse", "validation_mse", "test_mse", "lr"):
            if name in row:
                self.writer.add_scalar(name, row[name], epoch)
        speed = self.num_images / row["seconds"]
        self.writer.add_scalar("images per second", speed, epoch)
        if not isinstance(net, Regressor):
            self.writer.add_image(
                "grayscale, truth, prediction", self._rows(net), epoch
            )
        self.writer.flush()

    def _rows(self, net: ChrominanceNet) -> torch.Tensor:
        """Three rows of pictures as one, (3, 3 H, n W) uint8 RGB."""
        ab_hat = evaluate(net, self.test).ab_hat
        kinds = (torch.zeros_like(ab_hat), self.test.ab, ab_hat)
        rows = [torch.cat(list(to_bgr_images(self.test.L, ab)), 2) for ab in kinds]
        return torch.cat(rows, dim=1).flip(0)  # BGR to RGB
