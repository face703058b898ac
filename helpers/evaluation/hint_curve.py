"""Evaluation of a network that accepts color hints, and by the lightness of the faces."""

import torch

from helpers.data.lab import LabImages
from helpers.evaluation.evaluate import Evaluation, evaluate
from helpers.nets.base import evaluation_mode
from helpers.nets.hinted import HintedUNet, mean_hint, point_hints

POINTS = (1, 3, 10)  # numbers of points that are measured
POINT_SIDES = (8, 8)  # side of a measured point, as for a point that a user gives
CENTER = slice(32, 96)  # of 128 pixels: the face, without hair and background
THIRDS = ("dark", "medium", "light")


def evaluate_with_hints(
    net: HintedUNet,
    images: LabImages,
    without: Evaluation | None = None,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Evaluate a network without hints, with the mean color, and with points.

    without  the evaluation without hints, if it is known

    Points are drawn at random places, the same for every network; each is a square that
    shows the mean of the true color inside it. Returns one `Evaluation` per kind of hint:
    "none", "mean", "1 point", "3 points", "10 points".
    """
    results = {"none": without or evaluate(net, images)}
    ab = images.ab.float()
    mean = mean_hint(ab.mean(dim=(2, 3)), ab.shape[2:])
    results["mean"] = _evaluate(net, images, mean)
    for count in POINTS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            number = torch.full((len(images),), count)
            chunks = zip(ab.split(100), number.split(100), strict=True)
            points = torch.cat([point_hints(x, n, POINT_SIDES) for x, n in chunks])
        name = f"{count} point" + "s" * (count > 1)
        results[name] = _evaluate(net, images, points)
    return results


def _evaluate(net: HintedUNet, images: LabImages, hints: torch.Tensor) -> Evaluation:
    inputs = torch.cat([images.L.float(), hints], dim=1)
    with evaluation_mode(net):
        return evaluate(net, LabImages(inputs, images.ab, images.group))


def by_lightness(result: Evaluation, L: torch.Tensor) -> dict[str, Evaluation]:
    """Split an evaluation into thirds of the images, by the mean L* of their centers.

    L (N, 1, H, W) natural L*. Returns the thirds dark, medium, light; with fewer than
    three images, some are left out. The center shows mostly skin, so this is a rough
    measure of skin tone and of exposure.
    """
    centers = L[:, 0, CENTER, CENTER].float().mean(dim=(1, 2))
    thirds = centers.argsort().tensor_split(3)
    return {
        name: Evaluation(
            {error: values[index] for error, values in result.errors.items()},
            result.prediction[index],
            result.headline,
            None if result.group is None else result.group[index],
        )
        for name, index in zip(THIRDS, thirds, strict=True)
        if len(index)
    }
