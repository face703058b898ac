"""A U-Net that predicts, for each pixel, a probability distribution over ab bins."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import L_MAX
from helpers.nets.base import ChrominanceNet
from helpers.nets.unet import UNetTrunk

REACH = 110  # |a*| and |b*| are smaller in sRGB
NEIGHBORS = 5  # bins over which a pixel's label is spread
SMOOTHING = 5.0  # sigma for smoothing the histogram, natural units
MIN_FREQUENCY = 1e-8  # lower limit for a bin, so its logarithm is finite


class Classifier(ChrominanceNet):
    """The U-Net's trunk, with a probability for each of Q bins instead of a* and b*.

    base, levels, max_channels, unshuffle, up_convs  see `UNetTrunk`
    grid         distance between neighboring bins on the ab plane, natural units
    num_bins     Q: number of bins, those that are most frequent in the training set after
                 smoothing (`fit_scale`)
    lam          the paper's lambda, the weight of the uniform distribution when it is mixed
                 with the bin frequencies; pixels are weighted by the mixture's inverse.
                 1 weights all equally, 1/2 is the paper's rebalancing
    temperature  1 decodes to the mean of the bins, near 0 to the most probable; 0.38 is the
                 paper's annealed mean. It is a buffer, saved with the weights; to change it
                 without training, use `net.temperature.fill_(0.38)`

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^num_down -> logits
    (B, Q, H/unshuffle, W/unshuffle). An untrained network predicts the bin frequencies
    of the training set.
    Source: Zhang, Isola and Efros, ECCV 2016, with a finer grid (theirs is 10).
    """

    def __init__(
        self,
        base: int = 16,
        levels: int = 4,
        max_channels: int = 256,
        unshuffle: int = 2,
        up_convs: int = 2,
        grid: float = 5.0,
        num_bins: int = 160,
        lam: float = 1.0,
        temperature: float = 1.0,
    ):
        super().__init__()
        on_grid = (2 * int(REACH / grid) + 1) ** 2
        if not NEIGHBORS <= num_bins <= on_grid:
            raise ValueError(f"num_bins {num_bins}: use {NEIGHBORS} to {on_grid}")
        if not (0 <= lam <= 1 and temperature > 0):
            raise ValueError(f"lam {lam}, temperature {temperature}: use 0..1 and > 0")
        self.grid, self.lam, self.upscale = grid, lam, unshuffle
        self.num_down = levels - 1 + unshuffle.bit_length() - 1
        self.trunk = UNetTrunk(base, levels, max_channels, unshuffle, up_convs)
        self.last = nn.Conv2d(base, num_bins, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("centers", torch.zeros(num_bins, 2))  # natural ab
        self.register_buffer("frequency", torch.full((num_bins,), 1 / num_bins))
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.register_buffer("nearest", torch.empty(0), persistent=False)
        self.fit_scale(
            torch.zeros(1, 2, unshuffle, unshuffle)
        )  # all gray until trained
        self.register_load_state_dict_post_hook(_tabulate)

    @property
    def weights(self) -> torch.Tensor:
        """The weight of a pixel in the loss, by its nearest bin, (Q,); 1 on average."""
        mixed = (1 - self.lam) * self.frequency + self.lam / len(self.frequency)
        return (1 / mixed) / (self.frequency / mixed).sum()

    def fit_scale(self, ab: torch.Tensor) -> None:
        """Choose the bins and frequencies from the training set's natural ab (N, 2, H, W).

        Pixels are counted at their nearest grid points; the histogram is then smoothed.
        """
        reach = int(REACH / self.grid)
        side = 2 * reach + 1
        counts = torch.zeros(side**2, dtype=torch.float64, device=ab.device)
        for chunk in ab.split(256):  # all at once in float32 would need too much memory
            steps = (self._small(chunk) / self.grid).round().long() + reach
            a, b = steps.clamp(0, side - 1).unbind(1)
            counts += torch.bincount((a * side + b).flatten(), minlength=side**2)
        axis = torch.arange(-reach, reach + 1, device=ab.device) * self.grid
        blur = _bell((axis[:, None] - axis).double().square(), SMOOTHING)
        smooth = (blur @ (counts / counts.sum()).view(side, side) @ blur).flatten()
        ranked = smooth.argsort(descending=True, stable=True)
        chosen = ranked[: len(self.centers)].sort().values
        share = (smooth[chosen] / smooth[chosen].sum()).clamp_min(MIN_FREQUENCY)
        self.centers.copy_(torch.cartesian_prod(axis, axis)[chosen])
        self.frequency.copy_(share / share.sum())
        _tabulate(self)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) in 0..1 to logits (B, Q, H/unshuffle, W/unshuffle)."""
        return self.last(self.trunk(L)) + self.frequency.log().view(-1, 1, 1)

    def target(self, ab: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the soft encoding of natural ab (B, 2, H, W) at the size of the logits.

        It consists of the five bins nearest to the rounded (a, b), nearest first,
        (B, 5, H/unshuffle, W/unshuffle) int64, and their weights in the same shape:
        exp(-d^2 / (2 sigma^2)), normalized; d is measured from the exact color, and sigma
        is half of `grid`.
        """
        small = self._small(self.true_ab(ab))
        a, b = (small.round().long().clamp(-REACH, REACH) + REACH).unbind(1)
        bins = self.nearest[a * (2 * REACH + 1) + b]  # (B, H/unshuffle, W/unshuffle, 5)
        distance = (
            self.centers[bins] - small.permute(0, 2, 3, 1).unsqueeze(3)
        ).square()
        shares = (-distance.sum(dim=4) / (2 * (self.grid / 2) ** 2)).softmax(dim=3)
        return bins.permute(0, 3, 1, 2), shares.permute(0, 3, 1, 2)

    def loss(self, y: torch.Tensor, minibatch) -> torch.Tensor:
        """Return the cross-entropy with the soft encoding, weighted by the nearest bin."""
        bins, shares = self.target(minibatch.ab)
        log_p = y.float().log_softmax(dim=1).gather(1, bins)
        return -(self.weights[bins[:, 0]] * (shares * log_p).sum(dim=1)).mean()

    def reported(self, loss: float) -> float:
        """Return the loss unchanged: cross-entropy in nats per pixel, not squared error."""
        return loss

    def decode(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Convert logits (B, Q, h, w) to natural ab (B, 2, h, w): the annealed mean."""
        p = (logits.float() / temperature).softmax(dim=1)
        return F.conv2d(p, self.centers.t()[:, :, None, None])

    def predict_once(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab (B, 2, H, W) in one pass, upsampled bilinearly."""
        ab = self._map_once(L)
        return F.interpolate(ab, scale_factor=self.upscale, mode="bilinear")

    def predict_map(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab at the trained size, (B, 2, H/unshuffle, W/unshuffle)."""
        return self._average(self._map_once, L)

    def _map_once(self, L: torch.Tensor) -> torch.Tensor:
        return self.decode(self(L.float() / L_MAX), self.temperature)

    def extra_repr(self) -> str:
        """Return the options that distinguish classifiers, for printing a network."""
        return f"grid={self.grid}, lam={self.lam}"

    def _small(self, ab: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(ab.float(), self.upscale)


def _tabulate(net: Classifier, *_) -> None:
    """Tabulate the nearest bins for each integer (a, b); a lookup is faster than search."""
    axis = torch.arange(
        -REACH, REACH + 1, device=net.centers.device, dtype=torch.float32
    )
    distance = torch.cdist(torch.cartesian_prod(axis, axis), net.centers)
    net.nearest = distance.topk(NEIGHBORS, largest=False).indices  # (221^2, 5)


def _bell(squares: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.exp(-squares / (2 * sigma**2))
