"""Every network of the course by name, with its recipe and its published figure."""

from dataclasses import replace

from helpers.experiments.earlier import REPORTS, stack_by_numbers
from helpers.experiments.profiles import PROFILES, get_profile, known
from helpers.experiments.protocol import Experiment, Published, Sized
from helpers.training.optim import Recipe

# Of the seeds 0 to 7 this one parts the course's photographs so that the constant and the
# table L -> ab have errors nearest to those on the split of the published figures.
DEFAULT_SEED = 4

SMALL = Recipe(num_epochs=0, batch_size=25, lr=2e-2)
WIDE = Recipe(num_epochs=0, batch_size=25, lr=6e-3)
UNET = Recipe(num_epochs=0, batch_size=25, lr=6e-3, weight_decay=0.05)
MUON = Recipe(num_epochs=0, batch_size=25, lr=3e-2, optimizer="muon")
PLAIN_END = replace(MUON, flip_only_end=0.3)
PEOPLE = replace(PLAIN_END, num_epochs=16, lr_end=0.02)
FINAL = replace(PLAIN_END, flip_only_end=0.2, lr_end=0.05)
MEAN = Recipe(num_epochs=0, batch_size=25, lr=1e-2)

REPORT_000 = "report 000, {}, 1000 epochs"
REGRESSOR = Published(1.195e-4, REPORT_000.format("regressor"))
RELU = Published(4.444e-4, REPORT_000.format("ReLU head"))
SIGMOID = Published(4.206e-4, REPORT_000.format("Sigmoid head"))
MAPS = Published(2.739e-4, REPORT_000.format("maps 64 to 512"))


def _regressor(published=REGRESSOR, **options) -> Experiment:
    return Experiment("regressor", options, "regressor", MEAN, published)


def _colorizer(length: str, published=SIGMOID, recipe=SMALL, **options) -> Experiment:
    return Experiment("colorizer", options, length, recipe, published)


def _classifier(lam: float) -> Experiment:
    options = {"base": Sized("unet_base"), "unshuffle": 4, "lam": lam}
    return Experiment("classifier", options, "best", UNET)


def _best(
    recipe: Recipe,
    length="best",
    network="unet",
    base="best_base",
    upscale_maps=0,
    **more,
) -> Experiment:
    options = {
        "base": Sized(base),
        "unshuffle": 4,
        "up_convs": 1,
        "flip_tta": True,
        "upscale_maps": upscale_maps,
    }
    published = REGRESSOR if network == "unet_mean" else MAPS
    return Experiment(network, options, length, recipe, published, fresh=True, **more)


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
    # notebook 08: the number of feature maps, skips
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
    # notebook 08: a regressor and classifiers with one trunk, at a quarter of the size
    "unet/quarter": Experiment(
        "unet", {"base": Sized("unet_base"), "unshuffle": 4}, "best", UNET, MAPS
    ),
    "classifier/plain": _classifier(lam=1.0),
    "classifier/rebalanced": _classifier(lam=0.5),
    # notebook 11: the plain recipe; then the best network, one change after the other
    "best/plain": Experiment(
        "unet",
        {"base": Sized("unet_base")},
        "best",
        UNET,
        MAPS,
        fresh=True,
        scale_brightness=False,
    ),
    "best/adamw": _best(UNET),
    "best/muon": _best(MUON),
    "best/bright": _best(MUON, scale_brightness=False),
    "best/scratch": _best(PLAIN_END, scale_brightness=False),
    # a finer last step, a rate that does not end at 0, more epochs
    "best/upscale": _best(FINAL, "final", upscale_maps=16, scale_brightness=False),
    # the network that ships: the same, its pictures moved in place of cropped
    "best/affine": _best(
        FINAL, "final", upscale_maps=16, scale_brightness=False, random_affine=True
    ),
    "best/mean": _best(PLAIN_END, scale_brightness=False, network="unet_mean"),
    "best/classifier": Experiment(
        "classifier",
        {
            "base": Sized("best_base"),
            "unshuffle": 4,
            "up_convs": 1,
            "lam": 0.5,
            "temperature": 0.38,
        },
        "best",
        PLAIN_END,
        MAPS,
        fresh=True,
        scale_brightness=False,
    ),
    # for people whom it has never seen: small, short, the mean color apart
    "best/people": _best(
        PEOPLE, network="mean_head_unet", base="unet_base", scale_brightness=False
    ),
    **REPORTS,
}


def get_experiment(name: str) -> Experiment:
    """The experiment of this name; raises InputError for another.

    "report003/2,5,16,0.07,tanh" is a network of the ablation study by its numbers.
    """
    study, _, numbers = name.partition("/")
    if study == "report003" and "," in numbers:
        return stack_by_numbers(numbers)
    return EXPERIMENTS[known(name, EXPERIMENTS, "network")]


__all__ = [
    "DEFAULT_SEED",
    "EXPERIMENTS",
    "PROFILES",
    "Experiment",
    "Published",
    "get_experiment",
    "get_profile",
]
