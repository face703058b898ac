# ruff: noqa: E501  one row per experiment, however long
"""All named experiments of the course, one row each; see EXPERIMENTS.

A row shows the network, its options, the number of epochs in the profiles quick, standard
and full, the learning rate, and the published result that it should reach. `report000` to
`report004` are the networks from the earlier reports. If a report made a mistake, the row
reproduces it, and a second row has the corrected version.
"""

import ast
import inspect
from dataclasses import dataclass, field, replace

from helpers.experiments.profiles import PROFILES, PerProfile, Profile, known
from helpers.files import InputError
from helpers.nets import NETWORKS, build, check_output
from helpers.training.optim import OPTIMIZERS, SCHEDULES, Recipe

# Of the random seeds 0 to 7, this one splits the course's photographs such that the errors
# of the constant and the table L -> ab are closest to those on the published split.
DEFAULT_SEED = 4


@dataclass(frozen=True)
class Published:
    """A result from an earlier report.

    mse       test MSE on scale S; in report 003, of R, G, B in -1..1
    network   the report and the network, and its number of epochs if known
    accuracy  report 003's share of values with an error below 12 of 255, else None
    """

    mse: float
    network: str
    accuracy: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A network and how it is trained.

    network, options  arguments of nets.build; an option may be a PerProfile
    epochs            passes over the training set in the profiles quick, standard, full
    lr ... best       see `Recipe`
    fresh             augment each minibatch on the fly instead of using a fixed set
    copies            size of the fixed set in copies of the training set; 0 uses the profile's
    scale_brightness  whether augmentation scales B, G and R, as the assignment asks
    random_affine     fresh images are zoomed, shifted and rotated with this strength
                      (see `affine_batch`); 0 crops them
    old_photo         whether, in addition, their L* is changed as in old photographs
    pretrained        the experiment that first trains a part of this network, or ""
    mse, accuracy, published_epochs  the report's published results for this network
    compare_with      otherwise, the closest network with a published result
    """

    network: str
    options: dict
    epochs: tuple[int, int, int]
    lr: float
    batch_size: int = 25
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    weight_decay: float = 0.01
    momentum: float = 0.9
    lr_end: float = 0.0
    flip_only_end: float = 0.0
    patience: int = 0
    delta: float = 0.0
    best: str = "mse"
    fresh: bool = False
    copies: int = 0
    scale_brightness: bool = True
    random_affine: float = 0.0
    old_photo: bool = False
    pretrained: str = ""
    mse: float | None = None
    accuracy: float | None = None
    published_epochs: int = 0
    compare_with: str = ""
    task: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "task", NETWORKS[self.network].task)

    def options_for(self, profile: Profile) -> dict:
        """Return a profile's options for nets.build."""
        return {
            name: getattr(value, profile.name)
            if isinstance(value, PerProfile)
            else value
            for name, value in self.options.items()
        }

    def epochs_for(self, profile: Profile) -> int:
        """Return the number of passes over the training set in a profile."""
        return dict(zip(PROFILES, self.epochs, strict=True))[profile.name]

    def copies_for(self, profile: Profile) -> int:
        """Return the size of the fixed set in copies; 1 for on-the-fly augmentation."""
        return 1 if self.fresh else self.copies or profile.copies

    def recipe(self, num_epochs: int) -> Recipe:
        """Return the recipe for `fit` with this number of epochs."""
        names = (
            "batch_size",
            "lr",
            "optimizer",
            "schedule",
            "weight_decay",
            "momentum",
        )
        names += ("patience", "delta", "lr_end", "flip_only_end", "best")
        return Recipe(num_epochs, **{name: getattr(self, name) for name in names})

    @property
    def augmentation(self) -> dict:
        """The options for `CourseData.for_training`."""
        names = ("fresh", "copies", "scale_brightness", "random_affine", "old_photo")
        return {name: getattr(self, name) for name in names}


