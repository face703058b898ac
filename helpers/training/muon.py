"""Muon: an optimizer that orthogonalizes the step of every convolution kernel."""

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
ITERATIONS = 5
ADAM_LR = 0.2  # learning rate of other parameters, relative to the kernels'


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalized step for kernels, Adam for all other parameters.

    A convolution kernel is treated as a matrix with one row per output map (in a transposed
    convolution, per input map). Its averaged gradient U S V^T is replaced by approximately
    U V^T, so that directions in which few images have a gradient are learned as fast as the
    others. The last layer (named `last`), biases and BatchNorm weights are trained with
    Adam at a fifth of the learning rate.

    torch.optim.Muon accepts only matrices and computes in bfloat16, which is slow on
    processors without it; this version computes in float32.
    Source: K. Jordan et al., *Muon*, 2024; Adam: Kingma and Ba, ICLR 2015.
    """

    def __init__(
        self, net: nn.Module, lr: float, weight_decay: float, momentum: float = 0.95
    ):
        kernels, others = [], []
        for name, parameter in net.named_parameters():
            is_kernel = parameter.ndim == 4 and "last" not in name.split(".")
            (kernels if is_kernel else others).append(parameter)
        decayed = {"params": kernels, "lr": lr, "weight_decay": weight_decay}
        adam = {"params": others, "lr": ADAM_LR * lr, "weight_decay": 0.0}
        groups = [decayed | {"kernels": True}, adam | {"kernels": False}]
        super().__init__(groups, {"momentum": momentum, "betas": (0.9, 0.999)})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update the parameters with their gradients."""
        for group in self.param_groups:
            update = self._muon_step if group["kernels"] else self._adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, self.state[parameter], group)

    def _muon_step(self, kernel, state: dict, group: dict) -> None:
        mean = state.setdefault("mean", torch.zeros_like(kernel))
        mean.lerp_(kernel.grad, 1 - group["momentum"])
        ahead = kernel.grad.lerp(mean, group["momentum"])  # Nesterov momentum
        matrix = ahead.flatten(1)
        rows, columns = matrix.shape
        step = orthogonal(matrix) * max(1, rows / columns) ** 0.5
        kernel.add_(step.view_as(kernel), alpha=-group["lr"])

    def _adam_step(self, parameter, state: dict, group: dict) -> None:
        if not state:
            state["steps"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["steps"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(parameter.grad, 1 - first)
        state["square"].lerp_(parameter.grad.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["steps"])
        root = (state["square"] / (1 - second ** state["steps"])).sqrt()
        parameter.addcdiv_(mean, root + 1e-8, value=-group["lr"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return approximately U V^T for a matrix (m, n) U S V^T: singular values 0.7 to 1.2.

    Computes five steps X <- (a + b XX^T + c (XX^T)^2) X. Each factor is a polynomial in the
    initial XX^T, so their product is one square matrix, by which X is multiplied once.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = COEFFICIENTS
    X = matrix / (matrix.norm() + 1e-7)
    gram = X @ X.T
    product = identity = torch.eye(len(X), dtype=X.dtype, device=X.device)
    for _ in range(ITERATIONS):
        factor = a * identity + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ X
