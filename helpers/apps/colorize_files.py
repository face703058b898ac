"""The commands that process a user's photographs: colorize, chrominance."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from helpers.apps.colorize import (
    NO_HINTS,
    colorize_all,
    grayscale,
    predict_mean_chrominance,
)
from helpers.apps.face_boxes import INSTALL, find_faces, is_available
from helpers.apps.hints import Hints
from helpers.apps.photographs import (
    check_all_read,
    comparison,
    find_photographs,
    targets,
)
from helpers.data.images import decode_image, decode_picture, write_image
from helpers.experiments.run_folder import default_run_dir
from helpers.files import InputError, peak_memory
from helpers.progress import progress
from helpers.training.weights import find_weights, load_weights

TRAINED = {  # where a notebook run saves its networks, best first
    "colorizer": (
        "11_colorize_photos/best.safetensors",
        "08_extra_credit/best.safetensors",
        "07_gpu_training/chosen.safetensors",
    ),
    "regressor": ("04_regressor/regressor.safetensors",),
}
DEFAULTS = {"colorizer": "portrait", "regressor": "regressor"}  # in weights/
Log = Callable[[str], None]


def colorize_files(
    net,
    inputs: Sequence[str],
    folder: Path,
    *,
    force: bool = False,
    strength: float = 1.0,
    compare: bool = False,
    boxes: Sequence[tuple[int, int, int, int]] = (),
    faces: bool = True,
    hints: Hints = NO_HINTS,
    log: Log = print,
    summarize: Log = print,
) -> None:
    """Colorize the photographs that a user names and write them to a folder as PNG.

    inputs     files, folders, zips or patterns; see `find_photographs`
    compare    also write gray and colorized side by side, as NAME.compare.png
    boxes      see `colorize`; only for a single photograph
    faces      without boxes, find the faces; see `find_faces`
    hints      see `colorize`; points only for a single photograph
    log        called with the path of each file that is written
    summarize  called at the end with a one-line summary

    Raises InputError for invalid input before any work, and WorkFailed at the end if some
    of the photographs cannot be read.
    """
    photographs = find_photographs(inputs, decode_picture)
    for option, given in (("--box", boxes), ("--hint", hints.points)):
        if given and len(photographs) > 1:
            raise InputError(
                f"{option}: works with one photograph, not {len(photographs)}; "
                "give only one"
            )
    if faces and not boxes and not is_available():
        faces = False
        summarize(INSTALL)
    num_faces: dict[Path, int] = {}

    def find_boxes(path: Path, image_bgr: np.ndarray):
        if boxes or not faces:
            return boxes
        small, num_faces[path] = find_faces(image_bgr)
        return small

    paths = targets(photographs, folder, force, compare)
    unreadable, start = [], time.perf_counter()
    with progress(None, "colorizing", total=len(paths)) as bar:

        def write(path: Path, image_bgr, result_bgr):
            write_image(path, result_bgr)
            if compare:
                both = np.hstack([grayscale(image_bgr), result_bgr])
                write_image(comparison(path), both)

        def report(path: Path, error: InputError | None):
            bar.update()
            if error:
                unreadable.append(str(error))
                return
            if num_faces.get(path) == 0:
                summarize(f"{path.name}: no face found; its colors are rough guesses")
            if bar.disable:
                log(str(path))

        reads = [photograph.read for photograph in photographs]
        jobs = zip(paths, reads, strict=True)
        options = {"strength": strength, "boxes": find_boxes, "hints": hints}
        colorize_all(net, jobs, write, report, **options)
    seconds, done = time.perf_counter() - start, len(paths) - len(unreadable)
    if done:
        summarize(
            f"colorized {done} of {len(paths)} photographs in {seconds:.1f} s "
            f"({done / seconds:.1f}/s), peak memory {peak_memory() / 2**20:.0f} MiB"
        )
    check_all_read(unreadable, len(paths))


def list_chrominance(net, inputs: Sequence[str], log: Log = print) -> None:
    """Log each photograph's file name and its mean a* and b*, predicted from lightness."""
    photographs, unreadable = find_photographs(inputs, decode_image), []
    log(f"{'file':<40}{'mean a*':>10}{'mean b*':>10}")
    for photograph in photographs:
        try:
            a, b = predict_mean_chrominance(net, photograph.read())
        except InputError as error:
            unreadable.append(str(error))
        else:
            log(f"{photograph.name:<40}{a:>10.2f}{b:>10.2f}")
    check_all_read(unreadable, len(photographs))


def load_network(weights: str, profile: str, run_dir: str, kind: str):
    """Load the network from --weights, from a given run, or the course's own.

    kind  "colorizer" or "regressor"; the course's own are `DEFAULTS`
    Raises InputError if the given run contains no such network.
    """
    if weights or not (profile or run_dir):
        return load_weights(find_weights(weights or DEFAULTS[kind]), kind)[0]
    folder = default_run_dir(profile, run_dir)
    found = [folder / name for name in TRAINED[kind] if (folder / name).exists()]
    if not found:
        raise InputError(
            f"{folder}: no trained {kind} here; run `deepcolor run` first or give --weights"
        )
    return load_weights(found[0], kind)[0]


def parse_box(given: str) -> tuple[int, int, int, int]:
    """Parse the numbers in --box X,Y,W,H; raise InputError for anything else."""
    try:
        left, top, width, height = map(int, given.split(","))
    except ValueError:
        raise InputError(
            f"--box {given}: write X,Y,W,H, four whole numbers in pixels"
        ) from None
    return left, top, width, height
