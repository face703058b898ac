"""Pairs of gray and RGB images: the data for the ablation study (report 003)."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch

from helpers.data.course import Datasets, sitter_numbers
from helpers.data.faces import FaceSet, Split, split_faces, split_folder
from helpers.data.lab import ImagePairs

NUM_SAMPLES = 500  # training images whose accuracy is recorded after each epoch


class GrayRgb(ImagePairs):
    """Images for the ablation study, without augmentation.

    inputs, gray  (N, 1, H, W) uint8, OpenCV's weighted mean of R, G, B
    truth, rgb    (N, 3, H, W) uint8, R first
    """

    gray = property(lambda self: self.inputs)
    rgb = property(lambda self: self.truth)


@dataclass(frozen=True)
class StudyData:
    """The images for the ablation study, split.

    train, validation  GrayRgb. The study both chooses the epoch and reports its results
                       on the validation set.
    """

    task: ClassVar[str] = "rgb"
    faces: FaceSet
    split: Split
    train: GrayRgb
    validation: GrayRgb

    @property
    def test(self) -> GrayRgb:
        """The set on which the study reports its results: the validation set."""
        return self.validation

    @property
    def plain(self) -> GrayRgb:
        """The training set; it has no augmented copies."""
        return self.train

    def for_training(self, **augmentation) -> Datasets:
        """Return the sets for `fit`; the study does not augment."""
        return Datasets(
            self.train,
            validation=self.validation,
            sample=self.train[:NUM_SAMPLES],
            names=[self.faces.names[i] for i in self.split.train],
        )


def split_pairs(
    faces: FaceSet, by: str = "random", seed: int = 0, max_images: int | None = None
) -> Split:
    """Split images for the ablation study.

    If all images are in folders named `train` and `val`, as in faces_80, these folders are
    the training and validation sets, in the order of their names. Otherwise, `split_faces`
    selects a tenth for validation. `max_images` training images are kept, chosen at random.
    Raises InputError as `split_faces` does.
    """
    if {split_folder(name) for name in faces.names} != {"train", "val"}:
        return split_faces(faces, by=by, seed=seed, max_images=max_images)
    found = split_faces(faces, by="folders", seed=seed, max_images=max_images)
    return Split(found.train.sort().values, found.test.sort().values, found.how)


def study_data(faces: FaceSet, split: Split) -> StudyData:
    """Convert the training and validation sets of a split to GrayRgb."""
    train, validation = (
        to_gray_rgb(faces.images[index], sitter_numbers(faces, index))
        for index in (split.train, split.test)
    )
    return StudyData(faces, split, train, validation)


def to_gray_rgb(images: torch.Tensor, group: torch.Tensor | None = None) -> GrayRgb:
    """Convert (N, 3, H, W) uint8 BGR to GrayRgb."""
    planes = images.permute(0, 2, 3, 1).contiguous().numpy()
    gray = [cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY) for image_bgr in planes]
    return GrayRgb(torch.from_numpy(np.stack(gray)).unsqueeze(1), images.flip(1), group)


def to_signed(values: torch.Tensor) -> torch.Tensor:
    """Scale uint8 0..255 to float32 -1..1."""
    return values.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """Scale RGB from about -1..1 to uint8, rounding and clipping."""
    values = rgb.to(torch.float32, copy=True).add_(1).mul_(127.5)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def to_wrapped_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """Scale RGB from about -1..1 to uint8 as the study's code did, including its bug.

    Out-of-range values wrap around: 256 becomes 0 and -1 becomes 255. Red values above 1
    wrap to nearly 0, so light skin turns cyan.
    """
    return (
        ((rgb.float() / 2 + 0.5) * 255).to(torch.int64).remainder(256).to(torch.uint8)
    )
