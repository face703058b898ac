"""Run one experiment: load its data, train and test its network, save the results."""

import json
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from helpers import nets
from helpers.data.copies import fingerprints, pack
from helpers.data.course import CourseData
from helpers.data.pairs import StudyData
from helpers.evaluation.evaluate import Evaluation, evaluate, evaluate_single_pass
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import Profile, get_profile
from helpers.experiments.registry import (
    DEFAULT_SEED,
    Experiment,
    Published,
    get_experiment,
    published,
)
from helpers.experiments.run_folder import default_run_dir, describe_data, environment
from helpers.experiments.tables import Row
from helpers.files import InputError, run_lock, write_json
from helpers.training import distributed
from helpers.training.autotune import choose_execution
from helpers.training.execution import PLAIN, Execution, choose_device, set_seed
from helpers.training.loop import fit
from helpers.training.signals import StopSignals
from helpers.training.state import History
from helpers.training.tensorboard import TensorBoardLogger
from helpers.training.weights import (
    count_trained_on,
    find_weights,
    fingerprints_of,
    load_weights,
    save_weights,
)

FINE_TUNING_LR = 0.1  # learning rate, as a fraction of the experiment's


@dataclass(frozen=True)
class Trained:
    """A trained experiment: the network, its history and its test results.

    trained_on  (N, 32) uint8, packed fingerprints of the training images
    """

    experiment: Experiment
    published: Published | None
    options: dict
    net: nets.ChrominanceNet
    history: History
    evaluation: Evaluation
    single_pass: Evaluation | None
    trained_on: np.ndarray

    def save(self, path: Path) -> None:
        """Write the weights so that `load_weights` can rebuild the network."""
        how = {"trained_on": self.trained_on}
        save_weights(path, self.net, self.experiment.network, self.options, **how)

    def summary(self) -> str:
        """Return the test results in one line."""
        task = TASKS[self.net.task]
        figures = f"test {task.headline} {self.evaluation.estimates[task.headline]}"
        if task.headline != "mse":
            figures += f", MSE {self.evaluation.mse}"
        if self.single_pass:
            figures += f" (average of 2 passes; single pass {self.single_pass.mse})"
        return f"{figures}; MSE {task.scale}"

    def row(self) -> Row:
        """Return the network's row for metrics.json and the tables."""
        return Row.of(
            self.net.task,
            self.evaluation,
            single_pass_mse=self.single_pass and self.single_pass.mse,
            parameters=nets.count_parameters(self.net),
            gflop=round(nets.count_gflop(self.net), 4),
            passes=self.net.passes,
            epochs=len(self.history["epoch"]),
            seconds=round(sum(self.history["seconds"]), 1),
            published=self.published,
        )


def train_experiment(
    name: str,
    data: CourseData | StudyData,
    profile: Profile,
    *,
    num_epochs: int = 0,
    seed: int = DEFAULT_SEED,
    device: str = "cpu",
    start: str = "",
    tune: Callable[..., Execution] | None = None,
    checkpoint: Path | None = None,
    stop: StopSignals | None = None,
    **callbacks,
) -> Trained:
    """Build, train and test one named network.

    num_epochs  0 uses the profile's number
    start       fine-tune these weights, a name or a file, at a tenth of the learning rate
    tune        returns how the steps are computed, for example `choose_execution`; by
                default, `default_execution`
    checkpoint, stop, callbacks (log, after_epoch)  see `fit`

    Raises KeyboardInterrupt if stopped while pretraining a part of the network.
    """
    experiment, stop = get_experiment(name), stop or StopSignals()
    recipe = experiment.recipe(num_epochs or experiment.epochs_for(profile))
    recipe = replace(recipe, lr=recipe.lr * FINE_TUNING_LR) if start else recipe
    set_seed(seed)
    net, options = first_network(experiment, profile, data, start)
    net = net.to(device)
    if experiment.pretrained and not start:
        same = {"num_epochs": num_epochs, "seed": seed, "device": device, "tune": tune}
        same |= {"stop": stop, "log": callbacks.get("log")}
        file = checkpoint and checkpoint.with_name("first.pt")
        part = experiment.pretrained
        first = train_experiment(part, data, profile, **same, checkpoint=file)
        if stop.received:  # do not continue from a half-trained network
            raise KeyboardInterrupt
        net.load_pretrained(first.net)
    sets = data.for_training(**experiment.augmentation)
    resumes = checkpoint and checkpoint.exists()
    history = fit(
        net,
        sets,
        recipe,
        seed=seed,
        execution=tune(net, sets.train, recipe) if tune and not resumes else None,
        checkpoint=checkpoint,
        stop=stop,
        **callbacks,
    )
    single = evaluate_single_pass(net, data.test) if net.flip_tta else None
    result = evaluate(net, data.test)
    seen = _seen(data, start)
    return Trained(
        experiment, published(name), options, net, history, result, single, seen
    )


