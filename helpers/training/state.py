"""The state of a training run: everything that the next step depends on."""

import math
from dataclasses import asdict

import torch
from torch import nn

from helpers.data.augment import only_flips, random_aug_params
from helpers.data.course import Datasets
from helpers.evaluation.evaluate import evaluate
from helpers.files import InputError, WorkFailed
from helpers.training import distributed
from helpers.training.execution import Execution
from helpers.training.optim import Recipe, has_settled, make_optimizer, minibatches

History = dict[str, list[float]]
CHECK_EVERY = {"cpu": 1, "cuda": 50}  # steps; reading a loss from a GPU blocks


class TrainingDiverged(WorkFailed):
    """The loss or its gradient is not finite; the message says where and what to try."""


class TrainingState:
    """A training run in progress.

    epoch, step  position: the epoch, counted from 1, and the steps done in it
    loss_sum     sum of the loss over the images of this epoch so far
    seconds      training time of this epoch so far
    history      lists with one number per epoch: epoch, lr, train_mse (in training mode),
                 seconds, and each error on the test set, validation set and sample
    best         the best epoch on the validation set, if there is one, and its weights
    """

    SAVED = ("epoch", "step", "seconds", "lr", "history", "best")

    def __init__(
        self,
        net: nn.Module,
        data: Datasets,
        recipe: Recipe,
        seed: int,
        execution: Execution,
    ):
        if recipe.patience and data.validation is None:
            raise ValueError("patience needs a validation set: never use the test set")
        if len(data.train) < 2:
            raise InputError("training needs at least 2 images")
        self.net, self.data, self.recipe, self.seed = net, data, recipe, seed
        self.device = next(net.parameters()).device
        self.train = data.train.to(self.device)  # once, not for every minibatch
        if not net.fine_tuned_from:
            net.fit_scale(self.train.truth)
        self.execution = execution
        self.num_steps = len(minibatches(len(self.train), recipe.batch_size, seed, 0))
        self.optimizer, self.scheduler = make_optimizer(
            net, recipe, self.num_steps, execution.fused
        )
        self.history: History = {"epoch": [], "lr": [], "train_mse": [], "seconds": []}
        self.best = {"figure": -math.inf, "epoch": 0, "weights": None}
        self.healthy, self.watched, self.is_checked = None, 0.0, False
        self.epoch = 0
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.loss_sum = torch.zeros((), device=self.device)

    def remaining_batches(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the remaining minibatches of this epoch and its augmentation parameters.

        Both depend only on the random seed and the epoch, so a checkpoint does not need the
        state of a random generator.
        """
        size, seed, epoch = self.recipe.batch_size, self.seed, self.epoch
        batches = minibatches(len(self.train), size, seed, epoch)
        aug_params = random_aug_params(len(self.train), seed, epoch).to(self.device)
        if self.recipe.is_flip_only(epoch):
            aug_params = only_flips(aug_params)
        return [index.to(self.device) for index in batches[self.step :]], aug_params

    def step_seed(self) -> int:
        """Return the seed for torch's random generator in the next step."""
        steps_done = (self.epoch - 1) * self.num_steps + self.step
        return 1_000_003 * self.seed + steps_done

    def check_finite(self, loss: torch.Tensor, index: torch.Tensor) -> None:
        """Raise TrainingDiverged before a step that would corrupt the network.

        The weights and buffers of the last check (`CHECK_EVERY`) are restored first.
        """
        self.watched = self.watched + loss.detach() + _gradient_norm(self.net)
        step = self.step + 1
        self.is_checked = (
            step % CHECK_EVERY[self.device.type] == 0 or step == self.num_steps
        )
        if self.is_checked and not math.isfinite(self.watched):
            self.net.load_state_dict(self.healthy)
            raise TrainingDiverged(self._what_diverged(index))

    def count_step(self, loss: torch.Tensor, num_images: int, seconds: float) -> None:
        """Advance by one step."""
        self.step += 1
        self.loss_sum += loss.detach() * num_images
        self.seconds += seconds
        if self.is_checked:
            self.keep_healthy()

    def keep_healthy(self) -> None:
        """Keep the weights and buffers that `check_finite` restores."""
        self.watched = 0.0  # NaN and infinity persist in a sum
        self.healthy = {k: v.clone() for k, v in self.net.state_dict().items()}

    def finish_epoch(self) -> dict:
        """Evaluate, extend the history, keep the best weights; return the epoch's row."""
        loss = distributed.sum_of_all(self.loss_sum).item() / len(self.train)
        row = {
            "epoch": self.epoch,
            "lr": self.lr,
            "train_mse": self.net.reported(loss),
            "seconds": self.seconds,
        }
        for name, images in self.data.evaluated().items():
            row |= {
                f"{name}_{e}": mean for e, mean in _errors(self.net, images).items()
            }
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        figure = row.get(f"validation_{self.recipe.best}", math.nan)
        figure = -figure if self.recipe.best == "mse" else figure
        if figure > self.best["figure"]:
            weights = {k: v.clone() for k, v in self.net.state_dict().items()}
            self.best = {"figure": figure, "epoch": self.epoch, "weights": weights}
        self._start_epoch()
        return row

    def is_finished(self) -> bool:
        """Return whether all epochs are done, patience ran out, or the error settled."""
        recipe = self.recipe
        if recipe.delta:
            losses = self.history.get("validation_mse", [])
            stops = has_settled(losses, recipe.patience, recipe.delta)
        else:
            stops = 0 < recipe.patience <= self.epoch - 1 - self.best["epoch"]
        return stops or self.epoch > recipe.num_epochs

    def load_best_weights(self) -> None:
        """Load the weights of the best epoch, if a validation set selected one."""
        if self.best["weights"] is not None:
            self.net.load_state_dict(self.best["weights"])

    def state_dict(self) -> dict:
        """Return the contents of a checkpoint: tensors and plain values."""
        return {
            "execution": asdict(self.execution),
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "loss_sum": distributed.sum_of_all(self.loss_sum.clone()),
            **{name: getattr(self, name) for name in self.SAVED},
        }

    def load_state_dict(self, saved: dict) -> None:
        """Restore a state that `state_dict` returned."""
        self.execution = Execution(**saved["execution"])
        self.optimizer, self.scheduler = make_optimizer(
            self.net, self.recipe, self.num_steps, self.execution.fused
        )
        self.net.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if distributed.rank() == 0:  # the sum over all processes
            self.loss_sum = saved["loss_sum"].to(self.device)
        for name in self.SAVED:
            setattr(self, name, saved[name])

    def identity(self) -> dict:
        """Return the values that must match for a checkpoint to be resumed."""
        validation, start = self.data.validation, self.net.fine_tuned_from
        return {
            "network": str(self.net),
            "random seed": self.seed,  # before the data, which depend on it
            "training images": len(self.train),
            "hash of the training images": self.train.data_hash(),
            "hash of the validation images": validation.data_hash()
            if validation
            else "",
            **asdict(self.recipe),
            **({"fine-tuned from": start} if start else {}),
        }

    def _what_diverged(self, index: torch.Tensor) -> str:
        lr = self.optimizer.param_groups[0]["lr"]
        where = f"epoch {self.epoch}, step {self.step + 1} of {self.num_steps}"
        files, names = "", self.data.names
        if len(names) and CHECK_EVERY[self.device.type] == 1:
            more = f" and {len(index) - 3} more" if len(index) > 3 else ""
            files = f"; images {', '.join(repr(names[i]) for i in index[:3])}{more}"
        return (
            f"{where}: the loss or its gradient is not finite (learning rate {lr:.2g}"
            f"{files}); lower the learning rate or check the images"
        )


def _gradient_norm(net: nn.Module) -> torch.Tensor:
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(gradients)


def _errors(net: nn.Module, images) -> dict[str, float]:
    """Return the mean of each error; each process evaluates its share of the images."""
    distributed.broadcast_buffers(net)
    number = min(distributed.count(), len(images))
    errors = evaluate(net, images[distributed.rank() % number :: number]).errors
    if distributed.rank() >= number:  # fewer images than processes
        errors = {name: values[:0] for name, values in errors.items()}
    return {
        name: distributed.gather(values).double().mean().item()
        for name, values in errors.items()
    }
