"""One named network as a plain process: `deepcolor train`, SLURM, torchrun."""

import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from helpers.data.faces import load_faces, split_faces
from helpers.data.pairs import load_study
from helpers.experiments.course import (
    Trained,
    baseline_rows,
    course_data,
    train_experiment,
)
from helpers.experiments.registry import DEFAULT_SEED, get_experiment, get_profile
from helpers.experiments.run_folder import default_run_dir, describe_data, environment
from helpers.files import write_json
from helpers.training import distributed as processes
from helpers.training.autotune import choose_execution
from helpers.training.execution import choose_device
from helpers.training.signals import StopSignals
from helpers.training.tensorboard import TensorBoardLogger


def train_one(
    name: str,
    *,
    profile: str = "quick",
    images: str = "",
    split: str = "random",
    seed: int = DEFAULT_SEED,
    device: str = "auto",
    epochs: int = 0,
    run_dir: str = "",
    plain: bool = False,
    without: Collection[str] = (),
    tensorboard: bool = False,
    log: Callable[[str], None] = print,
) -> Trained:
    """Train a network of `experiments.EXPERIMENTS`, save its weights and its figures.

    plain    compute the steps in plain PyTorch; else in the form that is measured to be
             the fastest, `without` the tricks named there (`tuning.TRICKS`)
    returns  the trained network; <run folder>/train/<name>/ holds weights.safetensors,
             metrics.json (written last), checkpoint.pt, and asked.json (written first)

    The same call goes on where it was stopped. Raises KeyboardInterrupt after Ctrl-C,
    when the checkpoint is written, and InputError and WorkFailed as `fit` does.
    """
    experiment, row = get_experiment(name), get_profile(profile)
    device = processes.join(choose_device(device))
    if processes.rank():
        log = _silence
    if experiment.is_study:
        size, max_images = row.study_size, row.study_images
        data = load_study(images, by=split, seed=seed, max_images=max_images, size=size)
    else:
        faces = load_faces(images)
        parts = split_faces(faces, by=split, seed=seed, max_images=row.max_images)
        copies = experiment.copies_for(row)
        data = course_data(faces, parts, copies, seed, experiment.scale_brightness)
    log(data.faces.describe())
    folder = folder_of(default_run_dir(profile, run_dir), name)
    epochs = epochs or experiment.epochs_for(row)
    asked = parameters_of(name, profile, split, seed, epochs)
    if processes.rank() == 0:  # a folder that cannot be written to is found out now
        write_json(folder / "asked.json", asked)
    tuned = not plain and processes.count() == 1
    board, stop = None, StopSignals()
    if tensorboard and processes.rank() == 0:
        place, batch_size = folder / "tensorboard", experiment.recipe.batch_size
        board = TensorBoardLogger(place, data.for_fit(experiment), batch_size)
    trained = train_experiment(
        name,
        data,
        row,
        num_epochs=epochs,
        seed=seed,
        device=device,
        tune=partial(choose_execution, without=without, log=log) if tuned else None,
        checkpoint=folder / "checkpoint.pt",
        log=log,
        after_epoch=board,
        stop=stop,
    )
    if stop.received:
        raise KeyboardInterrupt
    if processes.rank() == 0:
        trained.save(folder / "weights.safetensors")
        content = {
            "parameters": asked,
            "data": describe_data(data.faces, data.split),
            "networks": {name: trained.row()},
            "baselines": baseline_rows(data),
            "environment": environment(),
            "finished": time.strftime("%Y-%m-%d"),
            "history": trained.history,
        }
        write_json(folder / "metrics.json", content)
    log(trained.summary())
    log(f"wrote {folder / 'weights.safetensors'}")
    processes.leave()
    return trained


def folder_of(run_dir: Path, name: str) -> Path:
    """Where a named network's training lies in a run folder."""
    return run_dir / "train" / name.replace("/", "_")


def parameters_of(name: str, profile: str, split: str, seed: int, epochs: int) -> dict:
    """What, beside the data, decides a training's result; as metrics.json holds it."""
    return {
        "name": name,
        "profile": profile,
        "split": split,
        "seed": seed,
        "epochs": epochs,
    }


def _silence(line: str) -> None:
    """The log of the processes that are not the first."""
