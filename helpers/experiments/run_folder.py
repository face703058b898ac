"""The run folder: each notebook's results, data and machine, and a table of them all.

<run folder>/NN_topic/metrics.json   a notebook's results, written last
<run folder>/figures/*.png, colorized/{train,test}/*.png
<run folder>/environment.json        threads, processor, GPU, versions, commit
<run folder>/results.json, results.md   every network next to its published result
<run folder>/figures/results.png        the same results as a plot
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from helpers.data.faces import FaceSet, Split, find_images
from helpers.data.images import open_source, write_image
from helpers.evaluation.figures import compare_with_published
from helpers.evaluation.small_png import use_small_png
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import get_profile
from helpers.experiments.registry import get_experiment
from helpers.experiments.short_errors import use_short_errors
from helpers.experiments.tables import Row, task_tables
from helpers.files import (
    OUTPUTS,
    PROJECT,
    InputError,
    free_cores,
    read_json,
    unique_stems,
    user_path,
    write_atomic,
    write_json,
)
from helpers.training.execution import choose_device, keep_freed_memory, set_seed

SCHEMA = 2
MAX_SEED = 2**32 - 1
# With fewer images, some test sets would be too small for the figures.
MIN_NOTEBOOK_IMAGES = 60
RUN_DIR_VARIABLE = "DEEPCOLOR_RUN_DIR"  # overrides the default run folder
PACKAGES = ("torch", "numpy", "opencv-python-headless", "scikit-image", "papermill")


class Run:
    """One notebook in a run folder.

    folder    <run folder>/NN_topic, for the notebook's own files
    profile   the row of PROFILES that the notebook uses
    device    the chosen device, "cpu" or "cuda"
    """

    def __init__(self, notebook: str, parameters: Mapping):
        self.notebook, self.parameters = notebook, dict(parameters)
        self.profile = get_profile(parameters["profile"])
        self.device = choose_device(parameters["device"])
        self.run_dir = default_run_dir(parameters["profile"], parameters["run_dir"])
        self.folder = self.run_dir / notebook
        self.metrics_file = self.folder / "metrics.json"
        self.metrics_file.unlink(missing_ok=True)
        self.artifacts: list[Path] = []

    def num_epochs(self, experiment: str) -> int:
        """Return the parameter num_epochs or, if 0, the experiment's number of epochs."""
        given = self.parameters.get("num_epochs")
        return given or get_experiment(experiment).epochs_for(self.profile)

    def save_figure(self, fig: Figure, name: str) -> None:
        """Save a figure as <run folder>/figures/<notebook>_<name>.png."""
        path = self.run_dir / "figures" / f"{self.notebook}_{name}.png"
        save_figure(fig, path)
        self.artifacts.append(path)

    def save_colorized(self, part: str, names: list[str], images: torch.Tensor) -> None:
        """Save colorized images (N, 3, H, W) uint8 BGR of the "train" or "test" set."""
        for stem, image in zip(unique_stems(names), images, strict=True):
            path = self.run_dir / "colorized" / part / f"{stem}.png"
            write_image(path, image.permute(1, 2, 0).numpy())
            self.artifacts.append(path)

    def finish(
        self,
        networks: Mapping[str, Row],
        faces: FaceSet,
        split: Split,
        split_file: str = "split.json",
    ) -> None:
        """Write metrics.json, atomically and last: it marks the notebook as finished.

        The names of the training and test images are written to `split_file` in the run
        folder.
        """
        write_json(self.run_dir / split_file, split_record(faces, split))
        artifacts = [path.relative_to(self.run_dir) for path in self.artifacts]
        content = {
            "schema": SCHEMA,
            "notebook": self.notebook,
            "parameters": self.parameters,
            "data": describe_data(faces, split),
            "networks": {name: row.to_json() for name, row in networks.items()},
            "artifacts": [path.as_posix() for path in artifacts],
        }
        write_json(self.metrics_file, content)
        if not (self.run_dir / "environment.json").exists():
            write_json(self.run_dir / "environment.json", environment())
        print(f"wrote {self.notebook}/metrics.json")


