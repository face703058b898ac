"""Computing all metrics of a network's predictions, and saving the predictions."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from helpers.data.images import write_image
from helpers.data.lab import to_bgr_images, to_lab_images
from helpers.data.pairs import to_bytes
from helpers.evaluation.evaluate import Evaluation, evaluate, evaluate_single_pass
from helpers.evaluation.metrics import (
    Estimate,
    accuracy_12,
    bootstrap,
    picture_metrics,
)
from helpers.evaluation.task import task_of
from helpers.files import unique_stems, write_atomic

KINDS = ("prediction", "truth", "grayscale")  # folders of images
ESTIMATIONS = ("estimations_test.npy", "estimations_test.txt")


def predict_images(
    net: torch.nn.Module, images: torch.Tensor, group: torch.Tensor | None = None
) -> tuple[Evaluation, torch.Tensor | None, dict[str, Estimate]]:
    """Predict the colors of images and compute every metric.

    images   (N, 3, S, S) uint8 BGR
    group    (N,) the sitter of each image, or None if unknown
    returns  the evaluation, the predicted images (N, 3, S, S) uint8 BGR, or None if the
             network predicts means, and every metric by name. If the network averages
             over the mirror image, `mse_single_pass` is its error without averaging.
    """
    task = task_of(net)
    encoded = task.encode(images, group)
    result = evaluate(net, encoded)
    figures = {}
    for name, estimate in result.estimates.items():
        figures[name] = estimate
        if name == "mse" and net.flip_tta:
            figures["mse_single_pass"] = evaluate_single_pass(net, encoded).mse
    predicted = task.to_bgr(encoded, result.prediction)
    if predicted is not None:
        per_image = {"accuracy": accuracy_12(predicted, images)}
        per_image |= picture_metrics(predicted, images)
        for name, values in per_image.items():
            figures.setdefault(name, bootstrap(values, group))
    return result, predicted, figures


def write_predictions(
    folder: Path, predicted: torch.Tensor, truth: torch.Tensor, names: Sequence[str]
) -> None:
    """Write folder/{prediction,truth,grayscale}/<name>.png for each image.

    predicted, truth  (N, 3, S, S) uint8 BGR
    """
    lab = to_lab_images(truth)
    gray = to_bgr_images(lab.L, torch.zeros_like(lab.ab))
    for kind, images in zip(KINDS, (predicted, truth, gray), strict=True):
        for stem, image in zip(unique_stems(names), images, strict=True):
            path = folder / kind / f"{stem}.png"
            write_image(path, image.permute(1, 2, 0).numpy())


def save_estimations(folder: Path, rgb: torch.Tensor, names: Sequence[str]) -> Path:
    """Write estimations_test.npy, (N, S, S, 3) uint8 RGB, and a list of the names.

    rgb      (N, 3, S, S), uint8, or float of about -1..1
    returns  the path of the array; estimations_test.txt has one name per line
    """
    if rgb.dtype != torch.uint8:
        rgb = to_bytes(rgb)
    stream = io.BytesIO()
    np.save(stream, rgb.permute(0, 2, 3, 1).contiguous().numpy())
    path, list_path = (folder / name for name in ESTIMATIONS)
    write_atomic(path, stream.getvalue())
    lines = "".join(f"{name}\n" for name in names)
    write_atomic(list_path, lines.encode(errors="surrogateescape"))
    return path
