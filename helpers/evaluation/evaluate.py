"""Testing a network or a baseline: without gradients, in evaluation mode."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.data.lab import LabImages
from helpers.evaluation.metrics import Estimate, bootstrap, chrominance_mse
from helpers.nets import evaluation_mode


@dataclass(frozen=True)
class Evaluation:
    """A predictor tested on images.

    mse        mean error on scale S with its 95 % interval
    per_image  (N,) the error of each image
    ab_hat     (N, 2) or (N, 2, H, W) float32, natural units
    mean_mse   of a map: the error of its mean colors, as a regressor's; else None
    """

    mse: Estimate
    per_image: torch.Tensor
    ab_hat: torch.Tensor
    mean_mse: Estimate | None = None


def chrominance(net: nn.Module, images: LabImages) -> dict[str, torch.Tensor]:
    """What `fit` notes of a part: {"mse": (N,) the error of each image on scale S}."""
    return {"mse": evaluate(net, images).per_image}


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
    per_image, mean_mse = chrominance_mse(ab_hat, truth), None
    if ab_hat.ndim == 4:
        means = [x.mean(dim=(2, 3), dtype=torch.float32) for x in (ab_hat, truth)]
        mean_mse = bootstrap(chrominance_mse(*means))
    return Evaluation(bootstrap(per_image), per_image, ab_hat, mean_mse)
