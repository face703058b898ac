"""Muon: an optimizer whose step turns every direction of a kernel by the same amount."""

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
ITERATIONS = 5
OTHERS = (
    0.2  # the rate of biases, scales and the last layer, as a share of the kernels'
)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal for kernels, Adam for everything else.

    A convolution's kernel counts as a matrix with a row an output map. Its averaged
    gradient U S V^T is replaced by about U V^T, so that directions which few pictures ask
    for are learned as fast as those that all ask for. The last layer (named `last`),
    biases and BatchNorm's weights take Adam's step at a fifth of the rate.

    torch.optim.Muon takes matrices only and computes in bfloat16, which is slow where the
    processor has none of it; this one computes in float32.
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
        adam = {"params": others, "lr": OTHERS * lr, "weight_decay": 0.0}
        groups = [decayed | {"kernels": True}, adam | {"kernels": False}]
        super().__init__(groups, {"momentum": momentum, "betas": (0.9, 0.999)})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Take a step with the gradients that the parameters hold."""
        for group in self.param_groups:
            move = self._move_kernel if group["kernels"] else self._move_other
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move(parameter, self.state[parameter], group)

    def _move_kernel(self, kernel, state: dict, group: dict) -> None:
        mean = state.setdefault("mean", torch.zeros_like(kernel))
        mean.lerp_(kernel.grad, 1 - group["momentum"])
        ahead = kernel.grad.lerp(mean, group["momentum"])  # Nesterov's look ahead
        matrix = ahead.flatten(1)
        rows, columns = matrix.shape
        step = orthogonal(matrix) * max(1, rows / columns) ** 0.5
        kernel.add_(step.view_as(kernel), alpha=-group["lr"])

    def _move_other(self, parameter, state: dict, group: dict) -> None:
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
    """(m, n) U S V^T to about U V^T: its singular values come near 1 (0.7 to 1.2).

    Five steps X <- (a + b XX^T + c (XX^T)^2) X. All of them are polynomials of the first
    XX^T, so they are gathered in one square matrix and X is multiplied once.
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
