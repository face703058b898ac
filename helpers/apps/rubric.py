"""The assignment's rubric: its components, their checks, and where they are solved."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.apps import evidence
from helpers.apps.evidence import Finding
from helpers.apps.runner import read_notebook

EXTRA_CREDITS = {
    "Tanh in the last layer": "Tanh",
    "Number of feature maps": "maps",
    "Classifier or regressor": "classif",
}


@dataclass(frozen=True)
class Component:
    """One component of the rubric.

    check     yields findings about a submission
    notebook  where this course solves it, under these headings
    words     a pattern that finds the headings in the notebooks of another author
    """

    points: int
    title: str
    check: Callable[..., Iterator[Finding]]
    words: str
    notebook: str = ""
    headings: tuple[str, ...] = ()


COMPONENTS = [
    Component(
        10,
        "Load the dataset",
        evidence.load,
        r"load|read|data ?set",
        "01_load",
        ("Read the files", "One tensor", "Shuffle and split"),
    ),
    Component(
        10,
        "Augment the dataset",
        evidence.augment,
        r"augment",
        "02_augment",
        ("Flip", "Crop and resize back", "Scale the RGB values", "Ten times as large"),
    ),
    Component(
        10,
        "Convert to L*a*b*",
        evidence.lab,
        r"\blab\b|l\W*a\W*b\b",
        "03_lab",
        ("One image in Lab", "Back to BGR"),
    ),
    Component(
        15,
        "Build a simple regressor",
        evidence.regressor,
        r"regress",
        "04_regressor",
        ("The network", "The training loop"),
    ),
    Component(
        15,
        "Colorize the image",
        evidence.colorizer,
        r"colou?ri[sz]",
        "05_colorizer",
        ("Down and up again", "Pictures"),
    ),
    Component(
        10,
        "Batch normalization",
        evidence.batchnorm,
        r"batch ?norm",
        "06_batchnorm",
        (
            "The layer",
            "Training with and without BatchNorm",
            "Forgetting the evaluation mode",
        ),
    ),
    Component(
        10,
        "Training",
        evidence.training,
        r"train|test",
        "07_gpu_training",
        ("A wider colorizer", "The test, in minibatches", "Colorized images"),
    ),
    Component(
        10,
        "GPU programming",
        evidence.gpu,
        r"gpu|cuda|device",
        "07_gpu_training",
        ("The device", "Timing a step", "What makes training fast"),
    ),
    Component(10, "Report and video tour", evidence.report_and_tour, r"report|tour"),
]


@dataclass(frozen=True)
class Place:
    """A heading in a notebook of the submission."""

    notebook: str  # relative to the submission's folder
    heading: str

    def __str__(self) -> str:
        return f"{Path(self.notebook).stem}: {self.heading}"

    @property
    def link(self) -> str:
        """Return the file with the heading as its fragment, as in a notebook's links."""
        return f"{self.notebook}#{self.heading.replace(' ', '-')}"


def places_of(work, component: Component) -> list[Place]:
    """Return the headings of the submission under which a component is solved."""
    if work.originals:  # notebooks of this course
        return [
            place
            for place in headings(work)
            if Path(place.notebook).stem == component.notebook
            and place.heading in component.headings
        ]
    return _that_match(component.words, headings(work))


def extra_credits(work) -> Iterator[tuple[str, str]]:
    """Yield each extra credit with the networks and the headings that speak of it."""
    names = [n for metrics in work.results.values() for n in metrics["networks"]]
    text = "\n".join(cell.source for _, cell in _cells(work))
    for title, word in EXTRA_CREDITS.items():
        found = [name for name in names if word.lower() in name.lower()][:4]
        found += map(str, _that_match(word, headings(work))[:2])
        if not found and word.lower() in text.lower():
            found = ["in the notebooks' text"]
        yield title, ", ".join(found) or "not found"


def headings(work) -> list[Place]:
    """Return all headings of a submission's notebooks."""
    return [
        Place(path.relative_to(work.folder).as_posix(), line.lstrip("# "))
        for path, cell in _cells(work)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match(r"#{1,6} ", line)
    ]


def _cells(work) -> Iterator:
    for path in sorted(work.notebooks.glob("*.ipynb")):
        yield from ((path, cell) for cell in read_notebook(path).cells)


def _that_match(words: str, places: list[Place]) -> list[Place]:
    return [x for x in places if re.search(words, x.heading, re.IGNORECASE)]
