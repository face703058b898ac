"""Local and global features joined (report 004), after Iizuka, Simo-Serra and Ishikawa.

*Let there be Color!*, SIGGRAPH 2016, table 1: all convolutions 3x3 with BatchNorm and ReLU.
"""

import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.lab import AbScale
from helpers.nets.base import ChrominanceNet

ALPHA = 1 / 300  # the paper's weight of the classification


class GlobalLocal(ChrominanceNet):
    """The paper's colorizer: the basic model, or the full one with global features.

    size         input pixels a side; pictures of another size are resized first
    global_net   "none": the basic model; "paper": four convolutions, two of stride 2;
                 "small": the one convolution to 32 maps that report 004 had room for
    num_classes  classes of the branch that names the sitter; 0: no such branch
    width        share of the paper's feature maps

    forward: L*/100 (B, 1, size, size) -> ab at half the size, (B, 2, size/2, size/2), in
    0..1; with the branch the pair (ab, logits (B, num_classes)). The loss is taken at half
    size, as in the paper; `predict` enlarges bilinearly to the picture's size.
    """

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
        self.low = nn.Sequential(
            _conv(1, m64, 2),
            _conv(m64, m128),
            _conv(m128, m128, 2),
            _conv(m128, m256),
            _conv(m256, m256, 2),
            _conv(m256, m512),
        )  # size -> size / 8
        self.middle = nn.Sequential(_conv(m512, m512), _conv(m512, m256))
        if global_net == "paper":
            self.far = nn.Sequential(
                _conv(m512, m512, 2),
                _conv(m512, m512),
                _conv(m512, m512, 2),
                _conv(m512, m512),
                nn.Flatten(),
            )  # size / 8 -> size / 32
            seen = m512 * (size // 32) ** 2
        elif global_net == "small":
            self.far = nn.Sequential(_conv(m512, maps(32)), nn.Flatten())
            seen = maps(32) * (size // 8) ** 2
        if global_net != "none":
            self.think = nn.Sequential(_full(seen, maps(1024)), _full(maps(1024), m512))
            self.tell = _full(m512, m256)
            self.fusion = nn.Conv2d(2 * m256, m256, 1)
        self.name = None
        if num_classes:
            if global_net == "none":
                raise ValueError("the branch for classes needs global features")
            self.name = nn.Sequential(_full(m512, m256), nn.Linear(m256, num_classes))
        self.color = nn.Sequential(
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
        """L*/100 (B, 1, size, size) in 0..1 to ab at half size, or (ab, logits)."""
        low = self.low(L)
        x = self.middle(low)
        if self.global_net == "none":
            return self.color(x)
        thought = self.think(self.far(low))  # (B, 512)
        told = self.tell(thought)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = F.relu(self.fusion(torch.cat([told, x], dim=1)))
        ab = self.color(x)
        return ab if self.name is None else (ab, self.name(thought))

    def inputs(self, minibatch) -> torch.Tensor:
        """L*/100 (B, 1, size, size), resized bilinearly."""
        return _resize(super().inputs(minibatch), self.size)

    def loss(self, y, minibatch) -> torch.Tensor:
        """||ab - ab_hat||^2 + ALPHA * cross-entropy, divided by the values of a picture.

        The second term only with the branch and where the sitters are known.
        """
        ab, logits = (y, None) if self.name is None else y
        truth = _resize(self.target(minibatch.ab), self.size // 2)
        loss = F.mse_loss(ab.float(), truth)
        if logits is None or minibatch.group is None:
            return loss
        entropy = F.cross_entropy(logits.float(), minibatch.group)
        return loss + ALPHA * entropy / truth[0].numel()

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        """Natural L* (B, 1, H, W) in 0..100 to natural ab (B, 2, H, W), float32."""
        y = self(_resize(L.float() / 100, self.size))
        ab = self.scale.decode(y if self.name is None else y[0])
        return F.interpolate(ab, L.shape[2:], mode="bilinear", align_corners=False)


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _full(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


def _resize(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Planes (B, C, H, W) at size x size: areas averaged down, bilinear up."""
    height, width = planes.shape[2:]
    if (height, width) == (size, size):
        return planes
    if min(height, width) > size:
        return F.interpolate(planes, (size, size), mode="area")
    return F.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
