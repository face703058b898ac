"""Every network of the course by name, with its recipe and its published figure."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import nets
from helpers.augment import FreshImages, augment_copies
from helpers.baselines import BASELINES
from helpers.checkpoint import save_weights
from helpers.evaluation import Evaluation, evaluate
from helpers.execution import PLAIN, Execution, set_seed
from helpers.faces import FaceSet, Split
from helpers.files import InputError
from helpers.lab import LabImages, to_lab_images
from helpers.recipe import Recipe
from helpers.training import History, fit

# Of the seeds 0 to 7 this one parts the course's photographs so that the constant and the
# table L -> ab have errors nearest to those on the split of the published figures.
DEFAULT_SEED = 4


@dataclass(frozen=True)
class Profile:
    """One row of numbers: how long each part of the course trains.

    copies     size of the augmented training set, in copies of the training part
    regressor, explore, batchnorm, colorizer, extra  epochs in notebooks 04 to 08
    best       epochs of the U-Net of notebook 08
    wide_maps  feature maps of notebook 08's large colorizer, from the first layer down
    unet_base  feature maps of the U-Net's first level
    """

    copies: int
    regressor: int
    explore: int
    batchnorm: int
    colorizer: int
    extra: int
    best: int
    wide_maps: tuple[int, ...]
    unet_base: int


PROFILES = {
    "quick": Profile(
        copies=2, regressor=8, explore=2, batchnorm=2, colorizer=4, extra=2, best=3,
        wide_maps=(8, 16, 32, 64), unet_base=8,
    ),
    "standard": Profile(
        copies=10, regressor=32, explore=2, batchnorm=3, colorizer=6, extra=2, best=6,
        wide_maps=(32, 64, 128, 256), unet_base=16,
    ),
    "full": Profile(
        copies=10, regressor=100, explore=100, batchnorm=20, colorizer=200, extra=100,
        best=200, wide_maps=(64, 128, 256, 512), unet_base=32,
    ),
}  # fmt: skip


def get_profile(name: str) -> Profile:
    """The profile of this name; raises InputError for another."""
    return PROFILES[_known(name, PROFILES, "profile")]


@dataclass(frozen=True)
class Published:
    """A figure of an earlier report: test MSE on scale S, and which network had it."""

    mse: float
    network: str


@dataclass(frozen=True)
class Sized:
    """An option of a network that the profile decides, by the field's name."""

    field: str


@dataclass(frozen=True)
class Experiment:
    """A network with its recipe.

    network, options  what nets.build takes
    length            the field of Profile that holds its number of epochs
    recipe            everything else about its training
    published         the nearest figure of an earlier report, or None
    fresh             augment anew in each epoch, in place of the fixed set; as many images
                      are seen
    """

    network: str
    options: dict
    length: str
    recipe: Recipe
    published: Published | None = None
    fresh: bool = False

    def options_for(self, profile: Profile) -> dict:
        """The options of nets.build in a profile."""
        return {
            name: getattr(profile, value.field) if isinstance(value, Sized) else value
            for name, value in self.options.items()
        }

    def epochs_for(self, profile: Profile) -> int:
        """Passes over the training images that a profile asks for."""
        return getattr(profile, self.length) * (profile.copies if self.fresh else 1)


SMALL = Recipe(num_epochs=0, batch_size=25, lr=2e-2)
WIDE = Recipe(num_epochs=0, batch_size=25, lr=6e-3)
UNET = Recipe(num_epochs=0, batch_size=25, lr=6e-3, weight_decay=0.05)
MEAN = Recipe(num_epochs=0, batch_size=25, lr=1e-2)

REPORT_000 = "report 000, {}, 1000 epochs"
REGRESSOR = Published(1.195e-4, REPORT_000.format("regressor"))
RELU = Published(4.444e-4, REPORT_000.format("ReLU head"))
SIGMOID = Published(4.206e-4, REPORT_000.format("Sigmoid head"))
TANH = Published(1.688e-3, REPORT_000.format("Tanh head, labels in [0, 1]"))
MAPS = Published(2.739e-4, REPORT_000.format("maps 64 to 512"))


def _regressor(published=REGRESSOR, **options) -> Experiment:
    return Experiment("regressor", options, "regressor", MEAN, published)


def _colorizer(length: str, published=SIGMOID, recipe=SMALL, **options) -> Experiment:
    return Experiment("colorizer", options, length, recipe, published)


