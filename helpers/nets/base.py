"""Base classes for all networks, shared layers, and measures of model size."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from helpers.data.lab import L_MAX, AbScale, LabImages
from helpers.data.pairs import GrayRgb, to_signed

ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


class Network(nn.Module):
    """Base class for all networks.

    task        what it predicts; see `evaluation.task`
    input_name  the input of `forward`, in words
    size        side in pixels of the images it is designed for
    num_down    H and W must be multiples of 2^num_down
    upscale     factor by which its own map is upsampled to the size of its input
    flip_tta    average the predictions for the image and its mirror image
    fine_tuned_from  SHA-256 of the weights from which training starts, or "": from
                scratch; fine-tuning keeps their scale
    """

    task = "map"
    input_name = "L*/100"
    size = 128
    num_down = 0
    upscale = 1
    flip_tta = False
    fine_tuned_from = ""

    @property
    def passes(self) -> int:
        """The number of forward passes that `predict` needs."""
        return 2 if self.flip_tta else 1

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        """Predict from natural L* (B, 1, H, W) in 0..100, or from gray in 0..255.

        Returns float32: natural ab (B, 2, H, W), its means (B, 2), or RGB (B, 3, H, W) in
        about -1..1. With `flip_tta`, the predictions for the image and its mirror image
        are averaged.
        """
        return self._average(self.predict_once, inputs)

    def predict_once(self, inputs: torch.Tensor) -> torch.Tensor:
        """Predict with one forward pass; see `predict`."""
        raise NotImplementedError

    def _average(self, predict: Callable, inputs: torch.Tensor) -> torch.Tensor:
        y = predict(inputs)
        if not self.flip_tta:
            return y
        flipped = predict(inputs.flip(3))
        return (y + (flipped.flip(3) if y.ndim == 4 else flipped)) / 2


class ChrominanceNet(Network):
    """A network that predicts a chrominance map from lightness.

    A subclass sets `self.scale` (an AbScale) and defines `forward`, which maps L*/100
    (B, 1, H, W) float32 in 0..1 to values on the scale of its head.
    """

    scale: AbScale

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """Return the labels for natural ab (B, 2, H, W): the map itself."""
        return ab

    def target(self, ab: torch.Tensor) -> torch.Tensor:
        """Return the labels for natural ab (B, 2, H, W) on the head's scale."""
        return self.scale.encode(self.true_ab(ab))

    def fit_scale(self, ab: torch.Tensor) -> None:
        """Fit the head's scale to the training set's natural ab (N, 2, H, W)."""
        self.scale.fit(self.true_ab(ab))

    def inputs(self, minibatch: LabImages) -> torch.Tensor:
        """Return the input to `forward` for a minibatch."""
        return minibatch.L.to(torch.float32, copy=True).div_(L_MAX)

    def loss(self, y: torch.Tensor, minibatch: LabImages) -> torch.Tensor:
        """Return the mean squared error of `forward`'s output, on the head's scale."""
        return F.mse_loss(y.float(), self.target(minibatch.ab))

    def reported(self, loss: float) -> float:
        """Convert a loss to scale S, on which it is reported."""
        return self.scale.loss_on_scale_s(loss)

    def predict_once(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab from natural L* with one forward pass; see `predict`."""
        return self.scale.decode(self(L.float() / L_MAX))

    def predict_map(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab at the network's own resolution: the mean of each cell.

        L (B, 1, H, W) in 0..100; returns (B, 2, H/upscale, W/upscale) float32. If
        `forward` upsamples its map bilinearly, that map is trained as the coefficients of
        the interpolation; the mean of each upsampled cell is closer to the truth.
        """
        return F.avg_pool2d(self.predict(L), self.upscale)


class MeanNet(ChrominanceNet):
    """A network that predicts an image's mean a* and mean b*."""

    task = "mean"

    def true_ab(self, ab: torch.Tensor) -> torch.Tensor:
        """Return the mean of a* and of b* over all pixels, (B, 2)."""
        return ab.flatten(2).mean(2, dtype=torch.float32)


class RgbNet(Network):
    """A network that predicts RGB from gray, for the ablation study.

    forward: gray (B, 1, H, W) in -1..1 -> RGB (B, 3, H, W).
    """

    task = "rgb"
    input_name = "gray"
    size = 80

    def fit_scale(self, rgb: torch.Tensor) -> None:
        """Do nothing: the scale is fixed."""

    def inputs(self, minibatch: GrayRgb) -> torch.Tensor:
        """Return gray (B, 1, H, W) in -1..1."""
        return to_signed(minibatch.gray)

    def loss(self, y: torch.Tensor, minibatch: GrayRgb) -> torch.Tensor:
        """Return the mean squared error of R, G, B in -1..1."""
        return F.mse_loss(y.float(), to_signed(minibatch.rgb))

    def reported(self, loss: float) -> float:
        """Return the loss unchanged."""
        return loss

    def predict_once(self, gray: torch.Tensor) -> torch.Tensor:
        """Predict RGB from gray (B, 1, H, W) uint8 with one forward pass."""
        return self(to_signed(gray)).float()


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Put `net` in evaluation mode, without gradients; then restore each layer's mode."""
    was_training = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in was_training.items():
            module.training = mode


def activation(head: str) -> nn.Module:
    """Return the activation layer of a head; raise ValueError for an unknown name."""
    if head not in ACTIVATIONS:
        raise ValueError(f"head {head!r}: use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[head]()


def init_to_neutral(last_layer: nn.Module, head: str) -> None:
    """Set the bias so that an untrained network predicts neutral gray.

    A ReLU head that starts below zero has no gradient and never learns.
    """
    nn.init.constant_(last_layer.bias, 128 / 255 if head == "relu" else 0.0)


def norm_and_relu(maps: int, slope: float = 0.0) -> list[nn.Module]:
    """Return BatchNorm, followed by ReLU or, if `slope` is not 0, by LeakyReLU."""
    return [nn.BatchNorm2d(maps), nn.LeakyReLU(slope) if slope else nn.ReLU()]


def transposed_decoder(
    channels: int, maps: Sequence[int], head: str, slope: float = 0.0
) -> list[nn.Module]:
    """Return 4x4 stride-2 transposed convolutions, to each of `maps` and then to a*, b*."""
    layers: list[nn.Module] = []
    for width in maps:
        convolution = nn.ConvTranspose2d(channels, width, 4, 2, 1)
        layers += [convolution, *norm_and_relu(width, slope)]
        channels = width
    return [*layers, nn.ConvTranspose2d(channels, 2, 4, 2, 1), activation(head)]


def count_parameters(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_gflop(net: Network) -> float:
    """Return the multiplications and additions of `predict` for one image, in 10^9.

    The image has the size the network is designed for. With `flip_tta`, both passes are
    counted.
    """
    counter = FlopCounterMode(display=False)
    device = next(net.parameters()).device
    with evaluation_mode(net), counter:
        net(torch.zeros(1, 1, net.size, net.size, device=device))
    return net.passes * counter.get_total_flops() / 1e9


def check_output(net: Network) -> None:
    """Raise ValueError if a prediction has another height or width than its input.

    An impossible layer raises the error of the operation. Nothing is computed, and the
    network is useless afterwards: it moves to torch's device "meta", which has sizes only.
    """
    inputs = torch.zeros(1, 1, net.size, net.size, device="meta")
    with evaluation_mode(net):
        y = net.to("meta").predict(inputs)
    if y.ndim == 4 and y.shape[2:] != inputs.shape[2:]:
        raise ValueError(f"predicts {tuple(y.shape[2:])} from {net.size} x {net.size}")