def train_one(
    name: str,
    *,
    profile: str = "quick",
    images: str = "",
    split: str = "random",
    seed: int = DEFAULT_SEED,
    device: str = "auto",
    start: str = "",
    epochs: int = 0,
    run_dir: str = "",
    plain: bool = False,
    without: Collection[str] = (),
    tensorboard: bool = False,
    log: Callable[[str], None] = print,
) -> Trained:
    """Train one named network and save the results, as `deepcolor train` does.

    start    fine-tune these weights; their error on the test set is logged before and after
    plain    use plain PyTorch instead of the fastest `Execution`
    without  options to leave out of that measurement (`autotune.OPTIONS`)
    returns  the trained network; the folder `folder_of` contains weights.safetensors,
             metrics.json (written last), checkpoint.pt, and parameters.json (written first)

    The same call resumes a stopped run. Raises KeyboardInterrupt after Ctrl-C.
    """
    experiment, row = get_experiment(name), get_profile(profile)
    device = distributed.join(choose_device(device))
    is_first = distributed.rank() == 0
    log = log if is_first else (lambda line: None)
    epochs = epochs or experiment.epochs_for(row)
    parameters = parameters_of(name, profile, split, seed, epochs, start)
    folder = folder_of(default_run_dir(profile, run_dir), name, seed)
    with run_lock(folder, log) if is_first else nullcontext():
        if is_first and not (folder / "checkpoint.pt").exists():
            write_json(folder / "parameters.json", parameters)
        data = load_data(experiment, row, images, split, seed)
        _log_data(data, row, start, log)
        stop = StopSignals()
        how = {"num_epochs": epochs, "seed": seed, "device": device, "start": start}
        how |= {"checkpoint": folder / "checkpoint.pt", "stop": stop, "log": log}
        tune = partial(choose_execution, without=without, stop=stop, log=log)
        how["tune"] = (lambda *_: PLAIN) if plain or distributed.count() > 1 else tune
        how["after_epoch"] = _board(folder, data, experiment) if tensorboard else None
        trained = train_experiment(name, data, row, **how)
        if stop.received:
            raise KeyboardInterrupt
        if is_first:
            trained.save(folder / "weights.safetensors")
            write_json(folder / "metrics.json", metrics_of(trained, parameters, data))
    log(trained.summary())
    _log_difference(start, trained, data, log)
    log(f"wrote {folder / 'weights.safetensors'}")
    distributed.leave()
    return trained


def first_network(
    experiment: Experiment, profile: Profile, data, start: str = ""
) -> tuple[nets.ChrominanceNet, dict]:
    """Build an experiment's network, or load `start`; return it and its options."""
    if start:
        return load_start(start, experiment.network)
    options = experiment.options_for(profile)
    options |= {"num_classes": data.num_sitters} if "num_classes" in options else {}
    return nets.build(experiment.network, **options), options


