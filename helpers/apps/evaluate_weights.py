"""The commands that evaluate saved networks: evaluate, compare, predict."""

from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.data.course import sitter_numbers
from helpers.data.faces import FaceSet, load_faces
from helpers.evaluation.evaluate import Evaluation, evaluate
from helpers.evaluation.hint_curve import by_lightness, evaluate_with_hints
from helpers.evaluation.metrics import Estimate
from helpers.evaluation.predictions import (
    ESTIMATIONS,
    KINDS,
    predict_images,
    write_predictions,
)
from helpers.evaluation.predictions import save_estimations as write_estimations
from helpers.evaluation.task import Task, task_of
from helpers.experiments.profiles import get_profile
from helpers.files import InputError, refuse_existing, write_json
from helpers.nets import HintedUNet
from helpers.training.execution import choose_device
from helpers.training.weights import count_trained_on, find_weights, load_weights

Log = Callable[[str], None]
TWO_PASSES = (
    "predictions are the average of 2 passes, over the image and its mirror image"
)
COMPARED = ("mse", "mean_mse", "ciede2000", "colorfulness")


def evaluate_weights(
    weights: str,
    images: str,
    split: str,
    seed: int,
    device: str,
    hints: bool = False,
    against: Sequence[str] = (),
    tables: bool = False,
    output: Path | None = None,
    force: bool = False,
    log: Log = print,
) -> None:
    """Log every metric of a network, on all images or on the test set of a split.

    weights  a name or a file, see `find_weights`; split  "all", "random", "groups" or
    "folders"; see `split_faces`
    hints    also log the error with color hints, and by the lightness of the faces
    against  other networks, evaluated on the same images; see `find_weights`
    tables   also evaluate the baselines, fitted to the training set of the split
    output   also write all figures to this JSON file, which must be new without `force`
    """
    refuse_existing(output, force)
    net, metadata = load_weights(find_weights(weights))
    if hints and not isinstance(net, HintedUNet):
        raise InputError(f"{weights}: does not accept color hints; omit --hints")
    task = task_of(net)
    others = {name: _load_comparable(name, weights, net) for name in against}
    faces = load_faces(images, size=_image_size(task))
    log(faces.describe())
    index, where, training = slice(None), "", None
    if tables and split == "all":
        raise InputError("--tables: needs a training set; give --split, too")
    if split != "all":
        chosen = task.split(faces, split, seed)
        index, training = chosen.test, faces.images[chosen.train]
        where = f", the test set of split {chosen.how}, seed {seed}"
    photographs = faces.images[index]
    kind = metadata["network"]
    log(f"{kind}: MSE {task.scale} over {len(photographs)} images{where}")
    seen = count_trained_on(weights, photographs, log)
    if net.flip_tta:
        log(TWO_PASSES)
    group = _sitters(faces, index)
    net = net.to(choose_device(device))
    result, _, figures = predict_images(net, photographs, group)
    log_figures(figures, log)
    record = {"images": len(photographs), "trained_on": seen, "metrics": figures}
    if hints:
        record |= _measure_hints(net, photographs, result, log)
    for name in against:
        count_trained_on(name, photographs, log)
    if tables:
        fitted = task.baselines(task.encode(training))
        others |= {n: x for n, x in fitted.items() if x.task == task.name}
    record |= _compare(result, others, photographs, log)
    if output:
        write_json(output, _plain(record))


def _measure_hints(net: HintedUNet, photographs, result, log: Log) -> dict:
    """Log the error with hints and by lightness; return the estimates by name."""
    images = task_of(net).encode(photographs, result.group)
    results = evaluate_with_hints(net, images, result)
    for name, result in results.items():
        share = float(result.per_image.mean() / results["none"].per_image.mean())
        log(f"hints: {name:<13}{result.mse}  {share:.2f} of the error without hints")
    thirds = by_lightness(results["none"], images.L)
    for name, result in thirds.items():
        log(f"faces: {name:<13}{result.mse}  mean color {result.mean_mse}")
    return {
        "hints": {name: result.mse for name, result in results.items()},
        "faces": {name: result.mse for name, result in thirds.items()},
    }


