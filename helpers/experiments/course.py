"""The course's data, and the training and testing of a named experiment on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from helpers import nets
from helpers.data.augment import FreshImages, augment_copies
from helpers.data.faces import FaceSet, Split
from helpers.data.lab import LabImages, to_lab_images
from helpers.data.pairs import TABLES, RgbTable, StudyData, StudyEvaluation
from helpers.evaluation.evaluate import Evaluation, evaluate
from helpers.experiments.profiles import Profile
from helpers.experiments.registry import (
    DEFAULT_SEED,
    Experiment,
    Published,
    get_experiment,
)
from helpers.nets.baselines import BASELINES, MeanChrominance
from helpers.training.checkpoint import save_weights
from helpers.training.execution import PLAIN, Execution, set_seed
from helpers.training.loop import History, fit


@dataclass(frozen=True)
class CourseData:
    """The photographs of a run, parted, augmented and converted.

    train  LabImages of the augmented training part: the images, then their copies
    plain  LabImages of the training part as it is
    test   LabImages of the test part, never augmented
    """

    faces: FaceSet
    split: Split
    train: LabImages
    test: LabImages

    @property
    def num_sitters(self) -> int:
        """How many people are on the photographs; 0 where nobody knows."""
        return len(set(self.faces.groups or ()))

    @property
    def plain(self) -> LabImages:
        """The training part without its copies."""
        return self.train[: len(self.split.train)]

    def for_fit(self, experiment: Experiment) -> dict:
        """What `fit` is given: train and test."""
        images = self.faces.images[self.split.train]
        fresh = FreshImages(
            images, experiment.scale_brightness, experiment.random_affine
        )
        return {"train": fresh if experiment.fresh else self.train, "test": self.test}

    def evaluate(self, net) -> Evaluation:
        """Test a network on the test part."""
        return evaluate(net, self.test)

    def names(self, number: int) -> list[str]:
        """The file name of each of `number` training images, copies included."""
        once = [self.faces.names[i] for i in self.split.train]
        return once * (number // len(once))


def course_data(
    faces: FaceSet, split: Split, copies: int, seed: int, scale_brightness: bool = True
) -> CourseData:
    """Augment the training part, convert both parts to Lab.

    `copies` is the size of the augmented set in copies of the training part; where
    `scale_brightness` is false, B, G and R are not scaled. Training images carry the number of
    their sitter where the sitters are known.
    """
    augmented = augment_copies(
        faces.images[split.train], copies, seed, scale_brightness
    )
    train, test = to_lab_images(augmented), to_lab_images(faces.images[split.test])
    if faces.groups:
        sitters = sorted(set(faces.groups))
        number = torch.tensor([sitters.index(faces.groups[i]) for i in split.train])
        train = replace(train, group=number.repeat(copies))
    return CourseData(faces, split, train, test)


@dataclass(frozen=True)
class Trained:
    """An experiment after training: the network, its history, its test."""

    experiment: Experiment
    options: dict
    net: nets.ChrominanceNet
    history: History
    evaluation: Evaluation | StudyEvaluation

    def save(self, path: Path) -> None:
        """Write the weights so that `load_weights` can rebuild the network."""
        save_weights(path, self.net, self.experiment.network, self.options)

    def summary(self) -> str:
        """A line: what the test found."""
        if self.experiment.is_study:
            accuracy, mse = self.evaluation.accuracy, self.evaluation.mse
            return f"validation accuracy within 12 of 255: {accuracy}, MSE {mse}"
        return f"test MSE on scale S: {self.evaluation.mse}"

    def row(self) -> dict:
        """The row of the network in metrics.json and results.md."""
        return network_row(
            self.evaluation,
            task=self.net.task,
            parameters=nets.count_parameters(self.net),
            gflop=nets.count_gflop(self.net),
            epochs=len(self.history["epoch"]),
            seconds=sum(self.history["seconds"]),
            published=self.experiment.published,
        )


def train_experiment(
    name: str,
    data: CourseData | StudyData,
    profile: Profile,
    *,
    num_epochs: int = 0,
    seed: int = DEFAULT_SEED,
    device: str = "cpu",
    tune: Callable[..., Execution] | None = None,
    checkpoint: Path | None = None,
    log: Callable[[str], None] | None = None,
    **more,
) -> Trained:
    """Build, train and test one named network.

    `num_epochs` 0 takes the profile's number. `tune`, for example
    `tuning.choose_execution`, says in which form the steps are computed; plain without it.
    `checkpoint`, `log` and `more` as `fit` has them.
    """
    experiment = get_experiment(name)
    options = experiment.options_for(profile)
    if "num_classes" in options:
        options["num_classes"] = data.num_sitters
    epochs = num_epochs or experiment.epochs_for(profile)
    recipe = replace(experiment.recipe, num_epochs=epochs)
    parts = data.for_fit(experiment)
    set_seed(seed)
    net = nets.build(experiment.network, **options).to(device)
    if experiment.first:
        first = train_experiment(
            experiment.first,
            data,
            profile,
            num_epochs=num_epochs,
            seed=seed,
            device=device,
            tune=tune,
            checkpoint=checkpoint and checkpoint.with_name("first.pt"),
            log=log,
            stop=more.get("stop"),
        )
        net.take(first.net)
    goes_on = checkpoint is not None and checkpoint.exists()
    history = fit(
        net,
        recipe=recipe,
        seed=seed,
        execution=tune(net, parts["train"], recipe) if tune and not goes_on else PLAIN,
        checkpoint=checkpoint,
        names=data.names(len(parts["train"])),
        log=log,
        **parts,
        **more,
    )
    return Trained(experiment, options, net, history, data.evaluate(net))


def network_row(
    evaluation: Evaluation | StudyEvaluation,
    *,
    task: str = "map",
    parameters: int = 0,
    gflop: float = 0.0,
    epochs: int = 0,
    seconds: float = 0.0,
    published: Published | None = None,
) -> dict:
    """One network or baseline for metrics.json.

    `task` is "map", "mean" or, in the study, "rgb"; `gflop` of one picture.
    """
    accuracy = getattr(evaluation, "accuracy", None)
    mean_mse = getattr(evaluation, "mean_mse", None)
    return {
        "task": task,
        "test_mse": vars(evaluation.mse),
        "mean_mse": vars(mean_mse) if mean_mse else None,
        "accuracy": vars(accuracy) if accuracy else None,
        "test_images": len(evaluation.per_image),
        "parameters": parameters,
        "gflop": round(gflop, 4),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "published": vars(published) if published else None,
    }


def evaluate_baselines(data: CourseData) -> dict[str, Evaluation]:
    """Fit every baseline on the training part as it is and test it."""
    return {
        name: evaluate(kind(data.plain), data.test) for name, kind in BASELINES.items()
    }


def baseline_rows(data: CourseData | StudyData) -> dict[str, dict]:
    """The row of each predictor without a network, fitted and tested on these parts."""
    if isinstance(data, StudyData):
        tables = {n: RgbTable(data.train, **options) for n, options in TABLES.items()}
        return {
            name: network_row(data.evaluate(table), task="rgb")
            for name, table in tables.items()
        }
    rows = {name: network_row(e) for name, e in evaluate_baselines(data).items()}
    constant = evaluate(MeanChrominance(data.plain), data.test)
    return rows | {"constant": network_row(constant, task="mean")}
