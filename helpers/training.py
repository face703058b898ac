"""Training and testing: one plain loop for every network.

Minibatches are a function of seed and epoch, so that a stopped training goes on exactly
where its last checkpoint was written.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from helpers.checkpoint import load_checkpoint, save_checkpoint
from helpers.files import InputError, WorkFailed, sha256
from helpers.lab import LabImages
from helpers.metrics import Estimate, bootstrap, chrominance_mse
from helpers.nets import ChrominanceNet, evaluation_mode

History = dict[str, list[float]]


class TrainingDiverged(WorkFailed):
    """The loss is no longer a finite number; the message says where and what to try."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    num_epochs    passes over the training part
    batch_size    images in a minibatch
    lr            learning rate; the peak where the schedule is onecycle
    optimizer     "adamw", "adam" or "sgd" (momentum 0.9)
    schedule      "onecycle" (warm up, then down to zero) or "constant"
    weight_decay  as the optimizer defines it
    patience      stop after so many epochs without a better validation error; 0: never
    """

    num_epochs: int
    batch_size: int = 50
    lr: float = 1e-2
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    weight_decay: float = 0.01
    patience: int = 0


def set_seed(seed: int) -> None:
    """Seed torch; call it before a network is built and before it is trained."""
    torch.manual_seed(seed)


def choose_device(device: str = "auto") -> str:
    """The device to compute on: "cpu", "cuda" or, for "auto", the GPU where there is one.

    Where a GPU is asked for and absent the answer is "cpu", with a printed note. Raises
    InputError for another word.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {device!r}: unknown; use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is visible: computing on the CPU")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


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


