"""What is graded: a run folder of this course, or a folder of another author's solution.

Both offer the same methods, so that the checks in `helpers.apps.evidence` are the same.
Another author's solution needs a file `submission.py` next to its notebooks; README,
"Grading", describes it. Grading executes that file.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from helpers.apps.film import FILM_SUFFIXES
from helpers.apps.runner import NOTEBOOKS
from helpers.data.augment import augment_copies
from helpers.data.faces import (
    FaceSet,
    embedded_portraits,
    find_images,
    load_faces,
    split_faces,
)
from helpers.data.images import (
    IMAGE_SUFFIXES,
    decode_image,
    is_visible,
    open_source,
    to_square,
)
from helpers.data.lab import to_lab_images
from helpers.files import InputError, read_json, user_path
from helpers.training.weights import load_weights

ADAPTER = "submission.py"
FUNCTIONS = ("files", "load", "split", "augment", "to_lab", "regressor", "colorizer")
SIDE = 128
# In a run folder: task, notebook, weights, the network's name in its metrics.json
NETWORKS = {
    "regressor": ("04_regressor", "regressor.safetensors", "regressor/batchnorm"),
    "colorizer": ("05_colorizer", "linear.safetensors", "colorizer, N = 4"),
}


class Natural(nn.Module):
    """A network of this course as the checks want it: from L*/100 to natural a*, b*."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """Map L*/100 (B, 1, 128, 128) to natural ab, (B, 2) or (B, 2, 128, 128)."""
        return self.net.predict(L * 100)


class RunSubmission:
    """A run folder that `deepcolor run` has written."""

    kind = "run folder of this course"

    def __init__(self, folder: Path, images: str = ""):
        self.folder, self.notebooks = folder, folder / "notebooks"
        self.originals = NOTEBOOKS
        file = folder / "results.json"
        try:
            self.results = read_json(file)["notebooks"]
            first = next(iter(self.results.values()), None)
            if first is None:
                raise InputError(f"{file}: no notebook has finished; run again")
            self.parameters, self.data = first["parameters"], first["data"]
            self.artifacts = artifacts_of(folder, self.results)
            self._images = images or self.parameters["images"]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file}: not written by `deepcolor run`; another author's solution needs "
                f"a {ADAPTER}, see README, Grading"
            ) from error

    @cached_property
    def faces(self) -> FaceSet:
        """The images of the run."""
        return load_faces(self._images)

    def load(self) -> torch.Tensor:
        """Return all images (n, 3, 128, 128) float32 BGR in 0..1."""
        return self.faces.images.float() / 255

    def file(self, number: int) -> bytes:
        """Return the bytes of the file that image `number` was read from."""
        return self._source.read(self.faces.names[number])

    @cached_property
    def _source(self):
        return open_source(find_images(self._images) or embedded_portraits())

    def split(self) -> tuple[list[int], list[int]]:
        """Return the indices of the training and of the test images."""
        record = read_json(self.folder / "split.json")
        places = {name: i for i, name in enumerate(self.faces.names)}
        train, test = (
            [places.get(x, -1) for x in record[s]] for s in ("train", "test")
        )
        return train, test

    def whole_split(self) -> tuple[int, int]:
        """Return the sizes of both sets before a profile shortens the training set."""
        given = {"by": self.parameters["split"], "seed": self.parameters["seed"]}
        split = split_faces(self.faces, **given)
        return len(split.train), len(split.test)

    def test_images(self) -> torch.Tensor:
        """Return the images on which the networks are tested, as in `load`."""
        return self.load()[self.split()[1]]

    def augment(self, images: torch.Tensor) -> torch.Tensor:
        """Return ten times as many images."""
        levels = (images * 255).round().to(torch.uint8)
        return augment_copies(levels, 10, self.parameters["seed"]).float() / 255

    def to_lab(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, 128, 128) float32: L*, a*, b* in natural units."""
        lab = to_lab_images((images * 255).round().to(torch.uint8))
        return torch.cat([lab.L.float(), lab.ab.float()], dim=1)

    def network(self, task: str) -> nn.Module:
        """Return the trained "regressor" or "colorizer"; raises InputError."""
        notebook, weights, _ = NETWORKS[task]
        return Natural(load_weights(self.folder / notebook / weights)[0]).eval()

    def name_of(self, task: str) -> str:
        """Return the name of the network that is graded, and its file."""
        notebook, weights, name = NETWORKS[task]
        return f"{name}, {notebook}/{weights}"

    def reported(self, task: str) -> float | None:
        """Return the test MSE on scale S that is claimed for a network."""
        notebook, _, name = NETWORKS[task]
        networks = self.results.get(notebook, {"networks": {}})["networks"]
        return networks[name]["test_mse"]["mean"] if name in networks else None

    def pictures(self, part: str) -> list[Path]:
        """Return the colorized "train" or "test" images."""
        folder = self.folder / "colorized" / part
        return [x for x in _pictures(folder) if x in self.artifacts]

    def report(self) -> Path | None:
        """Return the written report."""
        return _first(self.folder, "report.pdf")

    def tour(self) -> Path | None:
        """Return the film of the tour."""
        return find_tour(self.folder)


