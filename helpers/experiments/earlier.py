"""The earlier reports' networks, each with its protocol and its published figure.

`report000` to `report004` are the reports. A mistake of a report is built as it was, and
beside it as it should have been; the notebooks show the difference.
"""

from helpers.experiments.protocol import Experiment, Published, Sized
from helpers.files import InputError
from helpers.training.optim import Recipe

RECIPE_000 = Recipe(
    1000, batch_size=100, lr=0.1, optimizer="sgd", schedule="constant", weight_decay=0.0
)
# Report 001's cases of hyper-parameters; it does not tell its minibatch.
CASE_1 = Recipe(100, 32, 5e-3, "adam", "constant", weight_decay=1e-7)
CASE_2 = Recipe(400, 32, 1e-4, "adam", "constant", weight_decay=1e-5)
CASE_SMALL = Recipe(50, 32, 5e-3, "adam", "constant", weight_decay=1e-7)
COURSE_RECIPE = Recipe(0, batch_size=25, lr=2e-2)  # AdamW and OneCycle
RECIPE_004 = Recipe(0, 32, 1e-3, "adam", "onecycle", weight_decay=0.0)


def _study_recipe(lr: float) -> Recipe:
    return Recipe(
        100, 16, lr, "sgd", "constant", weight_decay=0.0, momentum=0.0,
        patience=10, delta=5e-5, best="accuracy",
    )  # fmt: skip


def _000(
    network: str,
    mse: float | None = None,
    *,
    scale_brightness=False,
    first="",
    **options,
):
    published = Published(mse, "report 000, 1000 epochs") if mse else None
    return Experiment(network, options, "report_000", RECIPE_000, published,
                      scale_brightness=scale_brightness, first=first)  # fmt: skip


def _001(network: str, recipe: Recipe, mse: float | None = None, **options):
    words = f"report 001, {recipe.num_epochs} epochs"
    published = Published(mse, words) if mse else None
    return Experiment(network, options, "report_001", recipe, published, copies=2)


def _stack(
    layers: int, kernel: int, maps: int, lr: float, mse=None, accuracy=None,
    epochs: int = 0, batchnorm: str = "", tanh: bool = False,
) -> Experiment:  # fmt: skip
    """A line of report 003's table."""
    options = {"layers": layers, "kernel": kernel, "maps": maps}
    options |= {"batchnorm": batchnorm, "tanh": tanh}
    words = f"report 003, {epochs} epochs" if epochs else "report 003"
    published = Published(mse, words, accuracy) if mse else None
    return Experiment("stack", options, "report_003", _study_recipe(lr), published,
                      is_study=True)  # fmt: skip


def _003(network: str, mse: float, accuracy: float, epochs: int) -> Experiment:
    published = Published(mse, f"report 003, {epochs} epochs", accuracy)
    return Experiment(network, {}, "report_003", _study_recipe(0.07), published,
                      is_study=True)  # fmt: skip


def _004(global_net: str, **more) -> Experiment:
    options = {"size": Sized("global_size"), "width": Sized("global_width")}
    options |= {"global_net": global_net, **more}
    return Experiment("global_local", options, "report_004", RECIPE_004, copies=1)


REGRESSOR_000 = Published(1.195e-4, "report 000, 1000 epochs")
SIGMOID_000 = Published(4.206e-4, "report 000, 1000 epochs")
WIDE = {"maps": Sized("wide_maps"), "up_maps": Sized("wide_up_maps")}
ARCHITECTURE_1 = {"maps": Sized("strided_maps")}
ARCHITECTURE_2 = {"maps": (8, 16, 32, 64, 128, 256)}

