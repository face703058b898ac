"""The zip file that the assignment asks for."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.apps.grade import grade
from helpers.apps.submission import artifacts_of, find_tour
from helpers.data.faces import find_images
from helpers.files import (
    PROJECT,
    InputError,
    WorkFailed,
    read_json,
    refuse_existing,
    user_path,
)

SOURCE = (
    "README.md", "RESULTS.md", "RESULTS.png", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "conftest.py",
    "pyproject.toml", "requirements.lock", "environment.yml", "helpers", "notebooks",
    "tests", "weights", "reference", "slurm", "videotour/script.md", "book",
    "examples",
    "face_images/README.md", "outputs/README.md",
)  # fmt: skip
RUN = (
    "notebooks", "figures", "colorized", "*/metrics.json", "*/*.safetensors",
    "*/.inputs", "*.json", "results.md", "log.txt", "report.pdf", "report.html",
    "grade.html",
)  # fmt: skip
TOUR = "Report and video tour"
GUIDE = "HAND_IN.md"
TEXT = """# What is handed in

| the assignment asks for | here |
|---|---|
| complete source code | `helpers/`, `notebooks/`, `tests/` |
| the program that predicts mean chrominance | `deepcolor chrominance IMAGES...` |
| programs to train and test the best model | `deepcolor train`, `deepcolor evaluate` |
| the best weights | `weights/colorizer.safetensors` |
| example colorizations of both sets | `outputs/{run}/colorized/` |
| written report | {report} |
| video tour | {tour} |
| anything else needed to run it | `requirements.lock`; the images are {images} |

`make run` sets everything up and runs the course; `make test` runs all tests.
"""


def submit(
    run_dir: Path,
    file: Path,
    *,
    with_images: bool = False,
    tour_link: str = "",
    max_megabytes: int = 500,
    force: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Grade a run folder and write the zip that is handed in; return its path.

    with_images    put the images of the run into it
    tour_link      where the film is, if it is not put into the zip
    max_megabytes  the largest zip that may be handed in
    force          replace `file`

    Raises InputError if there is nothing to hand in or `file` exists, and WorkFailed if
    the grade shows a fault, or if the zip would be too large.
    """
    run_dir, file = user_path(run_dir), user_path(file)
    if run_dir.is_file():
        raise InputError(f"{run_dir}: is a file; give the run folder")
    refuse_existing(file, force)
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder; create it first")
    grade(run_dir, log=log)
    _refuse_faults(read_json(run_dir / "grade.json"))
    tour = None if tour_link else find_tour(run_dir)
    notebooks = read_json(run_dir / "results.json")["notebooks"]
    members = {**_source(), **_results(run_dir, notebooks)}
    if tour:
        members[f"videotour/{tour.name}"] = tour
    given = next(iter(notebooks.values()))["parameters"]
    images = find_images(given["images"]) if with_images else None
    if images:
        members |= _images(images)
    guide = TEXT.format(
        run=run_dir.resolve().name,
        report=_place(run_dir, "report.pdf") or "missing: `deepcolor report` writes it",
        tour=tour_link
        or (f"`videotour/{tour.name}`" if tour else "missing: `make tour`"),
        images="in `face_images/`" if images else "not included",
    )
    size = sum(path.stat().st_size for path in members.values()) / 2**20
    if size > 2 * max_megabytes:  # compressing would not help
        raise WorkFailed(_too_large(size, max_megabytes, tour))
    with _written(file, members, guide) as scratch:
        size = scratch.stat().st_size / 2**20
        if size > max_megabytes:
            raise WorkFailed(_too_large(size, max_megabytes, tour))
        scratch.replace(file)
    log(f"wrote {file}: {len(members) + 1} files, {size:.0f} MB")
    return file


def _refuse_faults(graded: dict) -> None:
    """Raise WorkFailed if anything but the report and the tour is at fault."""
    parts = [c["findings"] for c in graded["components"] if c["title"] != TOUR]
    findings = [x for found in [*parts, graded["whole"]] for x in found]
    faults = [f"{x['check']} ({x['found']})" for x in findings if not x["holds"]]
    if faults:
        raise WorkFailed(
            f"not handed in: {faults[0]}; {len(faults)} faults, see grade.html"
        )


def _source() -> dict[str, Path]:
    return dict(_files(PROJECT, SOURCE, ""))


def _results(run_dir: Path, notebooks: dict[str, dict]) -> dict[str, Path]:
    """Return the results of the run, without pictures of earlier runs in its folder."""
    own = artifacts_of(run_dir, notebooks)
    pictures = [run_dir / name for name in ("colorized", "figures")]
    return {
        name: path
        for name, path in _files(run_dir, RUN, f"outputs/{run_dir.resolve().name}/")
        if path in own or not any(x in path.parents for x in pictures)
    }


def _files(root: Path, patterns, prefix: str) -> Iterator[tuple[str, Path]]:
    """Yield name in the zip and path of all files that the patterns name."""
    for pattern in patterns:
        for found in sorted(root.glob(pattern)):
            inside = sorted(found.rglob("*")) if found.is_dir() else [found]
            for path in inside:
                parts = path.relative_to(root).parts
                if path.is_file() and not _is_scratch(parts):
                    yield prefix + path.relative_to(root).as_posix(), path


def _is_scratch(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") and part != ".inputs" for part in parts)
    return hidden or "__pycache__" in parts or parts[-1].endswith((".pyc", ".pt"))


def _images(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {f"face_images/{path.name}": path}
    return dict(_files(path, ["*"], "face_images/"))


def _place(run_dir: Path, name: str) -> str:
    is_there = (run_dir / name).is_file()
    return f"`outputs/{run_dir.resolve().name}/{name}`" * is_there


def _too_large(size: float, limit: int, tour: Path | None) -> str:
    step = "give --tour-link ADDRESS and share the film" if tour else "raise --max-size"
    return f"the zip has {size:.0f} MB, more than {limit}; {step}"


@contextmanager
def _written(file: Path, members: dict[str, Path], guide: str) -> Iterator[Path]:
    """Write the zip beside `file`, where it stays as long as the context."""
    scratch = file.with_name(f".{file.name}.part")
    try:
        how = {"compression": zipfile.ZIP_DEFLATED, "strict_timestamps": False}
        with zipfile.ZipFile(scratch, "w", **how) as archive:
            archive.writestr(GUIDE, guide)
            for name, path in members.items():
                archive.write(path, name)
        yield scratch
    except OSError as error:
        raise InputError(f"{file}: cannot write ({error.strerror})") from error
    finally:
        scratch.unlink(missing_ok=True)
