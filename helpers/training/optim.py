"""How a network is trained: minibatches, optimizer, schedule, stopping rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from helpers.files import InputError
from helpers.training.muon import Muon

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")
SCHEDULES = ("onecycle", "constant")
DIV_FACTOR = 25  # OneCycle starts at the peak learning rate divided by this


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    num_epochs    passes over the training set
    batch_size    images in a minibatch
    lr            learning rate; the peak value for onecycle
    optimizer     "adamw", "adam", "sgd" or "muon"
    schedule      "onecycle" (warm up, then down to `lr_end`) or "constant"
    weight_decay  as the optimizer defines it
    momentum      for sgd with a constant learning rate; onecycle moves it between 0.95
                  and 0.85
    patience      stop after this many epochs without a better validation metric; 0: never
    delta         if not 0, use the stopping rule of `has_settled` instead
    lr_end        final learning rate of onecycle, as a fraction of the peak
    flip_only_end final fraction of the epochs, in which fresh images are flipped, but not
                  cropped or moved: the test images are not, either
    best          validation metric that selects the epoch whose weights are kept: "mse"
                  (lowest) or "accuracy" (highest)
    """

    num_epochs: int
    batch_size: int = 50
    lr: float = 1e-2
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    weight_decay: float = 0.01
    momentum: float = 0.9
    patience: int = 0
    delta: float = 0.0
    lr_end: float = 0.0
    flip_only_end: float = 0.0
    best: str = "mse"

    def is_flip_only(self, epoch: int) -> bool:
        """Return whether images are not cropped or moved in this epoch, counted from 1."""
        return epoch > round((1 - self.flip_only_end) * self.num_epochs)


def minibatches(
    num_images: int, batch_size: int, seed: int, epoch: int
) -> tuple[torch.Tensor, ...]:
    """Return index tensors that visit every image once, in a different order each epoch.

    The sizes differ by at most one, so that no minibatch has only a single image, for
    which BatchNorm has no variance.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(num_images, generator=generator)
    steps = math.ceil(num_images / batch_size)
    if batch_size > 1:
        steps = max(1, min(steps, num_images // 2))
    return order.tensor_split(steps)


def has_settled(losses: Sequence[float], patience: int, delta: float) -> bool:
    """Return whether each change between the last `patience` losses is below `delta`.

    Ten losses have nine changes, up or down. This is report 003's stopping rule.
    """
    last = losses[-patience:]
    changes = [abs(after - before) for before, after in pairwise(last)]
    return len(last) == patience and max(changes, default=delta) < delta


def make_optimizer(
    net: nn.Module, recipe: Recipe, steps_per_epoch: int, fused: bool = False
):
    """Return the recipe's optimizer and scheduler, both stepped after each minibatch.

    `fused` computes the optimizer step in one kernel (except for Muon). Raises InputError
    for an unknown optimizer or schedule.
    """
    parameters = net.parameters()
    options = {"weight_decay": recipe.weight_decay, "fused": fused or None}
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, recipe.lr, momentum=recipe.momentum, **options
        )
    elif recipe.optimizer in ("adam", "adamw"):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        optimizer = kind(parameters, recipe.lr, **options)
    elif recipe.optimizer == "muon":
        optimizer = Muon(net, recipe.lr, recipe.weight_decay)
    else:
        raise InputError(
            f"optimizer {recipe.optimizer!r}: use adamw, adam, sgd or muon"
        )
    if recipe.schedule == "onecycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=max(recipe.num_epochs * steps_per_epoch, 2),
            div_factor=DIV_FACTOR,
            final_div_factor=1 / max(DIV_FACTOR * recipe.lr_end, 1e-4),
            cycle_momentum=recipe.optimizer != "muon",
        )
    elif recipe.schedule == "constant":
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    else:
        raise InputError(f"schedule {recipe.schedule!r}: use onecycle or constant")
    return optimizer, scheduler