# What a name may change besides the network's options, as in "unet/quarter,lr=0.01"
SETTINGS = {
    "lr": (lambda x: 0 < x < 10, "a number between 0 and 10"),
    "batch_size": (lambda x: type(x) is int and x >= 1, "a whole number, 1 or more"),
    "optimizer": (lambda x: x in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
    "schedule": (lambda x: x in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "weight_decay": (lambda x: 0 <= x < 1, "a number from 0 to 1"),
    "momentum": (lambda x: 0 <= x < 1, "a number from 0 to 1"),
}

MAX_OPTION = 1024  # feature maps, for example; more would fill the memory

UNET_BASE = PerProfile(8, 16, 32)  # feature maps in the first level
BEST_BASE = PerProfile(8, 32, 32)
WIDE = PerProfile((8, 16, 32, 64), (32, 64, 128, 256), (64, 128, 256, 512))
WIDE_UP = PerProfile((64, 32, 8), (256, 128, 32), (512, 256, 64))
ARCHITECTURE_1 = PerProfile(
    (4, 8, 16, 32, 32, 64), (16, 32, 64, 128, 128, 256), (32, 64, 128, 256, 256, 512)
)
ARCHITECTURE_2 = (8, 16, 32, 64, 128, 256)
PAPER = {"size": PerProfile(64, 128, 224), "width": PerProfile(0.125, 0.25, 1.0)}
QUARTER = {"unshuffle": 4, "up_convs": 1, "flip_tta": True}

# Settings shared by all networks of a report; the rows add epochs and learning rates.
R000 = {
    "batch_size": 100, "optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0,
    "scale_brightness": False,
}  # fmt: skip
# Report 001 does not state the size of its minibatches.
R001 = {"batch_size": 32, "optimizer": "adam", "schedule": "constant", "copies": 2}
R003 = {
    "batch_size": 16, "optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0,
    "momentum": 0.0, "patience": 10, "delta": 5e-5, "best": "accuracy",
}  # fmt: skip
R004 = {"batch_size": 32, "optimizer": "adam", "weight_decay": 0.0, "copies": 1}
UNET = {"weight_decay": 0.05, "compare_with": "report000/maps"}
MUON = {"optimizer": "muon", "fresh": True, "compare_with": "report000/maps"}
BRIGHT = {**MUON, "scale_brightness": False}
E = Experiment

# fmt: off
EXPERIMENTS: dict[str, Experiment] = {
    # name: network, options, epochs (quick, standard, full), learning rate, and the rest
    # Notebook 04
    "regressor/relu": E("regressor", {"head": "relu"}, (10, 32, 100), lr=1e-2, compare_with="report000/regressor"),
    "regressor/batchnorm": E("regressor", {"head": "linear", "batchnorm": True}, (10, 32, 100), lr=1e-2, compare_with="report000/regressor"),
    # Notebook 05: the number of layers, then the head
    "colorizer/n3": E("colorizer", {"num_down": 3, "head": "linear"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "colorizer/n4": E("colorizer", {"num_down": 4, "head": "linear"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "colorizer/n5": E("colorizer", {"num_down": 5, "head": "linear"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "colorizer/n6": E("colorizer", {"num_down": 6, "head": "linear"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "colorizer/relu": E("colorizer", {"num_down": 4, "head": "relu"}, (10, 2, 100), lr=2e-2, compare_with="report000/relu"),
    "colorizer/sigmoid": E("colorizer", {"num_down": 4, "head": "sigmoid"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    # Notebook 07: the chosen colorizer, trained in full
    "colorizer/chosen": E("colorizer", {"num_down": 3, "head": "linear", "maps": 16}, (3, 6, 200), lr=2e-2, compare_with="report000/sigmoid"),
    # Notebook 08: the number of feature maps, skips
    "maps/3": E("colorizer", {"num_down": 4, "head": "linear"}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "maps/8": E("colorizer", {"num_down": 4, "head": "linear", "maps": 8}, (10, 2, 100), lr=2e-2, compare_with="report000/sigmoid"),
    "maps/32": E("colorizer", {"num_down": 4, "head": "linear", "maps": 32}, (10, 2, 100), lr=6e-3, compare_with="report000/maps"),
    "maps/wide": E("colorizer", {"head": "linear", "maps": WIDE}, (2, 2, 100), lr=6e-3, compare_with="report000/maps"),
    "maps/best": E("unet", {"base": UNET_BASE}, (10, 6, 200), lr=6e-3, **UNET),
    # The same network, augmented on the fly
    "unet/fresh": E("unet", {"base": UNET_BASE}, (6, 60, 2000), lr=6e-3, fresh=True, **UNET),
    # Notebook 08: a regressor and two classifiers with one trunk, at a quarter of the size
    "unet/quarter": E("unet", {"base": UNET_BASE, "unshuffle": 4}, (3, 6, 200), lr=6e-3, **UNET),
    "classifier/plain": E("classifier", {"base": UNET_BASE, "unshuffle": 4, "lam": 1.0}, (3, 6, 200), lr=6e-3, weight_decay=0.05),
    "classifier/rebalanced": E("classifier", {"base": UNET_BASE, "unshuffle": 4, "lam": 0.5}, (3, 6, 200), lr=6e-3, weight_decay=0.05),
    # Notebook 11: a plain recipe, then the best network, one change per row
    "best/plain": E("unet", {"base": UNET_BASE}, (6, 60, 2000), lr=6e-3, fresh=True, scale_brightness=False, **UNET),
    "best/adamw": E("unet", {"base": BEST_BASE, **QUARTER}, (6, 60, 2000), lr=6e-3, fresh=True, **UNET),
    "best/muon": E("unet", {"base": BEST_BASE, **QUARTER}, (6, 60, 2000), lr=3e-2, **MUON),
    "best/bright": E("unet", {"base": BEST_BASE, **QUARTER}, (6, 60, 2000), lr=3e-2, **BRIGHT),
    "best/scratch": E("unet", {"base": BEST_BASE, **QUARTER}, (6, 60, 2000), lr=3e-2, flip_only_end=0.3, **BRIGHT),
    # A map of half the size, a learning rate that does not end at 0, more epochs
    "best/upscale": E("unet", {"base": BEST_BASE, **QUARTER, "upscale_maps": 16}, (6, 240, 240), lr=3e-2, lr_end=0.05, flip_only_end=0.2, **BRIGHT),
    # weights/colorizer: the same, with random affine transforms instead of crops
    "best/affine": E("unet", {"base": BEST_BASE, **QUARTER, "upscale_maps": 16}, (6, 240, 240), lr=3e-2, lr_end=0.05, flip_only_end=0.2, random_affine=1.0, **BRIGHT),
    # Twice as many epochs, stronger transforms
    "best/long": E("unet", {"base": BEST_BASE, **QUARTER, "upscale_maps": 16}, (6, 480, 480), lr=3e-2, lr_end=0.05, flip_only_end=0.2, random_affine=4 / 3, **BRIGHT),
    "best/mean": E("unet_mean", {"base": BEST_BASE, **QUARTER}, (6, 60, 2000), lr=3e-2, flip_only_end=0.3, **BRIGHT | {"compare_with": "report000/regressor"}),
    "best/classifier": E("classifier", {"base": BEST_BASE, "unshuffle": 4, "up_convs": 1, "lam": 0.5, "temperature": 0.38}, (6, 60, 2000), lr=3e-2, flip_only_end=0.3, **BRIGHT),
    # For people the network has not seen: small, few epochs, the mean color predicted apart
    "best/people": E("mean_head_unet", {"base": UNET_BASE, **QUARTER}, (6, 16, 16), lr=3e-2, lr_end=0.02, flip_only_end=0.3, **BRIGHT),
    # weights/portrait: for any photograph; accepts color hints
    "portrait": E("hinted_unet", {"base": BEST_BASE, **QUARTER, "upscale_maps": 16}, (6, 30, 30), lr=3e-2, lr_end=0.02, flip_only_end=0.2, weight_decay=0.02, random_affine=1.0, old_photo=True, **BRIGHT),
    # The same without hint planes, and as a classifier: what hints cost, what regression averages away
    "portrait/plain": E("unet", {"base": BEST_BASE, **QUARTER, "upscale_maps": 16}, (6, 8, 8), lr=3e-2, lr_end=0.02, flip_only_end=0.2, weight_decay=0.02, random_affine=1.0, old_photo=True, **BRIGHT),
    "portrait/classifier": E("classifier", {"base": BEST_BASE, "unshuffle": 4, "up_convs": 1, "lam": 0.5, "temperature": 0.38}, (6, 8, 8), lr=3e-2, lr_end=0.02, flip_only_end=0.2, weight_decay=0.02, random_affine=1.0, old_photo=True, **BRIGHT),
    # Report 000, notebooks 04, 05 and 08
    "report000/regressor": E("pooled_regressor", {}, (10, 10, 1000), lr=0.1, mse=1.195e-4, published_epochs=1000, **R000),
    "report000/relu": E("pooled_colorizer", {"head": "relu"}, (10, 10, 1000), lr=0.1, mse=4.444e-4, published_epochs=1000, **R000),
    "report000/sigmoid": E("pooled_colorizer", {"head": "sigmoid"}, (10, 10, 1000), lr=0.1, mse=4.206e-4, published_epochs=1000, **R000),
    "report000/tanh": E("pooled_colorizer", {"head": "tanh", "labels": "sigmoid"}, (10, 10, 1000), lr=0.1, mse=1.688e-3, published_epochs=1000, **R000),
    "report000/maps": E("pooled_colorizer", {"head": "sigmoid", "maps": WIDE, "up_maps": WIDE_UP}, (1, 1, 1000), lr=0.1, mse=2.739e-4, published_epochs=1000, **R000),
    "report000/guided": E("guided_colorizer", {}, (10, 10, 1000), lr=0.1, mse=3.797e-4, published_epochs=1000, pretrained="report000/regressor", **R000),
    # Corrected: labels in -1..1; B, G, R scaled as the assignment asks
    "report000/tanh-rescaled": E("pooled_colorizer", {"head": "tanh"}, (10, 10, 1000), lr=0.1, **R000),
    "report000/sigmoid-darkened": E("pooled_colorizer", {"head": "sigmoid"}, (10, 10, 1000), lr=0.1, **R000 | {"scale_brightness": True}),
    # The same layers with the course's optimizer, in far fewer epochs
    "report000/regressor-onecycle": E("pooled_regressor", {}, (10, 32, 100), lr=2e-2, compare_with="report000/regressor"),
    "report000/sigmoid-onecycle": E("pooled_colorizer", {"head": "sigmoid"}, (10, 10, 200), lr=2e-2, compare_with="report000/sigmoid"),
    # Report 001, notebooks 04 and 05
    "report001/regressor-1": E("strided_regressor", {"maps": ARCHITECTURE_1}, (2, 4, 100), lr=5e-3, weight_decay=1e-7, mse=1.524e-4, published_epochs=100, **R001),
    "report001/regressor-2": E("strided_regressor", {"maps": ARCHITECTURE_1}, (2, 4, 400), lr=1e-4, weight_decay=1e-5, mse=1.135e-4, published_epochs=400, **R001),
    "report001/small-regressor": E("strided_regressor", {"maps": ARCHITECTURE_2}, (2, 4, 50), lr=5e-3, weight_decay=1e-7, mse=1.555e-4, published_epochs=50, **R001),
    "report001/sigmoid": E("strided_colorizer", {"maps": ARCHITECTURE_1}, (1, 4, 100), lr=5e-3, weight_decay=1e-7, **R001),
    "report001/tanh": E("strided_colorizer", {"maps": ARCHITECTURE_1, "head": "tanh"}, (1, 4, 100), lr=5e-3, weight_decay=1e-7, **R001),
    "report001/small-sigmoid": E("strided_colorizer", {"maps": ARCHITECTURE_2}, (2, 4, 50), lr=5e-3, weight_decay=1e-7, **R001),
    "report001/small-tanh": E("strided_colorizer", {"maps": ARCHITECTURE_2, "head": "tanh"}, (2, 4, 50), lr=5e-3, weight_decay=1e-7, **R001),
    # Report 003, notebook 09
    "report003/default": E("stack", {"layers": 2, "kernel": 5, "maps": 4}, (3, 8, 100), lr=0.007, mse=0.01052, accuracy=0.71211, published_epochs=65, **R003),
    "report003/layers-4": E("stack", {"layers": 4, "kernel": 5, "maps": 4}, (3, 8, 100), lr=0.007, mse=0.01008, accuracy=0.71619, published_epochs=98, **R003),
    "report003/kernel-3": E("stack", {"layers": 2, "kernel": 3, "maps": 4}, (3, 8, 100), lr=0.007, mse=0.01067, accuracy=0.70657, published_epochs=41, **R003),
    "report003/maps-8": E("stack", {"layers": 2, "kernel": 5, "maps": 8}, (3, 8, 100), lr=0.007, mse=0.01012, accuracy=0.72307, published_epochs=49, **R003),
    "report003/lr-0.07": E("stack", {"layers": 2, "kernel": 5, "maps": 4}, (3, 8, 100), lr=0.07, mse=0.00837, accuracy=0.75520, published_epochs=100, **R003),
    "report003/lr-0.0007": E("stack", {"layers": 2, "kernel": 5, "maps": 4}, (3, 8, 100), lr=0.0007, mse=0.01535, accuracy=0.63207, published_epochs=80, **R003),
    "report003/lr-0.0001": E("stack", {"layers": 2, "kernel": 5, "maps": 4}, (3, 8, 100), lr=0.0001, mse=0.02219, accuracy=0.51590, **R003),
    "report003/preferred": E("stack", {"layers": 2, "kernel": 5, "maps": 8}, (3, 8, 100), lr=0.07, mse=0.00838, accuracy=0.75580, published_epochs=51, **R003),
    "report003/batchnorm": E("stack", {"layers": 2, "kernel": 5, "maps": 8, "batchnorm": "everywhere"}, (3, 8, 100), lr=0.07, mse=0.01235, accuracy=0.64015, published_epochs=93, **R003),
    "report003/tanh": E("stack", {"layers": 2, "kernel": 5, "maps": 8, "tanh": True}, (3, 8, 100), lr=0.07, mse=0.00840, accuracy=0.75435, published_epochs=100, **R003),
    "report003/batchnorm-tanh": E("stack", {"layers": 2, "kernel": 5, "maps": 8, "batchnorm": "everywhere", "tanh": True}, (3, 8, 100), lr=0.07, mse=0.01249, accuracy=0.63520, published_epochs=98, **R003),
    "report003/best": E("stack", {"layers": 2, "kernel": 5, "maps": 16, "tanh": True}, (3, 8, 100), lr=0.07, mse=0.00829, accuracy=0.75830, published_epochs=94, **R003),
    "report003/unet": E("flat_unet", {}, (3, 8, 100), lr=0.07, mse=0.00807, accuracy=0.76582, published_epochs=87, **R003),
    "report003/weird-net": E("weird_net", {}, (3, 8, 100), lr=0.07, mse=0.00822, accuracy=0.76142, published_epochs=99, **R003),
    # Corrected: BatchNorm after the hidden layers only, in evaluation mode for tests
    "report003/batchnorm-hidden": E("stack", {"layers": 2, "kernel": 5, "maps": 8, "batchnorm": "hidden"}, (3, 8, 100), lr=0.07, **R003),
    # Report 004, notebook 10; num_classes 0 stands for the number of sitters
    "report004/basic": E("global_local", {**PAPER, "global_net": "none"}, (4, 4, 100), lr=1e-3, **R004),
    "report004/full": E("global_local", {**PAPER, "global_net": "paper"}, (4, 4, 100), lr=1e-3, **R004),
    "report004/full-small": E("global_local", {**PAPER, "global_net": "small"}, (4, 4, 100), lr=1e-3, **R004),
    "report004/full-classes": E("global_local", {**PAPER, "global_net": "paper", "num_classes": 0}, (4, 4, 100), lr=1e-3, **R004),
    # At the size of the photographs
    "report004/basic-128": E("global_local", {**PAPER, "size": 128, "global_net": "none"}, (4, 4, 100), lr=1e-3, **R004),
    "report004/full-128": E("global_local", {**PAPER, "size": 128, "global_net": "paper"}, (4, 4, 100), lr=1e-3, **R004),
}
# fmt: on


def get_experiment(name: str) -> Experiment:
    """Return the experiment of this name; raise InputError for an unknown name.

    "report003/2,5,16,0.07,tanh" is a network of the ablation study given by its settings;
    "colorizer/n4,maps=8,lr=0.01" is colorizer/n4 with two settings changed.
    """
    first, *settings = name.split(",")
    report, _, numbers = name.partition("/")
    if any("=" in setting for setting in settings):
        return with_settings(first, *settings)
    if report == "report003" and "," in numbers:
        return stack_by_numbers(numbers)
    return EXPERIMENTS[known(name, EXPERIMENTS, "network")]


def published(name: str) -> Published | None:
    """Return the published result that an experiment is compared with, or None."""
    experiment = get_experiment(name)
    name = experiment.compare_with or name
    experiment = get_experiment(name)
    if experiment.mse is None:
        return None
    epochs = experiment.published_epochs
    words = f"{name}, {epochs} epochs" if epochs else name
    return Published(experiment.mse, words, experiment.accuracy)


def with_settings(name: str, *settings: str) -> Experiment:
    """Return an experiment with changed settings, each "NAME=VALUE".

    A setting is an option of the network, or one of `SETTINGS`. Raises InputError for an
    unknown setting, or a value that the network refuses or cannot compute with.
    """
    experiment = get_experiment(name)
    options, fields = dict(experiment.options), {}
    allowed = [*inspect.signature(NETWORKS[experiment.network]).parameters, *SETTINGS]
    for setting in settings:
        key, _, text = setting.partition("=")
        known(key, allowed, f"setting of {name}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text  # a word, such as tanh
        (fields if key in SETTINGS else options)[key] = value
        is_number = isinstance(value, int | float)
        if key not in SETTINGS and is_number and value > MAX_OPTION:
            raise InputError(f"{name},{setting}: at most {MAX_OPTION}")
        if key in SETTINGS and not _is_allowed(key, value):
            raise InputError(f"{name},{setting}: {key} must be {SETTINGS[key][1]}")
    try:
        changed = replace(
            experiment, options=options, compare_with="", mse=None, **fields
        )
        net = build(changed.network, **changed.options_for(PROFILES["quick"]))
        check_output(net)
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name}, {', '.join(settings)}: {reason}") from error
    uses_momentum = changed.optimizer == "sgd" and changed.schedule == "constant"
    if "momentum" in fields and not uses_momentum:
        raise InputError(
            f"{name}, momentum: only with optimizer=sgd and schedule=constant; onecycle "
            "sets the momentum itself"
        )
    return changed


def _is_allowed(key: str, value) -> bool:
    try:
        return bool(SETTINGS[key][0](value))
    except (TypeError, ValueError):  # a word where a number belongs
        return False


def stack_by_numbers(text: str) -> Experiment:
    """Return a stack of the ablation study from "layers,kernel,maps,lr" and options.

    Options are "batchnorm" (everywhere), "batchnorm-hidden" and "tanh", for example
    "2,5,16,0.07,tanh". Raises InputError for anything else.
    """
    numbers, words = text.split(",")[:4], text.split(",")[4:]
    choices = {
        "batchnorm": {"batchnorm": "everywhere"},
        "batchnorm-hidden": {"batchnorm": "hidden"},
        "tanh": {"tanh": True},
    }
    try:
        layers, kernel, maps = map(int, numbers[:3])
        lr, options = float(numbers[3]), {}
        for word in words:
            options |= choices[word]
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"report003/{text}: write report003/LAYERS,KERNEL,MAPS,RATE, optionally "
            "followed by ,tanh or ,batchnorm; for example report003/2,5,16,0.07,tanh"
        ) from error
    if min(layers, kernel, maps) < 1 or kernel % 2 == 0 or not 0 < lr < 10:
        raise InputError(
            f"report003/{text}: use at least 1 layer and 1 map, an odd kernel, and a "
            "learning rate between 0 and 10"
        )
    options |= {"layers": layers, "kernel": kernel, "maps": maps}
    return Experiment("stack", options, (3, 8, 100), lr, **R003)
