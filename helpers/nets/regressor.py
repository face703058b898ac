"""The regressor, which predicts an image's mean a* and mean b* from its lightness."""

import torch
from torch import nn

from helpers.data.lab import AbScale
from helpers.nets.base import MeanNet, activation, init_to_neutral

NUM_MODULES = 7  # 128 -> 1


class Regressor(MeanNet):
    """Seven modules, each a 5x5 stride-2 convolution and a ReLU, from 128 pixels to 1.

    maps       feature maps in the hidden layers (the assignment starts with 3)
    batchnorm  BatchNorm after each hidden convolution
    head       relu, sigmoid, tanh or linear; "relu" is the assignment's seventh ReLU
    flip_tta   average the predictions for the image and its mirror image, which have the
               same mean color

    The hidden weights are initialized as in He et al. (ICCV 2015). With PyTorch's default,
    each layer would shrink the signal, leaving little of it after seven layers.

    forward: L*/100 (B, 1, 128, 128) -> (B, 2) on the scale of the head.
    Source: the assignment, "Build a simple regressor".
    """

    def __init__(
        self,
        maps: int = 3,
        batchnorm: bool = False,
        head: str = "relu",
        flip_tta: bool = True,
    ):
        super().__init__()
        self.flip_tta = flip_tta
        self.scale = AbScale(head)
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(NUM_MODULES - 1):  # 128 -> 64 -> 32 -> 16 -> 8 -> 4 -> 2
            conv = nn.Conv2d(channels, maps, 5, 2, 2, bias=not batchnorm)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers.append(conv)
            if batchnorm:
                layers.append(nn.BatchNorm2d(maps))
            layers.append(nn.ReLU())
            channels = maps
        last = nn.Conv2d(channels, 2, 5, 2, 2)  # 2 -> 1
        init_to_neutral(last, head)
        self.layers = nn.Sequential(*layers, last, activation(head))

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, H, W) to (B, 2); outputs larger than 1 x 1 are averaged."""
        return self.layers(L).mean(dim=(2, 3))