def train_epoch(net, train, optimizer, scheduler, batches) -> float:
    """One pass over the training part; returns the mean loss over the images.

    The order of the steps is the textbook's: zero_grad, forward, loss, backward, step.
    """
    device = next(net.parameters()).device
    net.train()
    total_loss = torch.zeros((), device=device)
    for index in batches:
        minibatch = train[index].to(device)
        L, target = minibatch.L.float() / 100, net.target(minibatch.ab)
        optimizer.zero_grad()
        loss = F.mse_loss(net(L), target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total_loss += loss.detach() * len(index)
    return total_loss.item() / len(train)


def fit(
    net: ChrominanceNet,
    train: LabImages,
    test: LabImages | None = None,
    *,
    recipe: Recipe,
    seed: int = 0,
    validation: LabImages | None = None,
    checkpoint: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> History:
    """Train `net` in place on its device; returns one number an epoch in each list.

    History: epoch, lr, train_mse (scale S, in training mode), test_mse (scale S; only
    recorded, nothing is chosen by it), validation_mse, seconds.

    With `validation` the weights of its best epoch are kept at the end, and
    `recipe.patience` stops early. With `checkpoint` each epoch is saved there, and a
    stopped training goes on from it; a finished one returns at once. Raises InputError
    when the checkpoint belongs to other data, another network or recipe, and
    TrainingDiverged when the loss is no longer finite.
    """
    if recipe.patience and validation is None:
        raise ValueError(
            "patience needs a validation part: it must not look at the test"
        )
    if len(train) < 2:
        raise InputError("training needs at least 2 images")
    train = train.to(next(net.parameters()).device)  # once, not minibatch by minibatch
    net.fit_scale(train.ab)
    steps = len(minibatches(len(train), recipe.batch_size, seed, epoch=0))
    optimizer, scheduler = make_optimizer(net, recipe, steps)
    history: History = {}
    best = {"mse": math.inf, "epoch": 0, "weights": None}
    identity = _identity(net, train, validation, recipe, seed) if checkpoint else {}
    if checkpoint and (saved := load_checkpoint(checkpoint)):
        _check_same(checkpoint, saved["identity"], identity)
        net.load_state_dict(saved["weights"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]

    first = len(history.get("epoch", [])) + 1
    for epoch in range(first, recipe.num_epochs + 1):
        if recipe.patience and epoch - 1 - best["epoch"] >= recipe.patience:
            break
        started = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        batches = minibatches(len(train), recipe.batch_size, seed, epoch)
        loss = train_epoch(net, train, optimizer, scheduler, batches)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"epoch {epoch}: the loss is {loss}; lower the learning rate ({lr:.2g})"
            )
        row = {"epoch": epoch, "lr": lr, "train_mse": net.scale.loss_on_scale_s(loss)}
        row["seconds"] = time.perf_counter() - started
        for part, images in (("test_mse", test), ("validation_mse", validation)):
            if images is not None:
                row[part] = evaluate(net, images).mse.mean
        for name, value in row.items():
            history.setdefault(name, []).append(value)
        if validation is not None and row["validation_mse"] < best["mse"]:
            weights = {k: v.clone() for k, v in net.state_dict().items()}
            best = {"mse": row["validation_mse"], "epoch": epoch, "weights": weights}
        if checkpoint:
            state = {
                "identity": identity,
                "weights": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "history": history,
                "best": best,
            }
            save_checkpoint(checkpoint, state)
        if log:
            log(epoch_line(row, recipe.num_epochs))
    if best["weights"] is not None:
        net.load_state_dict(best["weights"])
    return history


@dataclass(frozen=True)
class Evaluation:
    """A predictor tested on images.

    mse        mean error on scale S with its 95 % interval
    per_image  (N,) the error of each image
    ab_hat     (N, 2) or (N, 2, H, W) float32, natural units
    """

    mse: Estimate
    per_image: torch.Tensor
    ab_hat: torch.Tensor


def evaluate(predictor, images: LabImages, batch_size: int = 100) -> Evaluation:
    """Test a network or a baseline, in minibatches, without gradients.

    A network is put into evaluation mode and then back into the mode it was found in.
    """
    is_net = isinstance(predictor, nn.Module)
    device = next(predictor.parameters()).device if is_net else "cpu"
    with evaluation_mode(predictor) if is_net else nullcontext():
        parts = [
            predictor.predict(L.to(device)).cpu() for L in images.L.split(batch_size)
        ]
    ab_hat = torch.cat(parts)
    truth = predictor.true_ab(images.ab.cpu())
    per_image = chrominance_mse(ab_hat, truth)
    return Evaluation(bootstrap(per_image), per_image, ab_hat)


def make_optimizer(net: nn.Module, recipe: Recipe, steps_per_epoch: int):
    """The recipe's optimizer and its schedule, which is stepped after each minibatch."""
    parameters, decay = net.parameters(), recipe.weight_decay
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, recipe.lr, momentum=0.9, weight_decay=decay
        )
    elif recipe.optimizer in ("adam", "adamw"):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        optimizer = kind(parameters, recipe.lr, weight_decay=decay)
    else:
        raise InputError(f"optimizer {recipe.optimizer!r}: use adamw, adam or sgd")
    if recipe.schedule == "onecycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            recipe.lr,
            total_steps=max(recipe.num_epochs * steps_per_epoch, 2),
        )
    elif recipe.schedule == "constant":
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    else:
        raise InputError(f"schedule {recipe.schedule!r}: use onecycle or constant")
    return optimizer, scheduler


def epoch_line(row: dict, num_epochs: int) -> str:
    """One line for a log: epoch, errors on scale S, seconds."""
    line = f"epoch {row['epoch']:>4} of {num_epochs}  train {row['train_mse']:.3e}"
    for part in ("validation", "test"):
        if f"{part}_mse" in row:
            line += f"  {part} {row[f'{part}_mse']:.3e}"
    return f"{line}  {row['seconds']:.1f} s"


def _identity(net, train, validation, recipe: Recipe, seed: int) -> dict:
    """What must be equal for a checkpoint to go on, as plain values."""

    def hash_of(images: LabImages | None) -> str:
        parts = (images.L, images.ab) if images else ()
        return sha256(*(part.cpu().numpy().tobytes() for part in parts))

    return {
        "network": str(net),
        "training images": len(train),
        "hash of the training images": hash_of(train),
        "hash of the validation images": hash_of(validation),
        "seed": seed,
        **vars(recipe),
    }


def _check_same(path: Path, saved: dict, asked: dict) -> None:
    changed = [name for name in asked if saved.get(name) != asked[name]]
    if changed:
        name = changed[0]
        was, now = saved.get(name), asked[name]
        what = name if len(f"{was}{now}") > 60 else f"{name} was {was} and is now {now}"
        raise InputError(
            f"{path}: another training ({what}); remove it or choose another run folder"
        )
