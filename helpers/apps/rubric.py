"""The assignment's rubric: its components, their checks, and where they are solved."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from helpers.apps import evidence
from helpers.apps.evidence import Finding
from helpers.apps.runner import read_notebook
from helpers.files import InputError

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
class Outline:
    """The headings of a submission's notebooks, and all their text.

    headings  for each notebook, by its name
    """

    headings: dict[str, list[str]]
    text: str


def read_outline(work) -> Outline:
    """Read the notebooks; one that cannot be read has no heading (see `integrity`)."""
    headings, texts = {}, []
    for path in sorted(work.notebooks.glob("*.ipynb")):
        try:
            cells = read_notebook(path).cells
        except InputError:
            cells = []
        texts += [cell.source for cell in cells]
        markdown = [cell.source for cell in cells if cell.cell_type == "markdown"]
        without_code = (re.sub(r"```.*?```", "", text, flags=re.S) for text in markdown)
        headings[path.stem] = [
            heading
            for text in without_code
            for heading in re.findall(r"^#{1,6} (.+?)\s*$", text, re.M)
        ]
    return Outline(headings, "\n".join(texts))


def places_of(work, component: Component, outline: Outline) -> str:
    """Return the notebooks and headings under which a submission solves a component."""
    if work.originals:  # notebooks of this course
        given = outline.headings.get(component.notebook, [])
        found = {component.notebook: [x for x in given if x in component.headings]}
    else:
        found = _that_match(component.words, outline)
    return "; ".join(f"{x}: {', '.join(found[x])}" for x in found if found[x])


def extra_credits(work, outline: Outline) -> Iterator[tuple[str, str]]:
    """Yield each extra credit with the networks and the headings that speak of it."""
    names = [n for metrics in work.results.values() for n in metrics["networks"]]
    for title, word in EXTRA_CREDITS.items():
        found = [x for x in dict.fromkeys(names) if word.lower() in x.lower()][:4]
        by_notebook = _that_match(word, outline)
        found += [f"{x}: {', '.join(by_notebook[x][:2])}" for x in by_notebook][:2]
        if not found and word.lower() in outline.text.lower():
            found = ["in the notebooks' text"]
        yield title, "; ".join(found) or "not found"


def _that_match(words: str, outline: Outline) -> dict[str, list[str]]:
    found = {
        name: [x for x in headings if re.search(words, x, re.IGNORECASE)][:4]
        for name, headings in outline.headings.items()
    }
    return {name: headings for name, headings in found.items() if headings}
