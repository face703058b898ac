"""Small photographs and networks on which the training engine is tested."""

import pytest
import torch
from torch.nn import functional as F

from helpers import nets
from helpers.data.augment import FreshImages
from helpers.data.course import Datasets
from helpers.data.lab import LabImages
from helpers.training import checkpoint, loop
from helpers.training.execution import set_seed
from helpers.training.optim import Recipe


def photographs(number: int = 11, seed: int = 0, side: int = 16) -> LabImages:
    """Images whose color follows their luminance."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1, 4, 4, generator=generator)
    level = F.interpolate(coarse, side)
    ab = torch.cat([60 * level, 20 - 50 * level], dim=1)
    return LabImages((100 * level).half(), ab.half())


def fresh_photographs(number: int = 11, seed: int = 0, side: int = 16) -> FreshImages:
    """The same kind as uint8 BGR."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1, 4, 4, generator=generator)
    level = F.interpolate(coarse, side)
    bgr = torch.cat([80 + 100 * level, 220 * level, 200 - 90 * level], dim=1)
    return FreshImages(bgr.to(torch.uint8))


def small_net(seed: int = 0, **options) -> nets.Colorizer:
    set_seed(seed)
    return nets.Colorizer(**{"maps": 3, "num_down": 2, **options})


def fit(
    net, train, test=None, *, validation=None, names=(), save_every=None, **options
):
    """`loop.fit` on sets given one by one; save_every: seconds between checkpoints."""
    data = Datasets(train, test, validation, names=names)
    with pytest.MonkeyPatch.context() as patch:
        if save_every is not None:
            patch.setattr(checkpoint, "SAVE_EVERY", save_every)
        return loop.fit(net, data, options.pop("recipe"), **options)


def recipe(**changes) -> Recipe:
    return Recipe(**{"num_epochs": 4, "batch_size": 4, "lr": 0.01, **changes})


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_same_weights(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


def differ(one: dict, other: dict) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def without_seconds(history: dict) -> dict:
    return {name: values for name, values in history.items() if name != "seconds"}
