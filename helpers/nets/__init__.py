"""The networks, each a plain nn.Module, built by name."""

from helpers.nets.base import (
    ChrominanceNet,
    RgbNet,
    check_output,
    count_gflop,
    count_parameters,
    evaluation_mode,
)
from helpers.nets.classifier import Classifier
from helpers.nets.colorizer import Colorizer
from helpers.nets.hinted import HintedUNet
from helpers.nets.mean_head import MeanHeadUNet
from helpers.nets.regressor import Regressor
from helpers.nets.report000 import GuidedColorizer, PooledColorizer, PooledRegressor
from helpers.nets.report001 import StridedColorizer, StridedRegressor
from helpers.nets.report003 import FlatUNet, Stack, WeirdNet
from helpers.nets.report004 import GlobalLocal
from helpers.nets.unet import UNet, UNetMean

NETWORKS = {
    "regressor": Regressor,
    "colorizer": Colorizer,
    "unet": UNet,
    "unet_mean": UNetMean,
    "mean_head_unet": MeanHeadUNet,
    "hinted_unet": HintedUNet,
    "classifier": Classifier,
    "pooled_regressor": PooledRegressor,
    "pooled_colorizer": PooledColorizer,
    "guided_colorizer": GuidedColorizer,
    "strided_regressor": StridedRegressor,
    "strided_colorizer": StridedColorizer,
    "stack": Stack,
    "flat_unet": FlatUNet,
    "weird_net": WeirdNet,
    "global_local": GlobalLocal,
}


def build(name: str, **options) -> ChrominanceNet | RgbNet:
    """Build a network by name; `options` are passed to its class.

    Raises ValueError for an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r}: use one of {', '.join(NETWORKS)}")
    return NETWORKS[name](**options)
