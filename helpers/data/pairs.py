"""Gray images and their RGB: the data of the ablation study (report 003)."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import cv2
import numpy as np
import torch

from helpers.data.course import Datasets, sitter_numbers
from helpers.data.faces import FaceSet, Split, split_faces
from helpers.files import sha256

NUM_SAMPLES = 500  # training images whose accuracy is recorded after each epoch


@dataclass(frozen=True)
class GrayRgb:
    """Images as the ablation study uses them.

    gray   (N, 1, H, W) uint8, OpenCV's weighted mean of R, G, B
    rgb    (N, 3, H, W) uint8, R first
    group  (N,) int64, the number of each image's sitter, or None if unknown
    """

    gray: torch.Tensor
    rgb: torch.Tensor
    group: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.gray)

    def __getitem__(self, index) -> "GrayRgb":
        group = None if self.group is None else self.group[index]
        return GrayRgb(self.gray[index], self.rgb[index], group)

    @property
    def inputs(self) -> torch.Tensor:
        """The input of a network: gray."""
        return self.gray

    @property
    def truth(self) -> torch.Tensor:
        """What a network should predict: rgb."""
        return self.rgb

    def to(self, device: str) -> "GrayRgb":
        """Return the same images on another device."""
        group = None if self.group is None else self.group.to(device)
        return GrayRgb(self.gray.to(device), self.rgb.to(device), group)

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor) -> "GrayRgb":
        """Return the images at `index` unchanged: the study does not augment."""
        return self[index]

    def data_hash(self) -> str:
        """Return the SHA-256 of all pixels: equal hash, equal data."""
        return sha256(self.rgb.cpu().numpy().tobytes())


@dataclass(frozen=True)
class StudyData:
    """The images of the ablation study, split.

    train, validation  GrayRgb. The study chooses the epoch on the validation set and
                       reports the figures of that same set.
    """

    task: ClassVar[str] = "rgb"
    faces: FaceSet
    split: Split
    train: GrayRgb
    validation: GrayRgb

    @property
    def test(self) -> GrayRgb:
        """The set whose figures the study reports: the validation set."""
        return self.validation

    @property
    def plain(self) -> GrayRgb:
        """The training set; it has no augmented copies."""
        return self.train

    def for_training(self, **augmentation) -> Datasets:
        """Return what `fit` needs; the study does not augment."""
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

    Where all images lie in folders `train` and `val`, as in faces_80, these folders are
    the training and the validation set. Otherwise `split_faces` draws a tenth. Of the
    training set the first `max_images` remain. Raises InputError as `split_faces` does.
    """
    folders = [PurePosixPath(name).parent.name for name in faces.names]
    if set(folders) != {"train", "val"}:
        return split_faces(faces, by=by, seed=seed, max_images=max_images)
    train, val = (
        torch.tensor([i for i, folder in enumerate(folders) if folder == name])
        for name in ("train", "val")
    )
    return Split(train[:max_images], val, "folders train and val")


def study_data(faces: FaceSet, split: Split) -> StudyData:
    """Convert the training and the validation set of a split to GrayRgb."""
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
    return values.float() / 127.5 - 1


def to_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """Scale RGB from about -1..1 to uint8, rounded; values outside are clipped."""
    return ((rgb.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_wrapped_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """Scale RGB from about -1..1 to uint8 as the study's program did, with its mistake.

    Values outside wrap around: 256 becomes 0 and -1 becomes 255. A red above 1 vanishes,
    and light skin turns cyan.
    """
    return (
        ((rgb.float() / 2 + 0.5) * 255).to(torch.int64).remainder(256).to(torch.uint8)
    )
