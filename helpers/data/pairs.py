"""The ablation study (report 003): gray pictures and their RGB, and how it counts.

A network sees the gray picture and puts out R, G, B. Its accuracy is the share of values
that are right within 12 of 255; it is 0.758 for a table of 256 entries, so mind the gap.
"""

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch

from helpers.data.faces import FaceSet, Split, load_faces, split_faces
from helpers.evaluation.metrics import Estimate, accuracy_12, bootstrap
from helpers.files import sha256, write_atomic
from helpers.nets import RgbNet, evaluation_mode
from helpers.nets.report003 import to_signed

BATCH_SIZE = 16  # of the study, in training and in tests
NUM_SAMPLES = 500  # training images whose accuracy is followed


@dataclass(frozen=True)
class GrayRgb:
    """Pictures of the study.

    gray  (N, 1, H, W) uint8, OpenCV's weighted mean of R, G, B
    rgb   (N, 3, H, W) uint8, R first
    """

    gray: torch.Tensor
    rgb: torch.Tensor

    def __len__(self) -> int:
        return len(self.gray)

    def __getitem__(self, index) -> "GrayRgb":
        return GrayRgb(self.gray[index], self.rgb[index])

    @property
    def truth(self) -> torch.Tensor:
        """What is to be predicted: rgb."""
        return self.rgb

    def to(self, device: str) -> "GrayRgb":
        """The same images on another device."""
        return GrayRgb(self.gray.to(device), self.rgb.to(device))

    def minibatch(self, index: torch.Tensor, aug_params: torch.Tensor) -> "GrayRgb":
        """The images at `index` as they are: the study does not augment."""
        return self[index]

    def data_hash(self) -> str:
        """SHA-256 of all pixels: equal hash, equal data."""
        return sha256(self.rgb.cpu().numpy().tobytes())


@dataclass(frozen=True)
class StudyData:
    """The study's pictures, parted.

    train, validation  GrayRgb; the study chooses its epochs by the validation part, and
                       reports that part's figures
    """

    faces: FaceSet
    split: Split
    train: GrayRgb
    validation: GrayRgb

    def for_fit(self, experiment) -> dict:
        """What `fit` is given: both parts, a sample of the first, what to measure."""
        return {
            "train": self.train,
            "validation": self.validation,
            "sample": self.train[:NUM_SAMPLES],
            "measure": measure,
        }

    def evaluate(self, net: RgbNet) -> "StudyEvaluation":
        """Test a network on the validation part, whose figures the study reports."""
        return evaluate_study(net, self.validation)

    def names(self, number: int) -> list[str]:
        """The file names of the training images."""
        return [self.faces.names[i] for i in self.split.train]


@dataclass(frozen=True)
class StudyEvaluation:
    """A network of the study, tested.

    accuracy, mse  mean over images with 95 % interval; mse of R, G, B in -1..1
    per_image      (N,) the accuracy of each image
    rgb_hat        (N, 3, H, W) float32, as the network puts it out: about -1..1
    """

    accuracy: Estimate
    mse: Estimate
    per_image: torch.Tensor
    rgb_hat: torch.Tensor


def load_study(
    images: str = "",
    *,
    by: str = "random",
    seed: int = 0,
    max_images: int = 10_000,
    size: int = 80,
) -> StudyData:
    """Load pictures at size x size and part them; at most `max_images` are taken to train.

    Folders `train` and `val`, as faces_80 has them, are the parts; else a tenth, drawn as
    `split_faces` does, is the validation part. Raises InputError as `load_faces` does.
    """
    faces = load_faces(images, size=size)
    parts = [_part_of(name) for name in faces.names]
    if set(parts) == {"train", "val"}:
        index = {p: [i for i, q in enumerate(parts) if q == p] for p in set(parts)}
        train, val = torch.tensor(index["train"]), torch.tensor(index["val"])
        split = Split(train[:max_images], val, "folders train and val")
    else:
        split = split_faces(faces, by=by, seed=seed, max_images=max_images)
    return study_data(faces, split)


def study_data(faces: FaceSet, split: Split) -> StudyData:
    """The two parts of a FaceSet as GrayRgb."""
    train, validation = (to_gray(faces.images[i]) for i in (split.train, split.test))
    return StudyData(faces, split, train, validation)


def to_gray(images: torch.Tensor) -> GrayRgb:
    """(N, 3, H, W) uint8 BGR to GrayRgb."""
    planes = images.permute(0, 2, 3, 1).contiguous().numpy()
    gray = [cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY) for image_bgr in planes]
    return GrayRgb(torch.from_numpy(np.stack(gray)).unsqueeze(1), images.flip(1))


