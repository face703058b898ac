"""Local and global features combined (report 004), after Iizuka, Simo-Serra and Ishikawa.

*Let there be Color!*, SIGGRAPH 2016, Table 1: 3x3 convolutions with BatchNorm and ReLU.
"""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import L_MAX, AbScale
from helpers.nets.base import ChrominanceNet

ALPHA = 1 / 300  # the paper's weight for the classification loss


class GlobalLocal(ChrominanceNet):
    """The paper's colorizer: the basic model, or the full one with global features.

    size         side of the input in pixels; images of any other size are resized first
    global_net   "none": the basic model; "paper": four convolutions, two with stride 2;
                 "small": one convolution to 32 maps, as in report 004, to save memory
    num_classes  number of sitters for the branch that classifies them; 0 omits the branch
    width        factor for the paper's numbers of feature maps

    forward: L*/100 (B, 1, size, size) -> ab at half the size, (B, 2, size/2, size/2), in
    0..1; with the branch, the pair (ab, logits (B, num_classes)). The loss is computed at
    half size, as in the paper; `predict` upsamples bilinearly to the size of the image.
    """

    upscale = 2

    def __init__(
        self,
        size: int = 128,
        global_net: str = "paper",
        num_classes: int = 0,
        width: float = 1.0,
    ):
        super().__init__()
        if global_net not in ("none", "paper", "small"):
            raise ValueError(f"global_net {global_net!r}: use none, paper or small")
        if size % 32:
            raise ValueError(f"size {size}: use a multiple of 32")
        self.size, self.global_net = size, global_net
        self.scale = AbScale("sigmoid")

        def maps(number: int) -> int:
            return max(2, round(number * width))

        m64, m128, m256, m512 = map(maps, (64, 128, 256, 512))
        self.low = nn.Sequential(  # size -> size / 8
            *(_conv(1, m64, 2), _conv(m64, m128)),
            *(_conv(m128, m128, 2), _conv(m128, m256)),
            *(_conv(m256, m256, 2), _conv(m256, m512)),
        )
        self.mid = nn.Sequential(_conv(m512, m512), _conv(m512, m256))
        if global_net == "paper":
            self.global_conv = nn.Sequential(  # size / 8 -> size / 32
                *(_conv(m512, m512, 2), _conv(m512, m512)),
                *(_conv(m512, m512, 2), _conv(m512, m512)),
                nn.Flatten(),
            )
            seen = m512 * (size // 32) ** 2
        elif global_net == "small":
            self.global_conv = nn.Sequential(_conv(m512, maps(32)), nn.Flatten())
            seen = maps(32) * (size // 8) ** 2
        if global_net != "none":
            self.bottleneck = nn.Sequential(
                _full(seen, maps(1024)), _full(maps(1024), m512)
            )
            self.global_features = _full(m512, m256)
            self.fusion = nn.Conv2d(2 * m256, m256, 1)
        self.classifier = None
        if num_classes:
            if global_net == "none":
                raise ValueError("num_classes needs global features")
            self.classifier = nn.Sequential(
                _full(m512, m256), nn.Linear(m256, num_classes)
            )
        self.colorization = nn.Sequential(
            _conv(m256, m128),
            nn.Upsample(scale_factor=2),
            _conv(m128, m64),
            _conv(m64, m64),
            nn.Upsample(scale_factor=2),
            _conv(m64, maps(32)),
            nn.Conv2d(maps(32), 2, 3, padding=1),
            nn.Sigmoid(),
        )  # size / 8 -> size / 2

    def forward(self, L: torch.Tensor):
        """Map L*/100 (B, 1, size, size) in 0..1 to ab at half size, or (ab, logits)."""
        low = self.low(L)
        x = self.mid(low)
        if self.global_net == "none":
            return self.colorization(x)
        bottleneck = self.bottleneck(self.global_conv(low))  # (B, 512)
        y = self.global_features(bottleneck)[:, :, None, None]
        x = torch.cat([y.expand(-1, -1, *x.shape[2:]), x], dim=1)
        ab = self.colorization(F.relu(self.fusion(x)))
        return ab if self.classifier is None else (ab, self.classifier(bottleneck))

    def inputs(self, minibatch) -> torch.Tensor:
        """Return L*/100 (B, 1, size, size), resized if necessary."""
        return _resize(super().inputs(minibatch), self.size)

    def loss(self, y, minibatch) -> torch.Tensor:
        """Return ||ab - ab_hat||^2 + ALPHA * cross-entropy, per ab value of an image.

        The second term is used only with the classifier and if the sitters are known.
        """
        ab, logits = (y, None) if self.classifier is None else y
        truth = _resize(self.target(minibatch.ab), self.size // 2)
        loss = F.mse_loss(ab.float(), truth)
        if logits is None or minibatch.group is None:
            return loss
        entropy = F.cross_entropy(logits.float(), minibatch.group)
        return loss + ALPHA * entropy / truth[0].numel()

    def predict_once(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab (B, 2, H, W) from natural L* of any size, in one pass."""
        return F.interpolate(self._map_once(L), L.shape[2:], mode="bilinear")

    def predict_map(self, L: torch.Tensor) -> torch.Tensor:
        """Predict natural ab at the trained size, (B, 2, size/2, size/2)."""
        return self._average(self._map_once, L)

    def _map_once(self, L: torch.Tensor) -> torch.Tensor:
        y = self(_resize(L.float() / L_MAX, self.size))
        return self.scale.decode(y if self.classifier is None else y[0])


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _full(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


def _resize(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Resize planes (B, C, H, W) to size x size: area averaging down, bilinear up."""
    height, width = planes.shape[2:]
    if (height, width) == (size, size):
        return planes
    mode = "area" if min(height, width) > size else "bilinear"
    return F.interpolate(planes, (size, size), mode=mode)
