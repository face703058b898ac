"""The three profiles: how much data a run uses, and how long it trains."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from helpers.files import InputError


@dataclass(frozen=True)
class PerProfile:
    """A network option that depends on the profile."""

    quick: object
    standard: object
    full: object


@dataclass(frozen=True)
class Profile:
    """How much data a run uses, and how long notebooks without an experiment train.

    max_images    maximum size of the training set; None for all images
    copies        size of the augmented training set, in copies of the training set
    study_images, study_size  maximum number of training images in the ablation study, and
                  their side length in pixels
    batchnorm_epochs, steps_epochs  epochs in notebooks 06 and 11
    """

    name: str
    max_images: int | None
    copies: int
    study_images: int
    study_size: int
    batchnorm_epochs: int
    steps_epochs: int


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("quick", 300, 2, 200, 40, batchnorm_epochs=10, steps_epochs=4),
        Profile("standard", None, 10, 750, 80, batchnorm_epochs=3, steps_epochs=20),
        Profile("full", None, 10, 10_000, 80, batchnorm_epochs=20, steps_epochs=1000),
    )
}


def get_profile(name: str) -> Profile:
    """Return the profile of this name; raise InputError for an unknown name."""
    return PROFILES[known(name, PROFILES, "profile")]


def known(name: str, names: Iterable[str], what: str) -> str:
    """Return the name if it is in `names`; else raise InputError with the closest match."""
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}"
    raise InputError(f"{what} {name!r}: unknown; {hint}")