def load_start(start: str, network: str) -> tuple[nets.ChrominanceNet, dict]:
    """Load the weights to fine-tune; return the network and its options.

    Raises InputError if they belong to another kind of network.
    """
    net, metadata = load_weights(find_weights(start))
    if metadata["network"] != network:
        raise InputError(
            f"--start {start}: holds a {metadata['network']}, but this experiment trains "
            f"a {network}; give weights of the same kind"
        )
    net.fine_tuned_from = metadata["sha256"]
    return net, json.loads(metadata["options"])


def _seen(data: CourseData | StudyData, start: str) -> np.ndarray:
    """Return the packed fingerprints of the training images, and of those of `start`."""
    seen = pack(fingerprints(data.faces.images[data.split.train]))
    before = fingerprints_of(find_weights(start)) if start else None
    return seen if before is None else np.concatenate([before, seen])


def _log_data(data, profile: Profile, start: str, log) -> None:
    """Log the images, how many are left out, and whether `start` has seen test images."""
    log(data.faces.describe())
    used, total = len(data.split.train), len(data.faces) - len(data.split.test)
    if used < total:
        log(f"profile {profile.name} trains on {used} of {total} training images")
    sets = [set(index.tolist()) for index in (data.split.train, data.split.test)]
    both = sum(all(x & set(group) for x in sets) for group in data.faces.copies)
    if both:
        log(f"pictures in both sets: {both}; the test error is too small")
    if start:
        count_trained_on(start, data.faces.images[data.split.test], log)


def _log_difference(start: str, trained: Trained, data, log) -> None:
    """If this was fine-tuning, log the test error before it and the paired difference."""
    if not start:
        return
    before = evaluate(load_weights(find_weights(start))[0], data.test)
    log(f"before fine-tuning: test MSE {before.mse}")
    log(f"fine-tuned minus before: {trained.evaluation.minus(before)}")


def _board(folder: Path, data, experiment: Experiment) -> TensorBoardLogger | None:
    if distributed.rank() > 0:
        return None
    sets = data.for_training(**experiment.augmentation)
    return TensorBoardLogger(folder / "board", sets, experiment.batch_size)


def load_data(
    experiment: Experiment, profile: Profile, images: str, split: str, seed: int
) -> CourseData | StudyData:
    """Load, split, augment and convert the images for an experiment."""
    return TASKS[experiment.task].load(
        images,
        split,
        seed,
        profile,
        copies=experiment.copies_for(profile),
        scale_brightness=experiment.scale_brightness,
    )


def metrics_of(trained: Trained, parameters: dict, data) -> dict:
    """Return the content of metrics.json after a training run."""
    return {
        "parameters": parameters,
        "data": describe_data(data.faces, data.split),
        "networks": {parameters["name"]: trained.row().to_json()},
        "baselines": {n: row.to_json() for n, row in baseline_rows(data).items()},
        "environment": environment(),
        "finished": time.strftime("%Y-%m-%d"),
        "history": trained.history,
    }


def evaluate_baselines(data: CourseData | StudyData) -> dict[str, Evaluation]:
    """Fit every baseline of the data's own task to the training set and test it."""
    fitted = TASKS[data.task].baselines(data.plain)
    return {
        name: evaluate(predictor, data.test)
        for name, predictor in fitted.items()
        if predictor.task == data.task
    }


def baseline_rows(data: CourseData | StudyData) -> dict[str, Row]:
    """Return the row of each baseline, fitted and tested on `data`, by name."""
    task = TASKS[data.task]
    return {
        name: Row.of(predictor.task, evaluate(predictor, data.test))
        for name, predictor in task.baselines(data.plain).items()
    }


def folder_of(run_dir: Path, name: str, seed: int) -> Path:
    """Return the folder for a named network's training run in a run folder."""
    return run_dir / "train" / f"{name.replace('/', '_')}_seed{seed}"


def parameters_of(
    name: str, profile: str, split: str, seed: int, epochs: int, start: str = ""
) -> dict:
    """Return the parameters that determine a run's result, apart from the data."""
    parameters = {
        "name": name,
        "profile": profile,
        "split": split,
        "seed": seed,
        "epochs": epochs,
    }
    return parameters | ({"start": start} if start else {})