class OtherSubmission:
    """A folder with notebooks and an adapter of another author, see `ADAPTER`."""

    kind = "solution of another author"
    originals = None
    results: dict = {}  # noqa: RUF012

    def __init__(self, folder: Path):
        self.folder, self.module = folder, _import(folder / ADAPTER)
        missing = [name for name in FUNCTIONS if not hasattr(self.module, name)]
        if missing:
            raise InputError(f"{folder / ADAPTER}: lacks {', '.join(missing)}; add it")
        self.notebooks = folder / getattr(self.module, "NOTEBOOKS", "notebooks")

    def load(self) -> torch.Tensor:
        """Return all images, see `RunSubmission`."""
        return self._images

    @cached_property
    def _images(self) -> torch.Tensor:
        return self.module.load()

    def file(self, number: int) -> bytes:
        """Return the bytes of the file that image `number` was read from."""
        return Path(self.module.files()[number]).read_bytes()

    def split(self) -> tuple[list[int], list[int]]:
        """Return the indices of the training and of the test images."""
        train, test = self.module.split()
        return [int(i) for i in train], [int(i) for i in test]

    def whole_split(self) -> tuple[int, int]:
        """Return the sizes of both sets."""
        train, test = self.split()
        return len(train), len(test)

    def test_images(self) -> torch.Tensor:
        """Return the images on which the networks are tested."""
        given = getattr(self.module, "test_images", None)
        return given() if given else self.load()[self.split()[1]]

    def augment(self, images: torch.Tensor) -> torch.Tensor:
        """Return ten times as many images."""
        return self.module.augment(images)

    def to_lab(self, images: torch.Tensor) -> torch.Tensor:
        """Return L*, a*, b* in natural units."""
        return self.module.to_lab(images)

    def network(self, task: str) -> nn.Module:
        """Return the trained "regressor" or "colorizer", in the mode of its author."""
        return getattr(self.module, task)()

    def name_of(self, task: str) -> str:
        """Return the name of the network that is graded."""
        return f"{task}() in {ADAPTER}"

    def reported(self, task: str) -> float | None:
        """Return the test MSE on scale S that is claimed for a network."""
        return getattr(self.module, "REPORTED", {}).get(task)

    def pictures(self, part: str) -> list[Path]:
        """Return the colorized "train" or "test" images."""
        folder = self.folder / getattr(self.module, "COLORIZED", "colorized")
        return _pictures(folder / part)

    def report(self) -> Path | None:
        """Return the written report."""
        return _first(self.folder, "*report*.pdf")

    def tour(self) -> Path | None:
        """Return the film of the tour."""
        return _film(self.folder)


def open_submission(folder: Path, images: str = "") -> RunSubmission | OtherSubmission:
    """Open a run folder, or a folder with an adapter.

    images  the images of a run whose folder or zip has moved

    Raises InputError if it is neither, or damaged.
    """
    folder = user_path(folder)
    if (folder / ADAPTER).is_file():
        if images:
            raise InputError(
                f"--images: {folder / ADAPTER} loads its own; leave it out"
            )
        return OtherSubmission(folder)
    if (folder / "results.json").is_file():
        return RunSubmission(folder, images)
    raise InputError(
        f"{folder}: neither results.json nor {ADAPTER} is there; give a run folder, for "
        "example outputs/quick, or see README, Grading"
    )


def find_tour(run_dir: Path) -> Path | None:
    """Return the film in videotour/ of the run folder, or of its project.

    The project is two levels up, as in outputs/quick; in a zip that was handed in, too.
    """
    folders = (run_dir, *Path(os.path.abspath(run_dir)).parents[1:2])
    return next(filter(None, map(_film, folders)), None)


def _film(folder: Path) -> Path | None:
    films = (_first(folder / "videotour", f"*{suffix}") for suffix in FILM_SUFFIXES)
    return next(filter(None, films), None)


def read_square(data: bytes) -> torch.Tensor:
    """Return an image file as (3, 128, 128) float32 BGR in 0..1, our own way."""
    image_bgr: np.ndarray = to_square(decode_image(data), SIDE)
    return torch.from_numpy(image_bgr).permute(2, 0, 1).float() / 255


def artifacts_of(folder: Path, notebooks: Mapping) -> set[Path]:
    """Return the pictures and figures of a run, whose folder may hold older ones, too.

    notebooks  the metrics of each notebook, as in results.json
    """
    listed = [x for metrics in notebooks.values() for x in metrics["artifacts"]]
    return {folder / name for name in listed}


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and is_visible(path.name)
    )


def _first(folder: Path, pattern: str) -> Path | None:
    """Return the first file whose name matches, whether in capitals or not."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((x for x in files if fnmatch(x.name.lower(), pattern)), None)


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("submission", path)
    module = sys.modules["submission"] = importlib.util.module_from_spec(spec)
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.append(folder)  # the adapter may import the modules beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: cannot be imported ({reason})") from error
    return module
