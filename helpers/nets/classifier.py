"""A U-Net that classifies: for each pixel a probability for each bin of the ab plane."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import L_MAX
from helpers.nets.base import ChrominanceNet
from helpers.nets.unet import UNetTrunk

REACH = 110  # |a*| and |b*| of sRGB stay below
NEIGHBORS = 5  # bins that share a pixel
SMOOTHING = 5.0  # sigma of the smoothed histogram, natural units
RAREST = 1e-8  # smallest frequency of a bin, so that its logarithm is finite


class Classifier(ChrominanceNet):
    """The U-Net's trunk with a probability for each of Q bins in place of two numbers.

    base, levels, max_channels, unshuffle, up_convs  as `UNetTrunk` has them
    grid         distance of two bins on the ab plane, natural units
    num_bins     Q: the bins of the grid that the training part uses most, nearby colors
                 counted in (`fit_scale`)
    lam          the paper's lambda, the even share in the frequencies by whose inverse a
                 pixel is weighed: 1 weighs all alike, 1/2 is the paper's rebalancing
    temperature  1 decodes to the mean of the bins, near 0 to the likeliest; 0.38 is the
                 paper's annealed mean. A buffer, so that weights carry it; for another
                 one, without training anew: `net.temperature.fill_(0.38)`

    forward: L*/100 (B, 1, H, W), H and W multiples of 2^num_down -> logits
    (B, Q, H/unshuffle, W/unshuffle). An untrained network answers the training part's frequencies.
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
        )  # gray, until it is trained
        self.register_load_state_dict_post_hook(_tabulate)

    @property
    def weights(self) -> torch.Tensor:
        """What a pixel weighs in the loss by its nearest bin, (Q,); on average 1."""
        mixed = (1 - self.lam) * self.frequency + self.lam / len(self.frequency)
        return (1 / mixed) / (self.frequency / mixed).sum()

    def fit_scale(self, ab: torch.Tensor) -> None:
        """Take bins and frequencies from the training part's natural ab (N, 2, H, W).

        The frequencies are those of the nearest grid points, smoothed over the plane.
        """
        reach = int(REACH / self.grid)
        side = 2 * reach + 1
        counts = torch.zeros(side**2, dtype=torch.float64, device=ab.device)
        for chunk in ab.split(256):  # all at once in float32 would fill the memory
            steps = (self._small(chunk) / self.grid).round().long() + reach
            a, b = steps.clamp(0, side - 1).unbind(1)
            counts += torch.bincount((a * side + b).flatten(), minlength=side**2)
        axis = torch.arange(-reach, reach + 1, device=ab.device) * self.grid
        blur = _bell((axis[:, None] - axis).double().square(), SMOOTHING)
        smooth = (blur @ (counts / counts.sum()).view(side, side) @ blur).flatten()
        ranked = smooth.argsort(descending=True, stable=True)
        chosen = ranked[: len(self.centers)].sort().values
        share = (smooth[chosen] / smooth[chosen].sum()).clamp_min(RAREST)
        self.centers.copy_(torch.cartesian_prod(axis, axis)[chosen])
        self.frequency.copy_(share / share.sum())
        _tabulate(self)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """L*/100 (B, 1, H, W) in 0..1 to logits (B, Q, H/unshuffle, W/unshuffle)."""
        return self.last(self.trunk(L)) + self.frequency.log().view(-1, 1, 1)

    def target(self, ab: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The soft encoding of natural ab (B, 2, H, W) at the size of the logits.

        Returns the five bins nearest to the whole (a, b), the nearest first,
        (B, 5, H/unshuffle, W/unshuffle) int64, and their shares exp(-d^2 / (2 sigma^2)) of the exact
        color, normalized, of the same shape; sigma is half the grid.
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
        """The cross-entropy of the soft encoding, weighed by the nearest bin."""
        bins, shares = self.target(minibatch.ab)
        log_p = y.float().log_softmax(dim=1).gather(1, bins)
        return -(self.weights[bins[:, 0]] * (shares * log_p).sum(dim=1)).mean()

    def reported(self, loss: float) -> float:
        """A loss as it is reported: cross-entropy in nats a pixel, no squared error."""
        return loss

    def decode(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Logits (B, Q, h, w) to natural ab (B, 2, h, w), float32: the annealed mean."""
        p = (logits.float() / temperature).softmax(dim=1)
        return F.conv2d(p, self.centers.t()[:, :, None, None])

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) in 0..100 to natural ab, float32, enlarged bilinearly."""
        ab = self.decode(self(L.float() / L_MAX), self.temperature)
        return F.interpolate(ab, scale_factor=self.upscale, mode="bilinear")

    def extra_repr(self) -> str:
        """Show what tells two classifiers apart where the network is printed."""
        return f"grid={self.grid}, lam={self.lam}"

    def _small(self, ab: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(ab.float(), self.upscale)


def _tabulate(net: Classifier, *_) -> None:
    """Note the nearest bins of each whole (a, b): to look up is faster than to search."""
    axis = torch.arange(
        -REACH, REACH + 1, device=net.centers.device, dtype=torch.float32
    )
    distance = torch.cdist(torch.cartesian_prod(axis, axis), net.centers)
    net.nearest = distance.topk(NEIGHBORS, largest=False).indices  # (221^2, 5)


def _bell(squares: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.exp(-squares / (2 * sigma**2))
