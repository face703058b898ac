"""Training: one loop for every network, plain or fast, in one process or several.

Minibatches and augmentation are functions of seed, epoch and position, so that a stopped
training goes on at the exact step, to the same bits.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from signal import Signals

import numpy as np
import torch
from torch import nn

from helpers.data.augment import FreshImages, only_flips, random_aug_params
from helpers.data.lab import LabImages
from helpers.data.pairs import GrayRgb
from helpers.evaluation.evaluate import chrominance
from helpers.files import InputError, WorkFailed
from helpers.nets import ChrominanceNet, RgbNet
from helpers.progress import progress
from helpers.training import distributed as processes
from helpers.training.checkpoint import load_checkpoint, save_checkpoint
from helpers.training.execution import PLAIN, Execution
from helpers.training.optim import Recipe, has_settled, make_optimizer, minibatches
from helpers.training.signals import StopSignals

Net = ChrominanceNet | RgbNet
Images = LabImages | FreshImages | GrayRgb
Measure = Callable[[Net, Images], dict[str, torch.Tensor]]
History = dict[str, list[float]]
CHECK_EVERY = {"cpu": 1, "cuda": 50}  # steps; to look at a GPU's loss is to wait for it
SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch


class TrainingDiverged(WorkFailed):
    """The loss is no longer a finite number; the message says where and what to try."""


class Training:
    """A training in progress: all that has to be kept to go on with it.

    epoch, step     where it stands: the epoch, from 1, and the steps done in it
    loss_sum        sum over this epoch's images so far, on the network's device
    seconds         spent on this epoch so far
    history, best   as `fit` describes them
    """

    def __init__(self, net: Net, optimizer, scheduler, execution: Execution):
        self.net, self.optimizer, self.scheduler = net, optimizer, scheduler
        self.execution = execution
        self.device = next(net.parameters()).device
        self.history: History = {"epoch": [], "lr": [], "train_mse": [], "seconds": []}
        self.best = {"figure": -math.inf, "epoch": 0, "weights": None}
        self.epoch = 0
        self.next_epoch()

    def next_epoch(self) -> None:
        """Stand at the start of the next epoch."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.loss_sum = torch.zeros((), device=self.device)

    def finish_epoch(self, num_images: int, parts: Mapping, measure, best: str) -> dict:
        """Test the parts, note all in the history, remember the best; returns the row."""
        loss = processes.sum_of_all(self.loss_sum).item() / num_images
        row = {
            "epoch": self.epoch,
            "lr": self.lr,
            "train_mse": self.net.reported(loss),
            "seconds": self.seconds,
        }
        for part, images in parts.items():
            if images is not None:
                figures = _means(measure, self.net, images)
                row |= {f"{part}_{name}": mean for name, mean in figures.items()}
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        figure = row.get(f"validation_{best}", math.nan)
        figure = -figure if best == "mse" else figure
        if figure > self.best["figure"]:
            weights = {k: v.clone() for k, v in self.net.state_dict().items()}
            self.best = {"figure": figure, "epoch": self.epoch, "weights": weights}
        self.next_epoch()
        return row

    def is_finished(self, recipe: Recipe) -> bool:
        """Whether all epochs are done, patience has ended, or the error has settled."""
        if recipe.delta:
            losses = self.history.get("validation_mse", [])
            stops = has_settled(losses, recipe.patience, recipe.delta)
        else:
            stops = 0 < recipe.patience <= self.epoch - 1 - self.best["epoch"]
        return stops or self.epoch > recipe.num_epochs

    def state(self) -> dict:
        """Tensors and plain values, from which `load` goes on."""
        return {
            "execution": asdict(self.execution),
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "loss_sum": processes.sum_of_all(self.loss_sum.clone()),
            **{name: getattr(self, name) for name in PLAIN_STATE},
        }

    def load(self, saved: dict) -> None:
        """Go back to where `state` was taken."""
        for part in ("net", "optimizer", "scheduler"):
            name = "weights" if part == "net" else part
            getattr(self, part).load_state_dict(saved[name])
        if processes.rank() == 0:  # the sum is that of all processes
            self.loss_sum = saved["loss_sum"].to(self.device)
        for name in PLAIN_STATE:
            setattr(self, name, saved[name])


PLAIN_STATE = ("epoch", "step", "seconds", "lr", "history", "best")


