"""How a network is trained: minibatches, optimizer, schedule, when to stop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from helpers.files import InputError
from helpers.training.muon import Muon

DIV_FACTOR = 25  # OneCycle starts at the peak of the learning rate divided by this


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    num_epochs    passes over the training set
    batch_size    images in a minibatch
    lr            learning rate; its peak where the schedule is onecycle
    optimizer     "adamw", "adam", "sgd" or "muon"
    schedule      "onecycle" (warm up, then down to `lr_end`) or "constant"
    weight_decay  as the optimizer defines it
    momentum      of sgd
    patience      stop after this many epochs without a better validation figure; 0: never
    delta         if not 0, stop by another rule: see `has_settled`
    lr_end        last learning rate of onecycle, as a share of the peak
    flip_only_end share of the epochs, at the end, in which fresh images are only flipped:
                  the test images are not cropped either
    best          the validation figure that chooses the epoch whose weights are kept: "mse"
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
        """Whether fresh images are only flipped in this epoch, counted from 1."""
        return epoch > round((1 - self.flip_only_end) * self.num_epochs)


def minibatches(
    num_images: int, batch_size: int, seed: int, epoch: int
) -> tuple[torch.Tensor, ...]:
    """Return index tensors that visit every image once, in another order in each epoch.

    The sizes differ by one image at most, so that no minibatch has a single image, for
    which BatchNorm has no variance.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(num_images, generator=generator)
    steps = math.ceil(num_images / batch_size)
    if batch_size > 1:
        steps = max(1, min(steps, num_images // 2))
    return order.tensor_split(steps)


def has_settled(losses: Sequence[float], patience: int, delta: float) -> bool:
    """Whether each change between the last `patience` losses is smaller than `delta`.

    Ten losses have nine changes, upward or downward. This is report 003's rule to stop.
    """
    last = losses[-patience:]
    changes = [abs(after - before) for before, after in pairwise(last)]
    return len(last) == patience and max(changes) < delta


def make_optimizer(
    net: nn.Module, recipe: Recipe, steps_per_epoch: int, fused: bool = False
):
    """Return the recipe's optimizer and its schedule, to be stepped after each minibatch.

    `fused` computes the step of the optimizer in one kernel (except Muon's). Raises
    InputError for an unknown optimizer or schedule.
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