def save_figure(fig: Figure, path: Path) -> None:
    """Write a figure as PNG; raise InputError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fast = {"compress_level": 1}  # a third less time, a sixth more bytes
        fig.savefig(path, dpi=150, metadata={"Software": None}, pil_kwargs=fast)
    except OSError as error:
        raise InputError(f"{path}: cannot write ({error.strerror})") from error


def start_run(notebook: str, **parameters) -> Run:
    """Check a notebook's parameters, seed torch, and return its `Run`.

    Raises InputError for a wrong type (papermill injects a boolean as the text "false") or
    value, before any work is done.
    """
    use_short_errors()
    check_values(parameters)
    run = Run(notebook, parameters)
    set_seed(parameters["seed"])
    keep_freed_memory()
    use_small_png()
    num_threads = torch.get_num_threads()
    print(
        f"torch {torch.__version__} on {run.device}, {num_threads} "
        f"thread{'s' * (num_threads > 1)}; profile {parameters['profile']}"
    )
    return run


def check_values(parameters: Mapping) -> None:
    """Raise InputError for a parameter of a wrong type or value, or for too few images."""
    for name in ("profile", "images", "split", "device", "run_dir", "faces_80"):
        value = parameters.get(name, "")
        if not isinstance(value, str):
            raise InputError(f"{name}={value!r}: must be a string")
    for name in ("seed", "num_epochs"):
        value = parameters.get(name, 0)
        if type(value) is not int or not 0 <= value <= MAX_SEED:
            raise InputError(
                f"{name}={value!r}: must be a whole number from 0 to {MAX_SEED}"
            )
    if parameters.get("split", "random") not in ("random", "groups"):
        raise InputError(f"split={parameters['split']!r}: must be random or groups")
    if parameters.get("device", "auto") not in ("auto", "cpu", "cuda"):
        choose_device(parameters["device"])  # it names the choices
    get_profile(parameters.get("profile", "quick"))
    images = find_images(parameters.get("images", ""))
    if images and (number := len(open_source(images).names)) < MIN_NOTEBOOK_IMAGES:
        raise InputError(
            f"{images}: {number} images; the notebooks need at least {MIN_NOTEBOOK_IMAGES} "
            "(`deepcolor train` and `evaluate` work with fewer)"
        )


def default_run_dir(profile: str, run_dir: str = "") -> Path:
    """Return the path for the parameter run_dir; "" means outputs/<profile>."""
    run_dir = str(run_dir) or os.environ.get(RUN_DIR_VARIABLE, "")
    return user_path(run_dir).resolve() if run_dir else OUTPUTS / profile


def describe_data(faces: FaceSet, split: Split) -> dict:
    """Return a description of the data behind the results."""
    return {
        "source": faces.source,
        "synthetic": faces.synthetic,
        "images": len(faces),
        "hash": faces.data_hash(),
        "split": split.how,
        "training_images": len(split.train),
        "test_images": len(split.test),
    }


def split_record(faces: FaceSet, split: Split) -> dict:
    """Return the names of the training and test images."""
    return {
        "hash": faces.data_hash(),
        "how": split.how,
        "train": sorted(faces.names[i] for i in split.train),
        "test": sorted(faces.names[i] for i in split.test),
    }


def environment() -> dict:
    """Describe the machine and the versions, without paths, host or user names."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": free_cores(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def collect(run_dir: Path) -> dict:
    """Return the metrics of all notebooks in a run folder, as in results.json."""
    files = sorted(Path(run_dir).glob("*/metrics.json"))
    notebooks = [read_metrics(file) for file in files]
    return {"schema": SCHEMA, "notebooks": {n["notebook"]: n for n in notebooks}}


def read_metrics(path: Path) -> dict:
    """Read a notebook's metrics.json; raise InputError if something is missing in it."""
    content = read_json(path)
    try:
        one = {"notebooks": {content["notebook"]: content}}
        json.dumps(content, allow_nan=False)
        results_page(one)
        _errors(one)
        for row in content["networks"].values():
            mse = row["test_mse"]
            if not mse["low"] <= mse["mean"] <= mse["high"]:
                raise ValueError("an interval that does not hold its mean")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: damaged, or of an older version ({error}); run the notebook again"
        ) from error
    return content


def write_results(run_dir: Path) -> Path:
    """Write results.json, results.md and their plot; return the path of results.md."""
    results = collect(run_dir)
    write_json(run_dir / "results.json", results)
    if rows := _errors(results):
        fig = compare_with_published(rows)
        save_figure(fig, run_dir / "figures" / "results.png")
        plt.close(fig)
    path = run_dir / "results.md"
    write_atomic(path, results_page(results).encode())
    return path


def _errors(results: dict) -> dict[str, tuple[dict, float | None]]:
    """Return each network's MSE of a*, b*, and the published one.

    The published one is None if the network was trained on portraits.
    """
    errors = {}
    for notebook, metrics in results["notebooks"].items():
        for name, row in metrics["networks"].items():
            is_comparable = row["published"] and not metrics["data"]["synthetic"]
            published = row["published"]["mse"] if is_comparable else None
            if TASKS[row["task"]].scale == "on scale S":
                errors[f"{notebook[:2]} {name}"] = (row["test_mse"], published)
    return errors


def results_page(results: dict) -> str:
    """Return results.md: each network's result next to the published one."""
    notebooks = list(results["notebooks"].values())
    lines = ["# Results", ""]
    if not notebooks:
        return "\n".join([*lines, "No notebook has finished yet.", ""])
    lines += [*_data_lines(results), ""]
    lines += [
        "Test MSE of a*, b* on scale S "
        "(mean of ((a - a_hat)/255)^2 and ((b - b_hat)/255)^2) with a 95% bootstrap "
        "interval over the sitters in the test set, or over its images if the sitters are "
        "unknown. *Single pass*: without averaging over the mirror image, for networks "
        "that use it.",
        "",
    ]
    rows = [
        (notebook, name, _comparable(Row.from_json(row), metrics["data"]))
        for notebook, metrics in results["notebooks"].items()
        for name, row in metrics["networks"].items()
    ]
    return "\n".join(lines + task_tables("notebook", rows))


def _data_lines(results: dict) -> list[str]:
    """Return a line for each set of images, with the notebooks that used it."""
    notebooks: dict[str, list[str]] = {}
    for notebook, metrics in results["notebooks"].items():
        data = metrics["data"]
        line = (
            f"{data['training_images']} training and {data['test_images']} test images "
            f"from {data['source']}, split {data['split']}"
        )
        if data["synthetic"]:
            line += " (**synthetic: not comparable with published figures**)"
        notebooks.setdefault(line, []).append(notebook[:2])
    return [
        f"- Notebook{'s' * (len(used) > 1)} {', '.join(used)}: {line}"
        for line, used in notebooks.items()
    ]


def _comparable(row: Row, data: dict) -> Row:
    """Return the row, without the published result if the images are synthetic."""
    return replace(row, published=None) if data["synthetic"] else row


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the current commit, with a plus sign if files have changed since."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # a copy without git
        return None
    return described.stdout.strip()