def to_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """RGB in about -1..1 to uint8, rounded; what lies outside is clipped to the end."""
    return ((rgb.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_wrapped_bytes(rgb: torch.Tensor) -> torch.Tensor:
    """The same as the study's program had it: what lies outside begins anew.

    256 becomes 0 and -1 becomes 255. A red above 1 turns to none, and light skin to cyan.
    """
    return (
        ((rgb.float() / 2 + 0.5) * 255).to(torch.int64).remainder(256).to(torch.uint8)
    )


def predict(predictor, gray: torch.Tensor, batch_size: int = BATCH_SIZE):
    """What a network or a table makes of gray (N, 1, H, W) uint8.

    Returns (N, 3, H, W) float32, about -1..1; a network is put into evaluation mode.
    """
    is_net = isinstance(predictor, RgbNet)
    device = next(predictor.parameters()).device if is_net else "cpu"
    with evaluation_mode(predictor) if is_net else nullcontext():
        parts = gray.split(batch_size)
        return torch.cat([predictor.predict(part.to(device)).cpu() for part in parts])


def measure(predictor, images: GrayRgb) -> dict[str, torch.Tensor]:
    """What `fit` notes of a part: mse and accuracy of each image, (N,) each."""
    return _figures(predict(predictor, images.gray), images)


def evaluate_study(predictor, images: GrayRgb) -> StudyEvaluation:
    """Test a network or a table, in the study's minibatches."""
    rgb_hat = predict(predictor, images.gray)
    figures = _figures(rgb_hat, images)
    accuracy, mse = figures["accuracy"], figures["mse"]
    return StudyEvaluation(bootstrap(accuracy), bootstrap(mse), accuracy, rgb_hat)


def _figures(rgb_hat: torch.Tensor, images: GrayRgb) -> dict[str, torch.Tensor]:
    truth = images.rgb.cpu()
    return {
        "mse": (rgb_hat - to_signed(truth)).square().flatten(1).mean(dim=1),
        "accuracy": accuracy_12(to_bytes(rgb_hat), truth),
    }


class RgbTable:
    """A table of how the training pixels' color differs from their gray: no network.

    An entry holds the mean of R, G, B minus gray; the pixel's own gray is added again.
    step  gray levels in one entry; cell  None, or the side in pixels of the squares that
    have a table each
    """

    def __init__(self, train: GrayRgb, step: int = 1, cell: int | None = None):
        self.step, self.cell = step, cell
        size = int(self._entry(torch.full_like(train.gray[:1], 255)).max()) + 1
        entry = self._entry(train.gray).flatten()
        count = torch.bincount(entry, minlength=size)
        columns = []
        for plane in train.rgb.unbind(1):
            beyond = (plane.double() - train.gray[:, 0]).flatten()
            total = torch.bincount(entry, beyond, minlength=size)
            columns.append(
                torch.where(count > 0, total / count.clamp_min(1), beyond.mean())
            )
        self.table = torch.stack(columns).float() / 127.5  # (3, entries)

    def predict(self, gray: torch.Tensor) -> torch.Tensor:
        """Gray (B, 1, H, W) uint8 to RGB (B, 3, H, W) in -1..1: look each pixel up."""
        beyond = self.table[:, self._entry(gray)].transpose(0, 1)
        return to_signed(gray) + beyond

    def _entry(self, gray: torch.Tensor) -> torch.Tensor:
        level = gray[:, 0].long() // self.step
        if self.cell is None:
            return level
        height, width = gray.shape[2:]
        row = torch.arange(height).view(-1, 1) // self.cell
        column = torch.arange(width) // self.cell
        number = row * -(-width // self.cell) + column
        return number * (256 // self.step) + level


TABLES = {
    "table gray -> RGB": {},
    "table (gray, position) -> RGB": {"step": 8, "cell": 4},
}


def save_estimations(folder: Path, rgb_hat: torch.Tensor, names: Sequence[str]) -> Path:
    """Write rgb_hat (N, 3, H, W) in -1..1 as estimations_test.npy (N, H, W, 3) uint8.

    estimations_test.txt has the name of each picture on a line. Returns the array's path.
    """
    stream = io.BytesIO()
    np.save(stream, to_bytes(rgb_hat).permute(0, 2, 3, 1).contiguous().numpy())
    path = folder / "estimations_test.npy"
    write_atomic(path, stream.getvalue())
    lines = "".join(f"{name}\n" for name in names)
    write_atomic(path.with_suffix(".txt"), lines.encode(errors="surrogateescape"))
    return path


def _part_of(name: str) -> str:
    """The folder of an image: "train" or "val" where the study's own parts are given."""
    return PurePosixPath(name).parent.name