def _compare(mine: Evaluation, others: dict, photographs, log: Log) -> dict:
    """Evaluate other predictors on the same images; return their figures."""
    record = {}
    for name, other in others.items():
        result, _, figures = predict_images(other, photographs, mine.group)
        log(
            f"{name}: {', '.join(f'{n} {figures[n]}' for n in COMPARED if n in figures)}"
        )
        difference = mine.minus(result)
        log(f"  the network minus {name}: {difference}")
        record[name] = {"metrics": figures, "difference": difference}
    return {"against": record} if record else {}


def _plain(record):
    """Convert estimates to lists [mean, low, high], for JSON."""
    if isinstance(record, dict):
        return {name: _plain(value) for name, value in record.items()}
    if isinstance(record, Estimate):
        return [record.mean, record.low, record.high]
    return record


def compare_weights(
    weights: tuple[str, str], images: str, split: str, seed: int, log: Log = print
) -> None:
    """Log the errors of two networks on one test set, and their paired difference."""
    nets = [load_weights(find_weights(given))[0] for given in weights]
    _check_comparable(weights, nets)
    task = task_of(nets[0])
    faces = load_faces(images, size=_image_size(task))
    chosen = task.split(faces, split, seed)
    test = task.encode(faces.images[chosen.test], _sitters(faces, chosen.test))
    log(f"{faces.describe()}\n{len(test)} test images, split {chosen.how}")
    for given in weights:
        count_trained_on(given, faces.images[chosen.test], log)
    results = [evaluate(net, test) for net in nets]
    for given, net, result in zip(weights, nets, results, strict=True):
        passes = f" ({net.passes} passes)" if net.passes > 1 else ""
        figure = result.estimates[task.headline]
        log(f"{given}: {task.headline} {task.scale} {figure}{passes}")
    log(f"first minus second: {results[0].minus(results[1])}")


def _image_size(task: Task) -> int:
    """Return the side of the images in a long training run."""
    return task.image_size(get_profile("full"))


def _load_comparable(name: str, weights: str, net):
    """Load the network `name`, to be compared with `net` of `weights`."""
    other = load_weights(find_weights(name))[0]
    _check_comparable((weights, name), (net, other))
    return other


def _check_comparable(weights: Sequence[str], nets: Sequence) -> None:
    if len({net.task for net in nets}) > 1:
        raise InputError(
            f"{' and '.join(weights)}: give two networks for the same task, for "
            "example two colorizers or two regressors"
        )


def predict_folder(
    weights: str,
    images: str,
    output: Path,
    save_estimations: bool = False,
    force: bool = False,
    device: str = "auto",
    log: Log = print,
) -> None:
    """Write a network's predictions, the ground truth and the gray images to a folder.

    output            the folder
    save_estimations  also write estimations_test.npy and the file names
    force             replace existing files

    Raises InputError if the network predicts means, or if the folder contains files or
    folders of these names.
    """
    net, _ = load_weights(find_weights(weights))
    if net.task == "mean":
        raise InputError(f"{weights}: predicts means; use `deepcolor chrominance`")
    places = [*KINDS, *(ESTIMATIONS if save_estimations else ())]
    existing = [name for name in places if (output / name).exists()]
    if existing and not force:
        raise InputError(
            f"{output / existing[0]}: exists; use --force or another folder"
        )
    faces = load_faces(images, size=_image_size(task_of(net)))
    log(faces.describe())
    _, predicted, figures = predict_images(
        net.to(choose_device(device)), faces.images, _sitters(faces, slice(None))
    )
    write_predictions(output, predicted, faces.images, faces.names)
    if save_estimations:
        log(f"wrote {write_estimations(output, predicted.flip(1), faces.names)}")
    log_figures(figures, log)
    log(f"wrote {len(faces)} images to {output}/prediction, truth, grayscale")


def log_figures(figures: dict, log: Log) -> None:
    """Log one line per metric: its name, mean and interval."""
    for name, value in figures.items():
        log(f"{name:<20}{value}")


def _sitters(faces: FaceSet, index):
    numbers = sitter_numbers(faces, range(len(faces)))
    return None if numbers is None else numbers[index]
