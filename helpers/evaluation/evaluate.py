"""Evaluation of a network or a baseline, in evaluation mode and without gradients."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from helpers.data.lab import ImagePairs
from helpers.evaluation.metrics import Estimate, bootstrap, paired_difference
from helpers.evaluation.task import task_of
from helpers.files import WorkFailed
from helpers.nets.base import evaluation_mode


@dataclass(frozen=True)
class Evaluation:
    """The errors of a predictor on a set of images.

    errors      each error by name, one number per image, (N,); see `ChrominanceMap.errors`
    prediction  the predictions, float32, in natural units
    headline    the name of the metric by which predictors are compared
    group       (N,) the sitter of each image, or None if unknown; intervals resample
                sitters if they are known, images otherwise
    """

    errors: Mapping[str, torch.Tensor]
    prediction: torch.Tensor
    headline: str = "mse"
    group: torch.Tensor | None = None

    @property
    def per_image(self) -> torch.Tensor:
        """Each image's headline error, (N,)."""
        return self.errors[self.headline]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """The mean of each error with its 95% interval, by name."""
        return {name: bootstrap(e, self.group) for name, e in self.errors.items()}

    @property
    def mse(self) -> Estimate:
        """The mean squared error."""
        return self.estimates["mse"]

    @property
    def accuracy(self) -> Estimate | None:
        """Report 003's accuracy, or None for other tasks."""
        return self.estimates.get("accuracy")

    @property
    def mean_mse(self) -> Estimate | None:
        """The MSE of the mean colors of predicted maps, or None for other tasks."""
        return self.estimates.get("mean_mse")

    def minus(self, other: "Evaluation") -> Estimate:
        """Return the paired difference in headline error on the same images."""
        return paired_difference(self.per_image, other.per_image, self.group)


def predict(predictor, inputs: torch.Tensor, batch_size: int = 0) -> torch.Tensor:
    """Return the predictions of a network or a baseline, on the CPU.

    A network runs in evaluation mode without gradients, and its mode is then restored.
    With `batch_size` 0, the task's batch size is used.
    """
    is_net = isinstance(predictor, nn.Module)
    device = next(predictor.parameters()).device if is_net else "cpu"
    batches = inputs.split(batch_size or task_of(predictor).batch_size)
    with evaluation_mode(predictor) if is_net else nullcontext():
        return torch.cat([predictor.predict(x.to(device)).cpu() for x in batches])


def evaluate(predictor, images: ImagePairs, batch_size: int = 0) -> Evaluation:
    """Compare predictions for `images` with the truth; see `predict`.

    Raises WorkFailed if a prediction is not finite.
    """
    task = task_of(predictor)
    prediction = predict(predictor, images.inputs, batch_size)
    if bad := int((~prediction.isfinite()).flatten(1).any(dim=1).sum()):
        raise WorkFailed(
            f"predictions are not finite in {bad} of {len(prediction)} images; the "
            "network has diverged: lower the learning rate and train again"
        )
    errors = task.errors(prediction, images.truth.cpu())
    return Evaluation(errors, prediction, task.headline, images.group)


def evaluate_single_pass(net: nn.Module, images: ImagePairs) -> Evaluation:
    """Evaluate a network without averaging over the mirror image; see `net.passes`."""
    averages, net.flip_tta = net.flip_tta, False
    try:
        return evaluate(net, images)
    finally:
        net.flip_tta = averages