def train_step(training: Training, called: nn.Module, minibatch: Images, share: float):
    """zero_grad, forward, loss, backward; returns (loss, norm of the gradient).

    called  the network as it is computed: itself, compiled, or shared by processes
    share   this process's part of the minibatch, 1 when it trains alone
    """
    training.optimizer.zero_grad()
    with training.execution.autocast(training.device):
        y = called(training.net.inputs(minibatch))
    loss = training.net.loss(y, minibatch)
    (loss * share * processes.count()).backward()  # processes average their gradients
    gradients = [p.grad for p in training.net.parameters() if p.grad is not None]
    return loss.detach(), nn.utils.get_total_norm(gradients)


def train_epoch(
    training: Training,
    called: nn.Module,
    train: Images,
    batches: Sequence[torch.Tensor],
    aug_params: torch.Tensor,
    names: Sequence[str] = (),
    wants_to_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Go on with an epoch from where it stands; returns False when it was stopped.

    Raises TrainingDiverged before the step that would spoil the network; weights and
    buffers are then those of the last look (`CHECK_EVERY`).
    """
    every = CHECK_EVERY[training.device.type]
    healthy, watched = None, 0.0
    training.net.train()
    remaining = batches[training.step :]
    for index in progress(
        remaining, f"epoch {training.epoch}", shown=processes.rank() == 0
    ):
        started = time.perf_counter()
        if healthy is None:
            healthy = {k: v.clone() for k, v in training.net.state_dict().items()}
        mine = processes.my_share(index)
        minibatch = train.minibatch(mine, aug_params)
        loss, norm = train_step(training, called, minibatch, len(mine) / len(index))
        watched = watched + loss + norm  # NaN and Inf stay in a sum
        training.step += 1
        looks = training.step % every == 0 or training.step == len(batches)
        if looks and not math.isfinite(watched):
            training.net.load_state_dict(healthy)
            raise TrainingDiverged(_what_diverged(training, len(batches), index, names))
        training.optimizer.step()
        training.scheduler.step()
        training.loss_sum += loss * len(mine)
        training.seconds += time.perf_counter() - started
        if looks:
            healthy = None
            if wants_to_stop():
                return False
    return True


def fit(
    net: Net,
    train: Images,
    test: Images | None = None,
    *,
    recipe: Recipe,
    seed: int = 0,
    validation: Images | None = None,
    sample: Images | None = None,
    measure: Measure = chrominance,
    execution: Execution = PLAIN,
    checkpoint: Path | None = None,
    save_every: float = SAVE_EVERY,
    names: Sequence[str] = (),
    log: Callable[[str], None] | None = None,
    after_epoch: Callable[[dict, Net], None] | None = None,
    stop: StopSignals | None = None,
) -> History:
    """Train `net` in place on its device; returns one number an epoch in each list.

    History: epoch, lr, train_mse (in training mode), test_mse (only recorded, nothing is
    chosen by it), validation_mse, sample_mse, seconds; chrominance errors on scale S.

    validation   keep the weights of its best epoch; `recipe.patience` stops early
    sample       some of the training images, to be tested as the test images are
    measure      what is tested: from a network and images to named figures of each image
    execution    how steps are computed; a checkpoint goes on in the form it was started in
    checkpoint   saved here after each epoch, every `save_every` seconds, and when stopped;
                 the same call goes on from it at the exact step, or returns at once
    names        of the training images, to name those whose loss is not finite
    log          called with a line after each epoch; after_epoch with its numbers and net

    Ctrl-C ends it after the step: the network is as trained so far, and `stop.received`
    tells. TERM and USR1 save, then act as they would have without us. Under torchrun the
    processes share every minibatch; the first of them writes and logs.

    Raises InputError when the checkpoint belongs to other data, another network or recipe,
    and TrainingDiverged when loss or gradient are no longer finite.
    """
    if recipe.patience and validation is None:
        raise ValueError(
            "patience needs a validation part: it must not look at the test"
        )
    if len(train) < 2:
        raise InputError("training needs at least 2 images")
    device = next(net.parameters()).device
    train = train.to(device)  # once, not minibatch by minibatch
    net.fit_scale(train.truth)
    identity = _identity(net, train, validation, recipe, seed) if checkpoint else {}
    saved = load_checkpoint(checkpoint) if checkpoint else None
    if saved:
        _check_same(checkpoint, saved["identity"], identity)
        execution = Execution(**saved["execution"])
    steps = len(minibatches(len(train), recipe.batch_size, seed, epoch=0))
    optimizer, scheduler = make_optimizer(net, recipe, steps, execution.fused)
    training = Training(net, optimizer, scheduler, execution)
    parts = {"test": test, "validation": validation, "sample": sample}
    if saved:
        training.load(saved)
    with execution.active(net), stop or StopSignals() as stop:
        called = execution.compile(processes.share(net))
        keeper = _Keeper(training, checkpoint, identity, save_every, stop)
        while not training.is_finished(recipe):
            epoch = training.epoch
            batches = minibatches(len(train), recipe.batch_size, seed, epoch)
            batches = [index.to(device) for index in batches]
            aug_params = random_aug_params(len(train), seed, epoch).to(device)
            if recipe.is_flip_only(epoch):
                aug_params = only_flips(aug_params)
            if not train_epoch(
                training, called, train, batches, aug_params, names, keeper.looks_up
            ):
                break
            row = training.finish_epoch(len(train), parts, measure, recipe.best)
            keeper.save()
            if processes.rank() == 0:
                if log:
                    log(epoch_line(row, recipe.num_epochs))
                if after_epoch:
                    after_epoch(row, net)
    if training.best["weights"] is not None:
        net.load_state_dict(training.best["weights"])
    if stop.received:
        where = f"epoch {training.epoch}, step {training.step}"
        kept = "; the same command goes on there" if checkpoint else ""
        (log or print)(f"stopped by {stop.received.name} at {where}{kept}")
        stop.pass_on()
    return training.history


class _Keeper:
    """Writes the checkpoints of a training, when it is time and before it is stopped."""

    def __init__(self, training, path: Path | None, identity, every: float, stop):
        self.training, self.path, self.identity = training, path, identity
        self.every, self.stop = every, stop
        self.saved_at = time.monotonic()

    def looks_up(self) -> bool:
        """Between two steps: save where that is due; returns True to stop."""
        due = time.monotonic() - self.saved_at >= self.every
        number, due = processes.largest(self.stop.received or 0, int(due))
        if number:  # one process was told: all of them stop
            self.stop.received = Signals(number)
        if number or due:
            self.save()
        return bool(number)

    def save(self) -> None:
        """Write the checkpoint, where one is wanted; all processes take part."""
        if self.path:
            state = {"identity": self.identity, **self.training.state()}
            if processes.rank() == 0:
                save_checkpoint(self.path, state)
        self.saved_at = time.monotonic()


def _means(measure: Measure, net: Net, images: Images) -> dict[str, float]:
    """The mean of each figure, each process testing its part of the images."""
    number = min(processes.count(), len(images))
    mine = images[processes.rank() % number :: number]
    figures = measure(net, mine)
    if processes.rank() >= number:  # fewer images than processes
        figures = {name: values[:0] for name, values in figures.items()}
    return {
        name: float(np.mean(processes.gather(values).double().numpy()))
        for name, values in figures.items()
    }


def epoch_line(row: dict, num_epochs: int) -> str:
    """One line for a log: epoch, errors on scale S, seconds."""
    line = f"epoch {row['epoch']:>4} of {num_epochs}  train {row['train_mse']:.3e}"
    for part in ("validation", "test"):
        if f"{part}_mse" in row:
            line += f"  {part} {row[f'{part}_mse']:.3e}"
    return f"{line}  {row['seconds']:.1f} s"


def _what_diverged(training: Training, steps: int, index, names) -> str:
    lr = training.optimizer.param_groups[0]["lr"]
    where = f"epoch {training.epoch}, step {training.step} of {steps}"
    files = ""
    if len(names) and CHECK_EVERY[training.device.type] == 1:
        more = f" and {len(index) - 3} more" if len(index) > 3 else ""
        files = f"; images {', '.join(repr(names[i]) for i in index[:3])}{more}"
    return (
        f"{where}: the loss or its gradient is not finite (learning rate {lr:.2g}{files})"
        "; lower the learning rate or look at these images"
    )


def _identity(net, train, validation, recipe: Recipe, seed: int) -> dict:
    """What must be equal for a checkpoint to go on, as plain values."""
    return {
        "network": str(net),
        "training images": len(train),
        "hash of the training images": train.data_hash(),
        "hash of the validation images": validation.data_hash() if validation else "",
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
