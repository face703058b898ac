"""Example colorizations for the hand-in, in examples/: drawn portraits, a free photograph.

No image of a dataset of photographs is shown.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage.data import astronaut

from helpers.apps.colorize import colorize
from helpers.apps.hints import make_hints
from helpers.data.course import course_data
from helpers.data.faces import PORTRAITS, load_faces, split_faces
from helpers.data.lab import to_bgr_images
from helpers.evaluation import figures
from helpers.evaluation.evaluate import predict
from helpers.evaluation.small_png import small_png
from helpers.experiments.reference import load_reference
from helpers.experiments.registry import DEFAULT_SEED
from helpers.files import PROJECT, write_atomic
from helpers.training.weights import find_weights, load_weights

EXAMPLES = PROJECT / "examples"
SHOWN = 7  # images per set
NETWORKS = {  # reference runs on the portraits
    "3 maps": "colorizer/n4",
    "16 maps": "colorizer/chosen",
    "best": "best/affine",
}
HINTS = ("150,330=#d95f3b", "240,100=#dda58c", "330,60=#c9c5bd")  # suit, face, wall


def write_examples(folder: Path = EXAMPLES, log: Callable[[str], None] = print) -> None:
    """Write train.png, test.png and photograph.png to a folder.

    The first two show portraits of the training and test set of the reference runs: the
    gray image, the images colorized by `NETWORKS`, and the truth. The third shows NASA's
    portrait of Eileen Collins, which scikit-image contains, colorized by weights/portrait.
    """
    faces = load_faces(PORTRAITS)
    split = split_faces(faces, seed=DEFAULT_SEED)
    data = course_data(faces, split, copies=1, seed=DEFAULT_SEED)
    nets = {label: load_reference(name).load_net() for label, name in NETWORKS.items()}
    for name, images in {
        "train": data.plain[:SHOWN],
        "test": data.test[:SHOWN],
    }.items():
        rows = {"gray": to_bgr_images(images.L, torch.zeros_like(images.ab))}
        for label, net in nets.items():
            rows[label] = to_bgr_images(images.L, predict(net, images.L))
        rows["truth"] = to_bgr_images(images.L, images.ab)
        _write(figures.image_rows(rows), folder / f"{name}.png", log)
    net, _ = load_weights(find_weights("portrait"))
    truth = np.ascontiguousarray(astronaut()[..., ::-1])
    pictures = {
        "gray": colorize(net, truth, strength=0.0),
        "colorized": colorize(net, truth),
        "with three hints": colorize(net, truth, hints=make_hints(net, HINTS)),
        "truth": truth,
    }
    _write(figures.side_by_side(pictures), folder / "photograph.png", log)


def _write(fig, path: Path, log: Callable[[str], None]) -> None:
    write_atomic(path, small_png(fig))
    log(f"wrote {path}")
