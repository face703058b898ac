"""The course's data: images, split, augmented and converted to Lab."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from helpers.data.augment import FreshImages, augment_copies
from helpers.data.faces import FaceSet, Split
from helpers.data.lab import LabImages, to_lab_images


@dataclass(frozen=True)
class Datasets:
    """The sets of images for one training run.

    train       what the network is trained on: LabImages, FreshImages or GrayRgb
    test        evaluated after each epoch; never used to choose anything
    validation  used to choose the epoch whose weights are kept
    sample      training images that are evaluated in the same way as the test set
    names       file names of the training images, for messages
    """

    train: object
    test: object = None
    validation: object = None
    sample: object = None
    names: Sequence[str] = ()

    def evaluated(self) -> dict:
        """Return the sets to evaluate after each epoch, by name."""
        names = ("test", "validation", "sample")
        sets = {name: getattr(self, name) for name in names}
        return {name: images for name, images in sets.items() if images is not None}


@dataclass(frozen=True)
class CourseData:
    """The images for a run, split, augmented and converted.

    train  LabImages of the augmented training set: the images first, then their copies
    plain  LabImages of the training set without the copies
    test   LabImages of the test set, never augmented
    seed, scale_brightness  how the copies were augmented
    """

    task: ClassVar[str] = "map"
    faces: FaceSet
    split: Split
    train: LabImages
    test: LabImages
    seed: int = 0
    scale_brightness: bool = True

    @property
    def num_sitters(self) -> int:
        """The number of sitters in the images; 0 if unknown."""
        return len(set(self.faces.groups or ()))

    @property
    def plain(self) -> LabImages:
        """The training set without the augmented copies."""
        return self.train[: len(self.split.train)]

    def for_training(
        self,
        fresh: bool = False,
        copies: int = 0,
        scale_brightness: bool | None = None,
        random_affine: float = 0.0,
        old_photo: bool = False,
    ) -> Datasets:
        """Return the sets for `fit`.

        fresh  augment each minibatch on the fly (see `FreshImages` for the other
               options) instead of using the fixed set `train`
        copies  use at most this many copies of the training set; 0 uses all in `train`
        scale_brightness  None is as in `train`; otherwise its copies are made again
        """
        if scale_brightness is None:
            scale_brightness = self.scale_brightness
        names = [self.faces.names[i] for i in self.split.train]
        if not fresh:
            copies = min(copies or len(self.train), len(self.train) // len(names))
            train = self.train[: copies * len(names)]
            if copies > 1 and scale_brightness != self.scale_brightness:
                how = (copies, self.seed, scale_brightness)
                train = course_data(self.faces, self.split, *how).train
            return Datasets(train, self.test, names=names * copies)
        images = self.faces.images[self.split.train]
        train = FreshImages(images, scale_brightness, random_affine, old_photo)
        return Datasets(train, self.test, names=names)


def course_data(
    faces: FaceSet, split: Split, copies: int, seed: int, scale_brightness: bool = True
) -> CourseData:
    """Augment the training set and convert both sets to Lab.

    copies            size of the augmented set, as a multiple of the training set's
    scale_brightness  whether to scale B, G and R of the copies
    """
    augmented = augment_copies(
        faces.images[split.train], copies, seed, scale_brightness
    )
    train, test = to_lab_images(augmented), to_lab_images(faces.images[split.test])
    if faces.groups:
        train = replace(train, group=sitter_numbers(faces, split.train).repeat(copies))
        test = replace(test, group=sitter_numbers(faces, split.test))
    return CourseData(faces, split, train, test, seed, scale_brightness)


def sitter_numbers(faces: FaceSet, index: torch.Tensor) -> torch.Tensor | None:
    """Return the sitter's number for each image at `index`, (n,) int64.

    Sitters are numbered in the order of their sorted names. Returns None if the sitters
    are unknown.
    """
    if not faces.groups:
        return None
    sitters = sorted(set(faces.groups))
    return torch.tensor([sitters.index(faces.groups[i]) for i in index])
