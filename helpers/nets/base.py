"""What the networks share: from L* in, chrominance out, and the head that ends them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from helpers.data.lab import L_MAX, AbScale, LabImages

ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


class ChrominanceNet(nn.Module):
    """A network from luminance to chrominance.

    A subclass sets `self.scale` (an AbScale) and defines `forward`, from L*/100,
    (B, 1, H, W) float32 in 0..1, to the head's numbers.
    """

    task = "map"
    size = 128  # pixels a side of the pictures it is made for
    upscale = 1  # how many times it enlarges its map, to the size of its input
    scale: AbScale

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """What of the natural ab (B, 2, H, W) this network predicts."""
        return ab

    def target(self, ab: torch.Tensor) -> torch.Tensor:
        """The numbers the head shall put out for natural ab (B, 2, H, W)."""
        return self.scale.encode(self.true_ab(ab))

    def fit_scale(self, ab: torch.Tensor) -> None:
        """Take the head's scale from the training part's natural ab (N, 2, H, W)."""
        self.scale.fit(self.true_ab(ab))

    def inputs(self, minibatch: LabImages) -> torch.Tensor:
        """What `forward` wants of a minibatch."""
        return minibatch.L.float() / L_MAX

    def loss(self, y: torch.Tensor, minibatch: LabImages) -> torch.Tensor:
        """The mean squared error of what `forward` put out, in the head's numbers."""
        return F.mse_loss(y.float(), self.target(minibatch.ab))

    def reported(self, loss: float) -> float:
        """A loss as it is reported: on scale S."""
        return self.scale.loss_on_scale_s(loss)

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) in 0..100 to natural ab, float32."""
        return self.scale.decode(self(L.float() / L_MAX))


class MeanNet(ChrominanceNet):
    """A network that predicts the mean a* and mean b* of an image."""

    task = "mean"

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """The mean of a* and of b* over all pixels, (B, 2)."""
        return ab.mean(dim=(2, 3), dtype=torch.float32)


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Evaluate `net` without gradients; each layer is left in the mode it was found in."""
    was_training = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in was_training.items():
            module.training = mode


def activation(head: str) -> nn.Module:
    """The last layer that a head names; raises ValueError for an unknown name."""
    if head not in ACTIVATIONS:
        raise ValueError(f"head {head!r}: use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[head]()


def init_to_neutral(last_layer: nn.Module, head: str) -> None:
    """Let an untrained network put out neutral gray.

    A ReLU head that starts below zero has no gradient and never learns.
    """
    nn.init.constant_(last_layer.bias, 128 / 255 if head == "relu" else 0.0)


def count_parameters(net: nn.Module) -> int:
    """The number of trained numbers."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_gflop(net: nn.Module) -> float:
    """10^9 multiplications and additions for one picture of the size it is made for."""
    counter = FlopCounterMode(display=False)
    device = next(net.parameters()).device
    with evaluation_mode(net), counter:
        net(torch.zeros(1, 1, net.size, net.size, device=device))
    return counter.get_total_flops() / 1e9


def size_table(net: nn.Module, size: int = 0) -> str:
    """Each layer's output size and parameters, measured by a forward pass.

    `size` is the height and width of the input in pixels; 0: the size that the network is
    made for. The network is left as it was.
    """
    size = size or net.size
    rows, hooks = [], []

    def note(module, _, output):
        name, shape = type(module).__name__, " x ".join(map(str, output.shape[1:]))
        rows.append(f"{name:<18}{shape:>16}{count_parameters(module):>12,}")

    layers = [m for m in net.modules() if not list(m.children())]
    for layer in layers:
        if not isinstance(layer, AbScale):
            hooks.append(layer.register_forward_hook(note))
    device = next(net.parameters()).device
    try:
        with evaluation_mode(net):
            net(torch.zeros(1, 1, size, size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    head = f"{'layer':<18}{'output':>16}{'parameters':>12}"
    seen = "input gray" if net.task == "rgb" else "input L*/100"
    first = f"{seen:<18}{f'1 x {size} x {size}':>16}{0:>12}"
    last = f"{'total':<34}{count_parameters(net):>12,}"
    return "\n".join([head, first, *rows, last])