EXPERIMENTS: dict[str, Experiment] = {
    # notebook 04
    "regressor/relu": _regressor(head="relu"),
    "regressor/batchnorm": _regressor(head="linear", batchnorm=True),
    # notebook 05: the number of layers, then the head
    "colorizer/n3": _colorizer("explore", num_down=3, head="linear"),
    "colorizer/n4": _colorizer("explore", num_down=4, head="linear"),
    "colorizer/n5": _colorizer("explore", num_down=5, head="linear"),
    "colorizer/n6": _colorizer("explore", num_down=6, head="linear"),
    "colorizer/relu": _colorizer("explore", RELU, num_down=4, head="relu"),
    "colorizer/sigmoid": _colorizer("explore", SIGMOID, num_down=4, head="sigmoid"),
    # notebook 07: the chosen colorizer, trained in full
    "colorizer/chosen": _colorizer("colorizer", num_down=3, head="linear", maps=16),
    # notebook 08: Tanh, the number of feature maps, skips
    "tanh/labels-rescaled": _colorizer("extra", TANH, num_down=4, head="tanh"),
    "tanh/labels-in-0-1": _colorizer(
        "extra", TANH, num_down=4, head="tanh", labels="sigmoid"
    ),
    "maps/3": _colorizer("extra", num_down=4, head="linear"),
    "maps/8": _colorizer("extra", num_down=4, head="linear", maps=8),
    "maps/32": _colorizer("extra", MAPS, WIDE, num_down=4, head="linear", maps=32),
    "maps/wide": _colorizer(
        "extra", MAPS, WIDE, head="linear", maps=Sized("wide_maps")
    ),
    "maps/best": Experiment("unet", {"base": Sized("unet_base")}, "best", UNET, MAPS),
    # the same, augmented anew in each epoch
    "unet/fresh": Experiment(
        "unet", {"base": Sized("unet_base")}, "best", UNET, MAPS, fresh=True
    ),
}


def get_experiment(name: str) -> Experiment:
    """The experiment of this name; raises InputError for another."""
    return EXPERIMENTS[_known(name, EXPERIMENTS, "network")]


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
    def plain(self) -> LabImages:
        """The training part without its copies."""
        return self.train[: len(self.split.train)]

    @property
    def fresh(self) -> FreshImages:
        """The training part, to be augmented anew in each epoch."""
        return FreshImages(self.faces.images[self.split.train])

    def names(self, number: int) -> list[str]:
        """The file name of each of `number` training images, copies included."""
        once = [self.faces.names[i] for i in self.split.train]
        return once * (number // len(once))


def course_data(faces: FaceSet, split: Split, copies: int, seed: int) -> CourseData:
    """Augment the training part, convert both parts to Lab.

    `copies` is the size of the augmented set in copies of the training part.
    """
    train = augment_copies(faces.images[split.train], copies, seed)
    test = faces.images[split.test]
    return CourseData(faces, split, to_lab_images(train), to_lab_images(test))


@dataclass(frozen=True)
class Trained:
    """An experiment after training: the network, its history, its test."""

    experiment: Experiment
    options: dict
    net: nets.ChrominanceNet
    history: History
    evaluation: Evaluation

    def save(self, path: Path) -> None:
        """Write the weights so that `load_weights` can rebuild the network."""
        save_weights(path, self.net, self.experiment.network, self.options)

    def row(self) -> dict:
        """The row of the network in metrics.json and results.md."""
        return network_row(
            self.evaluation,
            predicts="mean" if self.experiment.network == "regressor" else "map",
            parameters=nets.count_parameters(self.net),
            epochs=len(self.history["epoch"]),
            seconds=sum(self.history["seconds"]),
            published=self.experiment.published,
        )


def train_experiment(
    name: str,
    data: CourseData,
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
    epochs = num_epochs or experiment.epochs_for(profile)
    recipe = replace(experiment.recipe, num_epochs=epochs)
    train = data.fresh if experiment.fresh else data.train
    set_seed(seed)
    net = nets.build(experiment.network, **options).to(device)
    goes_on = checkpoint is not None and checkpoint.exists()
    history = fit(
        net,
        train,
        data.test,
        recipe=recipe,
        seed=seed,
        execution=tune(net, train, recipe) if tune and not goes_on else PLAIN,
        checkpoint=checkpoint,
        names=data.names(len(train)),
        log=log,
        **more,
    )
    return Trained(experiment, options, net, history, evaluate(net, data.test))


def network_row(
    evaluation: Evaluation,
    *,
    predicts: str = "map",
    parameters: int = 0,
    epochs: int = 0,
    seconds: float = 0.0,
    published: Published | None = None,
) -> dict:
    """One network or baseline for metrics.json; `predicts` is "map" or "mean"."""
    return {
        "predicts": predicts,
        "test_mse": vars(evaluation.mse),
        "test_images": len(evaluation.per_image),
        "parameters": parameters,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "published": vars(published) if published else None,
    }


def measure_baselines(data: CourseData) -> dict[str, Evaluation]:
    """Fit every baseline on the training part as it is and test it."""
    return {
        name: evaluate(kind(data.plain), data.test) for name, kind in BASELINES.items()
    }


def _known(name: str, known: Iterable[str], what: str) -> str:
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"
    raise InputError(f"{what} {name!r}: unknown; {hint}")