REPORTS: dict[str, Experiment] = {
    # report 000, notebooks 04, 05 and 08
    "report000/regressor": _000("pooled_regressor", 1.195e-4),
    "report000/relu": _000("pooled_colorizer", 4.444e-4, head="relu"),
    "report000/sigmoid": _000("pooled_colorizer", 4.206e-4, head="sigmoid"),
    "report000/tanh": _000("pooled_colorizer", 1.688e-3, head="tanh", labels="sigmoid"),
    "report000/maps": _000("pooled_colorizer", 2.739e-4, head="sigmoid", **WIDE),
    "report000/guided": _000("guided_colorizer", 3.797e-4, first="report000/regressor"),
    # as it should have been: labels in -1..1; R, G, B scaled as the assignment asks
    "report000/tanh-rescaled": _000("pooled_colorizer", head="tanh"),
    "report000/sigmoid-darkened": _000(
        "pooled_colorizer", head="sigmoid", scale_brightness=True
    ),
    # the same layers with the course's recipe, which needs a hundredth of the epochs
    "report000/regressor-onecycle": Experiment(
        "pooled_regressor", {}, "regressor", COURSE_RECIPE, REGRESSOR_000
    ),
    "report000/sigmoid-onecycle": Experiment(
        "pooled_colorizer", {"head": "sigmoid"}, "colorizer", COURSE_RECIPE, SIGMOID_000
    ),
    # report 001, notebooks 04 and 05
    "report001/regressor-1": _001(
        "strided_regressor", CASE_1, 1.524e-4, **ARCHITECTURE_1
    ),
    "report001/regressor-2": _001(
        "strided_regressor", CASE_2, 1.135e-4, **ARCHITECTURE_1
    ),
    "report001/small-regressor": _001(
        "strided_regressor", CASE_SMALL, 1.555e-4, **ARCHITECTURE_2
    ),
    "report001/sigmoid": _001("strided_colorizer", CASE_1, **ARCHITECTURE_1),
    "report001/tanh": _001("strided_colorizer", CASE_1, head="tanh", **ARCHITECTURE_1),
    "report001/small-sigmoid": _001("strided_colorizer", CASE_SMALL, **ARCHITECTURE_2),
    "report001/small-tanh": _001(
        "strided_colorizer", CASE_SMALL, head="tanh", **ARCHITECTURE_2
    ),
    # report 003, notebook 09
    "report003/default": _stack(2, 5, 4, 0.007, 0.01052, 0.71211, 65),
    "report003/layers-4": _stack(4, 5, 4, 0.007, 0.01008, 0.71619, 98),
    "report003/kernel-3": _stack(2, 3, 4, 0.007, 0.01067, 0.70657, 41),
    "report003/maps-8": _stack(2, 5, 8, 0.007, 0.01012, 0.72307, 49),
    "report003/lr-0.07": _stack(2, 5, 4, 0.07, 0.00837, 0.75520, 100),
    "report003/lr-0.0007": _stack(2, 5, 4, 0.0007, 0.01535, 0.63207, 80),
    "report003/lr-0.0001": _stack(2, 5, 4, 0.0001, 0.02219, 0.51590),
    "report003/preferred": _stack(2, 5, 8, 0.07, 0.00838, 0.75580, 51),
    "report003/batchnorm": _stack(2, 5, 8, 0.07, 0.01235, 0.64015, 93, "everywhere"),
    "report003/tanh": _stack(2, 5, 8, 0.07, 0.00840, 0.75435, 100, tanh=True),
    "report003/batchnorm-tanh": _stack(
        2, 5, 8, 0.07, 0.01249, 0.63520, 98, "everywhere", tanh=True
    ),
    "report003/best": _stack(2, 5, 16, 0.07, 0.00829, 0.75830, 94, tanh=True),
    "report003/unet": _003("flat_unet", 0.00807, 0.76582, 87),
    "report003/weird-net": _003("weird_net", 0.00822, 0.76142, 99),
    # BatchNorm as it should have been
    "report003/batchnorm-hidden": _stack(2, 5, 8, 0.07, batchnorm="hidden"),
    # report 004, notebook 10
    "report004/basic": _004("none"),
    "report004/full": _004("paper"),
    "report004/full-small": _004("small"),
    "report004/full-classes": _004("paper", num_classes=0),  # the number of the sitters
    # at the size of the photographs
    "report004/basic-128": _004("none", size=128),
    "report004/full-128": _004("paper", size=128),
}


def stack_by_numbers(text: str) -> Experiment:
    """A stack of the study by its numbers: "layers,kernel,maps,lr" and options.

    Options are "batchnorm" (everywhere), "batchnorm-hidden" and "tanh", for example
    "2,5,16,0.07,tanh". Raises InputError for anything else.
    """
    numbers, options = text.split(",")[:4], text.split(",")[4:]
    known = {
        "batchnorm": {"batchnorm": "everywhere"},
        "batchnorm-hidden": {"batchnorm": "hidden"},
        "tanh": {"tanh": True},
    }
    try:
        layers, kernel, maps = map(int, numbers[:3])
        lr, more = float(numbers[3]), {}
        for option in options:
            more |= known[option]
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"report003/{text}: write report003/LAYERS,KERNEL,MAPS,RATE and after it, if "
            "wanted, ,tanh or ,batchnorm; for example report003/2,5,16,0.07,tanh"
        ) from error
    if min(layers, kernel, maps) < 1 or kernel % 2 == 0 or not 0 < lr < 10:
        raise InputError(
            f"report003/{text}: layers and maps are at least 1, the kernel is odd, the "
            "learning rate between 0 and 10"
        )
    return _stack(layers, kernel, maps, lr, **more)
