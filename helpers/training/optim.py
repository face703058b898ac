"""How a network is trained: epochs, minibatches, optimizer, schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from helpers.files import InputError
from helpers.training.muon import Muon

START = 25  # onecycle begins with the peak of the learning rate over this


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    num_epochs    passes over the training part
    batch_size    images in a minibatch
    lr            learning rate; the peak where the schedule is onecycle
    optimizer     "adamw", "adam", "sgd" or "muon"
    schedule      "onecycle" (warm up, then down to `lr_end`) or "constant"
    weight_decay  as the optimizer defines it
    momentum      of sgd
    patience      stop after so many epochs without a better validation figure; 0: never
    delta         another rule to stop, where it is not 0: see `has_settled`
    lr_end        of onecycle, as a share of the peak
    flip_only_end     share of the epochs, the last ones, in which images that are augmented
                  anew are mirrored at most: what is tested is no crop either
    best          the validation figure that says which epoch's weights are kept: "mse"
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
        """Whether this epoch, counted from 1, is one of the plain ones at the end."""
        return epoch > round((1 - self.flip_only_end) * self.num_epochs)


def minibatches(
    num_images: int, batch_size: int, seed: int, epoch: int
) -> tuple[torch.Tensor, ...]:
    """A tuple of index tensors that visits every image once, each epoch in its own order.

    The minibatches are equal in size but for one image, so none is left with a single
    image, for which BatchNorm has no variance.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(num_images, generator=generator)
    steps = math.ceil(num_images / batch_size)
    if batch_size > 1:
        steps = max(1, min(steps, num_images // 2))
    return order.tensor_split(steps)


def has_settled(losses: Sequence[float], patience: int, delta: float) -> bool:
    """Whether the last `patience` losses changed by less than `delta` each time.

    Ten losses have nine changes; up and down count alike. Report 003's rule to stop.
    """
    last = losses[-patience:]
    changes = [abs(after - before) for before, after in pairwise(last)]
    return len(last) == patience and max(changes) < delta


def make_optimizer(
    net: nn.Module, recipe: Recipe, steps_per_epoch: int, fused: bool = False
):
    """The recipe's optimizer and its schedule, which is stepped after each minibatch.

    `fused` computes the optimizer's step in one kernel (not Muon's). Raises InputError for
    an unknown optimizer or schedule.
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
            div_factor=START,
            final_div_factor=1 / max(START * recipe.lr_end, 1e-4),
            cycle_momentum=recipe.optimizer != "muon",
        )
    elif recipe.schedule == "constant":
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    else:
        raise InputError(f"schedule {recipe.schedule!r}: use onecycle or constant")
    return optimizer, scheduler
