"""What a trained network makes of photographs, whichever kind it is: figures, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from helpers.data.faces import IMAGE_SIZE
from helpers.data.images import write_image
from helpers.data.lab import to_bgr_images, to_lab_images
from helpers.data.pairs import evaluate_study, save_estimations, to_bytes, to_gray
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.metrics import Estimate, accuracy_12, bootstrap, picture_metrics
from helpers.experiments.run_folder import flat_name
from helpers.nets import ChrominanceNet, RgbNet
from helpers.nets.report003 import to_signed


@dataclass(frozen=True)
class Prediction:
    """A network's pictures beside the true ones.

    truth, pictures  (N, 3, S, S) uint8 BGR; pictures is None for a network of means
    errors           the figures of the network's own kind, by name
    """

    truth: torch.Tensor
    pictures: torch.Tensor | None
    errors: dict[str, Estimate]

    def figures(self) -> dict[str, Estimate]:
        """Every figure by name, with its interval."""
        if self.pictures is None:
            return self.errors
        metrics = picture_metrics(self.pictures, self.truth)
        return self.errors | {name: bootstrap(v) for name, v in metrics.items()}

    def write_pictures(self, folder: Path, names: Sequence[str]) -> None:
        """Write folder/{prediction,truth,grayscale}/<name>.png for each picture."""
        lab = to_lab_images(self.truth)
        kinds = {
            "prediction": self.pictures,
            "truth": self.truth,
            "grayscale": to_bgr_images(lab.L, torch.zeros_like(lab.ab)),
        }
        for kind, pictures in kinds.items():
            for name, image in zip(names, pictures, strict=True):
                path = folder / kind / f"{flat_name(name)}.png"
                write_image(path, image.permute(1, 2, 0).numpy())

    def write_estimations(self, folder: Path, names: Sequence[str]) -> Path:
        """Write estimations_test.npy (N, S, S, 3) uint8 RGB and its list of names."""
        return save_estimations(folder, to_signed(self.pictures.flip(1)), names)


def photograph_size(net: ChrominanceNet | RgbNet) -> int:
    """Pixels a side at which a network is tested: the study's, else the course's."""
    return net.size if net.task == "rgb" else IMAGE_SIZE


def predict_all(net: ChrominanceNet | RgbNet, images: torch.Tensor) -> Prediction:
    """Predict the colors of images (N, 3, S, S) uint8 BGR from their luminance."""
    if isinstance(net, RgbNet):
        found = evaluate_study(net, to_gray(images))
        errors = {"accuracy": found.accuracy, "mse": found.mse}
        return Prediction(images, to_bytes(found.rgb_hat).flip(1), errors)
    lab = to_lab_images(images)
    result = evaluate(net, lab)
    errors = {"mse": result.mse}
    if net.task == "mean":
        return Prediction(images, None, errors)
    pictures = to_bgr_images(lab.L, result.ab_hat)
    errors["mse_of_means"] = result.mean_mse
    errors["accuracy"] = bootstrap(accuracy_12(pictures, images))
    return Prediction(images, pictures, errors)
