"""The profiles: one row of numbers each, for how long and how large everything trains."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from helpers.files import InputError


@dataclass(frozen=True)
class Profile:
    """One row of numbers: how long each part of the course trains.

    max_images  training photographs at most; None for all
    copies     size of the augmented training set, in copies of the training part
    regressor, explore, batchnorm, colorizer, extra  epochs in notebooks 04 to 08
    best       epochs of the U-Nets of notebook 08 and of `best/`
    final      epochs of the network that ships
    report_000, report_001, report_003, report_004  epochs of the earlier reports' networks,
               at most: `full` leaves each its own number
    study_images, study_size  training pictures of notebook 09 at most, and pixels a side
    wide_maps  feature maps of the large colorizers, from the first layer down
    unet_base  feature maps of the U-Net's first level
    best_base  the same of the best network
    strided_maps  feature maps of report 001's architecture 1
    global_size, global_width  pixels a side, and share of the paper's feature maps, in
               report 004's networks
    """

    max_images: int | None
    copies: int
    regressor: int
    explore: int
    batchnorm: int
    colorizer: int
    extra: int
    best: int
    final: int
    report_000: int
    report_001: int
    report_003: int
    report_004: int
    study_images: int
    study_size: int
    wide_maps: tuple[int, ...]
    unet_base: int
    best_base: int
    strided_maps: tuple[int, ...]
    global_size: int
    global_width: float

    @property
    def wide_up_maps(self) -> tuple[int, ...]:
        """Report 000's way up with many maps: 512, 256, 64 after 64 to 512."""
        first, _, third, last = self.wide_maps
        return last, third, first


PROFILES = {
    "quick": Profile(
        max_images=300, copies=2, regressor=7, explore=2, batchnorm=2, colorizer=3,
        extra=2, best=3, final=3, report_000=1, report_001=2, report_003=3, report_004=4,
        study_images=200, study_size=40,
        wide_maps=(8, 16, 32, 64), unet_base=8, best_base=8,
        strided_maps=(4, 8, 16, 32, 32, 64), global_size=64, global_width=0.125,
    ),
    "standard": Profile(
        max_images=None, copies=10, regressor=32, explore=2, batchnorm=3, colorizer=6,
        extra=2, best=6, final=24, report_000=1, report_001=4, report_003=8, report_004=4,
        study_images=750, study_size=80,
        wide_maps=(32, 64, 128, 256), unet_base=16, best_base=32,
        strided_maps=(16, 32, 64, 128, 128, 256), global_size=128, global_width=0.25,
    ),
    "full": Profile(
        max_images=None, copies=10, regressor=100, explore=100, batchnorm=20,
        colorizer=200, extra=100, best=200, final=24, report_000=1000, report_001=400,
        report_003=100, report_004=100, study_images=10_000, study_size=80,
        wide_maps=(64, 128, 256, 512), unet_base=32, best_base=32,
        strided_maps=(32, 64, 128, 256, 256, 512), global_size=224, global_width=1.0,
    ),
}  # fmt: skip


def get_profile(name: str) -> Profile:
    """The profile of this name; raises InputError for another."""
    return PROFILES[known(name, PROFILES, "profile")]


def known(name: str, names: Iterable[str], what: str) -> str:
    """The name, when it is one of `names`; else raises InputError with the nearest."""
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}"
    raise InputError(f"{what} {name!r}: unknown; {hint}")
