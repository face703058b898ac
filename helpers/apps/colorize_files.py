"""The commands that process a user's photographs: colorize, chrominance."""

import glob
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from helpers.apps.colorize import (
    NO_HINTS,
    Box,
    colorize_all,
    grayscale,
    predict_mean_chrominance,
)
from helpers.apps.face_boxes import INSTALL, find_faces, is_available
from helpers.apps.film import FILM_SUFFIXES, colorize_film, open_film
from helpers.apps.hints import Hints
from helpers.apps.photographs import (
    check_all_read,
    comparison,
    find_photographs,
    ignores_case,
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
    boxes: Sequence[Box] = (),
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
    _check_one("--box", boxes, len(photographs))
    _check_one("--hint", hints.points, len(photographs))
    finder = BoxFinder(boxes, faces and not boxes and is_available())
    if faces and not boxes and not is_available():
        summarize(INSTALL)
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
            if bar.disable:
                log(str(path))

        reads = [photograph.read for photograph in photographs]
        jobs = zip(paths, reads, strict=True)
        options = {"strength": strength, "boxes": finder, "hints": hints}
        colorize_all(net, jobs, write, report, **options)
    finder.summarize(summarize)
    _summarize(len(paths), len(unreadable), time.perf_counter() - start, summarize)
    check_all_read(unreadable, len(paths))


def _summarize(number: int, unreadable: int, seconds: float, summarize: Log) -> None:
    if done := number - unreadable:
        summarize(
            f"colorized {done} of {number} photographs in {seconds:.1f} s "
            f"({done / seconds:.1f}/s), peak memory {peak_memory() / 2**20:.0f} MiB"
        )


def _check_one(option: str, given: Sequence, number: int) -> None:
    if given and number > 1:
        raise InputError(
            f"{option}: works with one photograph, not {number}; give only one"
        )


class BoxFinder:
    """The boxes for each photograph: those given, or those of the small faces in it.

    num_faces  the number of faces found, for each photograph that was searched
    """

    def __init__(self, boxes: Sequence[Box], finds_faces: bool):
        self.boxes, self.finds_faces = boxes, finds_faces
        self.num_faces: dict[Path, int] = {}

    def __call__(self, path: Path, image_bgr: np.ndarray) -> Sequence[Box]:
        """Return the boxes for image_bgr, the photograph that becomes `path`."""
        if not self.finds_faces:
            return self.boxes
        boxes, self.num_faces[path] = find_faces(image_bgr)
        return boxes

    def summarize(self, log: Log) -> None:
        """Log how many photographs have no face, if there are any."""
        without = [path.name for path, n in self.num_faces.items() if not n]
        if without:
            names = without[0] + (f" and {len(without) - 1} more" * (len(without) > 1))
            log(f"no face found in {names}: the colors are rough guesses")


def split_films(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the inputs that are films, by their suffix, and the others.

    A pattern such as clips/*.mp4 gives the films that match; InputError if none does.
    """
    films, others = [], []
    for given in inputs:
        if Path(given).suffix.lower() not in FILM_SUFFIXES:
            others.append(given)
        elif os.path.lexists(given) or not glob.has_magic(given):
            films.append(Path(given))
        elif found := sorted(glob.glob(given, recursive=True)):
            films += map(Path, found)
        else:
            raise InputError(f"{given}: matches no films; check the pattern")
    return films, others


def colorize_films(
    net,
    films: Sequence[Path],
    folder: Path,
    *,
    strength: float,
    hints: Hints,
    log: Log,
    summarize: Log,
) -> None:
    """Colorize films and write them to a folder as MP4; see `colorize_files`."""
    for film in films:
        target = _film_target(film, folder)
        colorize_film(net, film, target, strength, hints, summarize)
        log(str(target))


def check_films(films: list[Path], folder: Path, force: bool, for_photographs: bool):
    """Raise InputError if a film cannot be read or would replace a file.

    for_photographs  whether an option was given that is for photographs only
    """
    taken = {}
    one_file = films and ignores_case(folder)
    for film in films:
        target = _film_target(film, folder)
        key = str(target).casefold() if one_file else str(target)
        if not film.is_file():
            raise InputError(f"{film}: no such file; check the path")
        if for_photographs:
            raise InputError(
                f"{film}: --box, --hint and --compare are for photographs, not films"
            )
        if key in taken:
            raise InputError(
                f"{taken[key]} and {film}: both would become {target}; use another "
                "output folder for one of them"
            )
        if target.resolve() == film.resolve():
            raise InputError(f"{film}: would be replaced; use another output folder")
        if target.exists() and not force:
            raise InputError(f"{target}: already exists; use --force or another folder")
        open_film(film)[0].release()
        taken[key] = film


def _film_target(film: Path, folder: Path) -> Path:
    return folder / film.with_suffix(".mp4").name


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
    Raises InputError if the given run contains no such network, or if both are given.
    """
    if weights and (profile or run_dir):
        raise InputError("--weights: cannot be combined with --profile or --run-dir")
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
