"""What the page of a report shows: tables, networks drawn, example images.

`report_content` collects it for the template report.typ.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import nn

from helpers import nets
from helpers.apps.colorize import grayscale
from helpers.data.faces import FaceSet, load_faces
from helpers.data.images import read_image, write_image
from helpers.evaluation.diagrams import Stage, draw_network
from helpers.evaluation.metrics import Estimate
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import get_profile
from helpers.experiments.registry import get_experiment
from helpers.experiments.run_folder import SCHEMA
from helpers.experiments.tables import Row
from helpers.files import InputError, read_json, unique_stems
from helpers.nets.base import Network, evaluation_mode

TITLE = "Deep colorization with convolutional networks"
UNIT = 1e-4  # of the errors on the page; the caption names it
NOT_RUN = "not run"
CONSTANT, TABLE = ("04_regressor", "constant"), ("03_lab", "table L -> ab")
REGRESSOR = ("04_regressor", "regressor/batchnorm")
CHOSEN = ("07_gpu_training", "colorizer, N = 3, 16 maps")
CHOSEN_EXPERIMENT = "colorizer/chosen"
TANH = ("08_extra_credit", "colorizer, Tanh, labels in [-1, 1]")
TANH_WRONG = ("08_extra_credit", "colorizer, Tanh, labels in [0, 1]")
THREE, EIGHT, UNET = (
    ("08_extra_credit", f"colorizer, {name}")
    for name in ("3 maps", "8 maps", "U-Net, quarter size")
)
# The page describes the data of the first of these notebooks that has run.
PREFERRED = (CHOSEN[0], UNET[0], "05_colorizer", REGRESSOR[0], TABLE[0])
# The rows of the one-page table: name on the page, and (notebook, name in results.json)
LISTED = {
    "Mean a*, b* of each image": {
        "constant, no network": CONSTANT,
        "regressor, ReLU output": ("04_regressor", "regressor/relu"),
        "regressor, BatchNorm": REGRESSOR,
    },
    "a*, b* of each pixel; N layers down, N layers up": {
        "mean color, no network": ("03_lab", "mean color"),
        "table L* to a*, b*": TABLE,
        "N = 5": ("05_colorizer", "colorizer, N = 5"),
        "N = 3": ("05_colorizer", "colorizer, N = 3"),
        "N = 4, no BatchNorm": ("06_batchnorm", "colorizer, He, seed {seed}"),
        "N = 4, BatchNorm": ("06_batchnorm", "colorizer, BatchNorm, seed {seed}"),
        "N = 4, ReLU output": ("05_colorizer", "colorizer, N = 4, relu head"),
        "N = 4, Sigmoid output": ("05_colorizer", "colorizer, N = 4, sigmoid head"),
        "N = 4, Tanh output": TANH,
        "N = 3, 16 maps": CHOSEN,
        "U-Net, quarter size": UNET,
    },
}
CAPTION = (
    "Test MSE of a*, b* in units of 10⁻⁴ with a 95% interval: the mean of ((a − â)/255)² "
    "and ((b − b̂)/255)². Published: the closest network of an earlier report, on its own "
    "split of the course's photographs."
)
NUM_IMAGES = 6  # in a row, as in report.typ
COLUMNS = ("network", "parameters", "epochs", "test MSE", "published")
DIAGRAMS = {  # experiment: (name on the page, row with its number of weights)
    "regressor/batchnorm": ("Regressor", REGRESSOR),
    CHOSEN_EXPERIMENT: ("Colorizer", CHOSEN),
    "unet/quarter": ("U-Net", UNET),
}
INCHES_PER_STAGE = 0.65  # in a diagram, before it is scaled to the page


class Results:
    """The results of a run folder.

    notebooks    the metrics of each finished notebook, by name
    environment  the machine and the versions, as in environment.json; empty if unknown

    Raises InputError if there is no results.json, if another version wrote it, or if no
    notebook has finished.
    """

    def __init__(self, run_dir: Path):
        self.run_dir, file = Path(run_dir), Path(run_dir) / "results.json"
        if not file.is_file():
            raise InputError(
                f"{file}: not found; run `deepcolor run` first, or name another run folder"
            )
        content = read_json(file)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise InputError(f"{file}: written by another version; run again")
        self.notebooks = content["notebooks"]
        if not self.notebooks:
            raise InputError(f"{file}: no notebook has finished; run `deepcolor run`")
        machine = self.run_dir / "environment.json"
        self.environment = read_json(machine) if machine.is_file() else {}
        described = [n for n in PREFERRED if n in self.notebooks] or self.notebooks
        first = self.notebooks[next(iter(described))]
        self.data, self.parameters = first["data"], first["parameters"]
        self.profile = get_profile(self.parameters["profile"])

    def row(self, place: tuple[str, str]) -> Row | None:
        """Return the row of (notebook, network); None if the run does not have it."""
        notebook, name = place
        networks = self.notebooks.get(notebook, {}).get("networks", {})
        found = networks.get(name.format(seed=self.parameters["seed"]))
        return Row.from_json(found) if found else None

    def rows(self, task: str) -> dict[str, Row]:
        """Return every network of a task, without baselines, by notebook and name."""
        return {
            f"{name}, notebook {notebook[:2]}": Row.from_json(row)
            for notebook, metrics in self.notebooks.items()
            for name, row in metrics["networks"].items()
            if row["task"] == task and row["epochs"]
        }

    def colorized(self, part: str) -> list[str]:
        """Return colorized images of the "train" or "test" set, as many as are shown."""
        chosen = self.notebooks.get(CHOSEN[0], {}).get("artifacts", [])
        files = [x for x in chosen if x.startswith(f"colorized/{part}/")]
        return [file for file in files if (self.run_dir / file).is_file()][:NUM_IMAGES]

    @cached_property
    def faces(self) -> FaceSet | None:
        """The images of the run, or None if they have moved or changed."""
        try:
            faces = load_faces(self.parameters["images"])
        except InputError:
            return None
        return faces if faces.data_hash() == self.data["hash"] else None


def mse(value: Estimate | None) -> str:
    """Format an error in units of 1e-4, with its interval."""
    if value is None:
        return NOT_RUN
    return f"{scaled(value.mean)} [{scaled(value.low)}, {scaled(value.high)}]"


def scaled(value: float) -> str:
    """Format an error in units of 1e-4."""
    value /= UNIT
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def report_content(
    results: Results, sections: Mapping, authors: str, full: bool, folder: Path
) -> dict:
    """Return what the template shows; the pictures are written to `folder`."""
    experiments = list(DIAGRAMS) if full else list(DIAGRAMS)[:2]
    return {
        "title": TITLE,
        "authors": authors,
        "byline": " · ".join(filter(None, [authors, *_byline(results)])),
        "full": full,
        "sections": [
            {"title": heading, "tokens": tokens} for heading, tokens in sections.items()
        ],
        "table": {
            "section": "Evaluation",
            "columns": COLUMNS,
            "groups": listed_rows(results),
            "caption": CAPTION,
        },
        "diagrams": [_diagram(name, results, folder) for name in experiments],
        "examples": [_examples(part, results, folder) for part in ("train", "test")],
        "appendix": _appendix(results, folder) if full else [],
    }


def _byline(results: Results) -> list[str]:
    data, versions = results.data, results.environment.get("versions", {})
    return [
        f"{data['training_images']} training and {data['test_images']} test images from "
        f"{data['source']}",
        f"profile {results.profile.name}",
        f"seed {results.parameters['seed']}",
        f"torch {versions['torch']}" if versions else "",
    ]


def listed_rows(results: Results) -> list[dict]:
    """Return the one-page table: groups with a title and rows of cells (see COLUMNS)."""
    return [
        {
            "title": title,
            "rows": [_cells(name, results.row(place)) for name, place in rows.items()],
        }
        for title, rows in LISTED.items()
    ]


def _cells(name: str, row: Row | None) -> list[str]:
    if row is None:
        return [name, "", "", NOT_RUN, ""]
    return [
        name,
        f"{row.parameters:,}" if row.parameters else "",
        str(row.epochs or ""),
        mse(row.test_mse),
        scaled(row.published.mse) if row.published else "",
    ]


def _diagram(name: str, results: Results, folder: Path) -> dict:
    title, place = DIAGRAMS[name]
    net, row = build(name, results), results.row(place)
    stages, _ = stages_of(net)
    weights = nets.count_parameters(net)
    caption = f"{title}, {weights:,} parameters; BatchNorm, ReLU in all hidden layers"
    if row and row.parameters != weights:
        caption += f" (as registered; this run's network has {row.parameters:,})"
    file = f"{name.replace('/', '_')}.svg"
    draw_diagram(net, folder / file)
    return {"file": file, "caption": caption, "stages": len(stages)}


def build(name: str, results: Results) -> Network:
    """Return an experiment's untrained network, as in the run's profile."""
    experiment = get_experiment(name)
    return nets.build(experiment.network, **experiment.options_for(results.profile))


def stages_of(net: Network) -> tuple[list[Stage], list[tuple[int, int]]]:
    """Return a network's stages and skip connections, found by running it on one image.

    Convolutions at the same size form one stage. A stage that takes more maps than the
    previous one returns has a skip connection from the last earlier stage of its size.
    """
    found, stages, skips = [], [Stage(net.input_name, 1, net.size, "input")], []
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.PixelUnshuffle)
    hooks = [
        layer.register_forward_hook(lambda layer, _, y: found.append((layer, y)))
        for layer in net.modules()
        if isinstance(layer, kinds)
    ]
    with evaluation_mode(net):
        output = net(torch.zeros(1, 1, net.size, net.size))
    for hook in hooks:
        hook.remove()
    smallest = min(y.shape[-1] for _, y in found)
    rising, count, last_name = False, 1, ""
    for layer, y in found:
        maps, side = y.shape[1], y.shape[-1]
        name = _name(layer)
        same = [n for n, s in enumerate(stages[:-1]) if s.side == side]
        if same and layer.in_channels > stages[-1].maps:
            skips.append((same[-1], len(stages)))
        elif side == stages[-1].side and name == last_name and maps == stages[-1].maps:
            count += 1
            stages[-1] = Stage(f"{count} {name}", maps, side, stages[-1].kind)
            continue
        stages.append(Stage(name, maps, side, "up" if rising else "down"))
        rising, count, last_name = rising or side == smallest, 1, name
    last = stages[-1]
    if output.ndim == 4 and output.shape[-1] > last.side:
        stages.append(Stage("bilinear", output.shape[1], output.shape[-1], "output"))
    else:
        stages[-1] = Stage(last.layers, last.maps, last.side, "output")
    return stages, skips


def _name(layer: nn.Module) -> str:
    if isinstance(layer, nn.PixelUnshuffle):
        return f"unshuffle {layer.downscale_factor}"
    side, stride = layer.kernel_size[0], layer.stride[0]
    name = "conv" if isinstance(layer, nn.Conv2d) else "transposed"
    return f"{name} {side} x {side}" + (f", stride {stride}" if stride > 1 else "")


def draw_diagram(net: Network, path: Path) -> None:
    """Draw a network as SVG; a label that repeats the previous one is left out."""
    stages, skips = stages_of(net)
    names = [stage.layers for stage in stages]
    stages = [
        Stage("" if name == before else name, stage.maps, stage.side, stage.kind)
        for stage, name, before in zip(stages, names, [None, *names], strict=False)
    ]
    fig = draw_network(stages, skips, arched=True)
    fig.set_size_inches(INCHES_PER_STAGE * len(stages), 3)
    (ax,) = fig.axes
    for text in ax.texts:
        text.set_bbox(None)  # it would cut off the next text
        if (
            text.get_rotation()
        ):  # a label: upright, in narrow lines, which takes less room
            lines = text.get_text().replace(", ", "\n").replace(" ", "\n", 1)
            text.set(
                rotation=0, ha="center", text=lines.replace("2\nconv ", "2 conv\n")
            )
    height = max(x.get_height() for x in ax.patches if isinstance(x, Rectangle))
    ax.set_ylim(-0.55 * height, (0.85 if skips else 0.55) * height)
    for arrow in ax.patches:  # the points that bend an arrow need no room
        arrow.set_in_layout(isinstance(arrow, Rectangle))
    svg = {"format": "svg", "bbox_inches": "tight", "pad_inches": 0.02}
    with plt.rc_context({"svg.hashsalt": "report"}):
        fig.savefig(path, metadata={"Date": None, "Creator": None}, **svg)
    plt.close(fig)


def _examples(part: str, results: Results, folder: Path) -> dict:
    words = {"train": "training", "test": "test"}[part]
    files = results.colorized(part)
    rows = draw_examples(results.run_dir, files, results.faces, folder) if files else {}
    return {
        "rows": rows,
        "missing": NOT_RUN,
        "caption": f"Images of the {words} set: {', '.join(rows)}" if rows else words,
    }


def draw_examples(
    run_dir: Path, files: Sequence[str], faces: FaceSet | None, folder: Path
) -> dict[str, list[str]]:
    """Write example images for the page into `folder`; return their names by row.

    files  colorized images of the run, relative to `run_dir`; the grayscale images are
           their lightness
    faces  where the true images are found by name, or None: then they are left out
    """
    stems = [unique_stems([name])[0] for name in faces.names] if faces else []
    counts = Counter(map(str.casefold, stems))
    truths = {
        stem: faces.images[i].permute(1, 2, 0).numpy()
        for i, stem in enumerate(stems)
        if counts[stem.casefold()] == 1  # otherwise, the name does not tell which
    }
    rows: dict[str, list[str]] = {"grayscale": [], "truth": [], "colorized": []}
    for file in files:
        image_bgr = read_image(run_dir / file)
        images = {"grayscale": grayscale(image_bgr), "colorized": image_bgr}
        if Path(file).stem in truths:
            images["truth"] = truths[Path(file).stem]
        for row, image in images.items():
            name = f"{row}_{file.replace('/', '_')}"
            write_image(folder / name, np.ascontiguousarray(image))
            rows[row].append(name)
    return {row: names for row, names in rows.items() if len(names) == len(files)}


def _appendix(results: Results, folder: Path) -> list[dict]:
    """Return a title, the tables and the figures of every notebook of the run."""
    sections = [_appendix_section("All results", {}, ["figures/results.png"], results)]
    for notebook, metrics in results.notebooks.items():
        rows = {name: Row.from_json(row) for name, row in metrics["networks"].items()}
        figures = [x for x in metrics["artifacts"] if x.startswith("figures/")]
        sections.append(_appendix_section(notebook, rows, figures, results))
    for section in sections:
        for file in section["figures"]:
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(results.run_dir / file, folder / file)
    return sections


def _appendix_section(
    title: str, rows: Mapping[str, Row], figures: Sequence[str], results: Results
) -> dict:
    tables = []
    for task in TASKS:
        cells = [
            {"network": name, **row.cells()}
            for name, row in rows.items()
            if row.task == task
        ]
        columns = [c for c in (cells[0] if cells else ()) if any(x[c] for x in cells)]
        lines = [[row[c].replace("**", "") for c in columns] for row in cells]
        if cells:
            tables.append({"columns": columns, "rows": lines})
    figures = [file for file in figures if (results.run_dir / file).is_file()]
    return {"title": title, "tables": tables, "figures": figures}
