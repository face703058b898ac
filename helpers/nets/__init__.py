"""The networks, each a plain nn.Module, built by name."""

from helpers.nets.base import (
    ChrominanceNet,
    count_parameters,
    evaluation_mode,
    size_table,
)
from helpers.nets.colorizer import Colorizer
from helpers.nets.regressor import Regressor
from helpers.nets.unet import UNet

NETWORKS = {"regressor": Regressor, "colorizer": Colorizer, "unet": UNet}


def build(name: str, **options) -> ChrominanceNet:
    """Build a network by its name; `options` go to its class.

    Raises ValueError for an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r}: use one of {', '.join(NETWORKS)}")
    return NETWORKS[name](**options)


__all__ = [
    "NETWORKS",
    "ChrominanceNet",
    "Colorizer",
    "Regressor",
    "UNet",
    "build",
    "count_parameters",
    "evaluation_mode",
    "size_table",
]
