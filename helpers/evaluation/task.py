"""The three tasks of the course: how data is loaded, measured and named for each.

Every network and baseline names its task (`net.task`), and `task_of` looks it up. To add a
fourth task, add a class here, list it in TASKS, and add a data type with `inputs` and
`truth`.
"""

import torch

from helpers.data.course import CourseData, course_data
from helpers.data.faces import IMAGE_SIZE, FaceSet, Split, load_faces, split_faces
from helpers.data.lab import LabImages, to_bgr_images, to_lab_images
from helpers.data.pairs import (
    GrayRgb,
    StudyData,
    split_pairs,
    study_data,
    to_bytes,
    to_gray_rgb,
    to_signed,
)
from helpers.evaluation.metrics import accuracy_12, chrominance_mse
from helpers.nets.baselines import BASELINES, RGB_TABLES, MeanChrominance


class Task:
    """What a network predicts; the base class of the three tasks.

    name        the task's name in networks, baselines and metrics.json
    weights     the user-facing term for a network that performs this task
    title       heading of its results table
    scale       the scale of its MSE, in words
    headline    the metric by which networks are compared, also in paired differences
    batch_size  images per forward pass in an evaluation
    """

    name = weights = title = ""
    scale = "on scale S"
    headline = "mse"
    batch_size = 100

    def image_size(self, profile) -> int:
        """Return the side in pixels of the images that a profile trains on."""
        return IMAGE_SIZE

    def split(self, faces: FaceSet, by: str, seed: int, max_images=None) -> Split:
        """Split the images as in training; see `split_faces`."""
        return split_faces(faces, by=by, seed=seed, max_images=max_images)


class ChrominanceMap(Task):
    """Predict a*, b* for every pixel from L*."""

    name = "map"
    weights = "colorizer"
    title = "Color of each pixel"

    def load(
        self, images: str, by: str, seed: int, profile, copies: int, **augmentation
    ) -> CourseData:
        """Load, split, augment and convert the images for a training run.

        images, by, seed  see `load_faces` and `split_faces`
        profile           a row of `PROFILES`; the others are described in `course_data`
        """
        faces = load_faces(images)
        split = self.split(faces, by, seed, profile.max_images)
        return course_data(faces, split, copies, seed, **augmentation)

    def encode(self, images: torch.Tensor, group=None) -> LabImages:
        """Convert (N, 3, H, W) uint8 BGR to inputs and truth; see `LabImages`."""
        lab = to_lab_images(images)
        return LabImages(lab.L, lab.ab, group)

    def errors(self, prediction, truth) -> dict[str, torch.Tensor]:
        """Return each image's errors by name, (N,) each.

        prediction, truth  (N, 2, H, W), natural units
        mse, mean_mse      on scale S, over all pixels and of each image's mean color
        """
        means = [x.mean(dim=(2, 3), dtype=torch.float32) for x in (prediction, truth)]
        mse = chrominance_mse(prediction, truth)
        return {"mse": mse, "mean_mse": chrominance_mse(*means)}

    def to_bgr(self, images: LabImages, prediction: torch.Tensor) -> torch.Tensor:
        """Return the predicted images, (N, 3, H, W) uint8 BGR; None if there are none."""
        return to_bgr_images(images.L, prediction)

    def baselines(self, train: LabImages) -> dict:
        """Fit every baseline to a training set; return them by name."""
        return {name: kind(train) for name, kind in BASELINES.items()} | {
            "constant": MeanChrominance(train)
        }


class ChrominanceMean(ChrominanceMap):
    """Predict the mean a* and the mean b* of an image from L*."""

    name = "mean"
    weights = "regressor"
    title = "Mean chrominance of each image"

    def errors(self, prediction, truth) -> dict[str, torch.Tensor]:
        """Return {"mse": (N,)} on scale S; prediction (N, 2), truth (N, 2, H, W)."""
        means = truth.mean(dim=(2, 3), dtype=torch.float32)
        return {"mse": chrominance_mse(prediction, means)}

    def to_bgr(self, images: LabImages, prediction: torch.Tensor) -> None:
        """Return None, since a mean is not an image."""


class RgbFromGray(Task):
    """Predict R, G, B for every pixel from gray: the ablation study (report 003)."""

    name = "rgb"
    weights = "network of the ablation study"
    title = "The ablation study: R, G, B from gray"
    scale = "of R, G, B in -1..1"
    headline = "accuracy"
    batch_size = 16  # as in the study: some of its networks depend on the minibatch

    def image_size(self, profile) -> int:
        """Return the side in pixels of the images that a profile trains on."""
        return profile.study_size

    def split(self, faces: FaceSet, by: str, seed: int, max_images=None) -> Split:
        """Split the images as in training; see `split_pairs`."""
        return split_pairs(faces, by, seed, max_images)

    def load(self, images, by, seed, profile, copies=1, **augmentation) -> StudyData:
        """Load and split the images for a training run; the study does not augment."""
        faces = load_faces(images, size=self.image_size(profile))
        return study_data(faces, self.split(faces, by, seed, profile.study_images))

    def encode(self, images: torch.Tensor, group=None) -> GrayRgb:
        """Convert (N, 3, H, W) uint8 BGR to inputs and truth; see `GrayRgb`."""
        return to_gray_rgb(images, group)

    def errors(self, prediction, truth) -> dict[str, torch.Tensor]:
        """Return each image's mse and accuracy, (N,) each.

        prediction  (N, 3, H, W) RGB, about -1..1; truth  (N, 3, H, W) uint8 RGB
        accuracy    share of values with an error below 12 of 255
        """
        mse = to_signed(truth).sub_(prediction).square_().flatten(1).mean(dim=1)
        return {"mse": mse, "accuracy": accuracy_12(to_bytes(prediction), truth)}

    def to_bgr(self, images: GrayRgb, prediction: torch.Tensor) -> torch.Tensor:
        """Return the predicted images, (N, 3, H, W) uint8 BGR."""
        return to_bytes(prediction).flip(1)

    def baselines(self, train: GrayRgb) -> dict:
        """Fit the tables gray -> RGB to a training set; return them by name."""
        return {name: kind(train) for name, kind in RGB_TABLES.items()}


TASKS = {
    task.name: task for task in (ChrominanceMap(), ChrominanceMean(), RgbFromGray())
}


def task_of(predictor) -> Task:
    """Return the task of a network or a baseline."""
    return TASKS[predictor.task]
