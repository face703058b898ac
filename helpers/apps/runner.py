"""Run the notebooks in order through papermill, and believe only what they prove.

A notebook counts as done when its kernel raised nothing *and* it has written its
metrics.json in this run: papermill marks every cell "completed" after a time-out or a
dead kernel, exits 0 on a misspelt parameter, and never checks a type.
"""

import ast
import difflib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers.data.faces import PORTRAITS, FaceSet, find_images, load_faces
from helpers.experiments.run_folder import environment, write_results
from helpers.files import (
    PROJECT,
    InputError,
    WorkFailed,
    read_json,
    sha256,
    write_atomic,
    write_json,
)

NOTEBOOKS = PROJECT / "notebooks"
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
QUIET = ["--IPKernelApp.log_level=40"]  # no note about TCP for each kernel


def run_notebooks(
    run_dir: Path,
    parameters: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    resume: bool = False,
    folder: Path = NOTEBOOKS,
    log: Callable[[str], None] = print,
) -> Path:
    """Run the course's notebooks in order; returns the path of results.md.

    parameters  text values, checked against the type that each notebook declares
    only        names or numbers of notebooks ("04", "04_regressor"); all by default
    resume      skip a notebook whose inputs and results are what they were

    Raises InputError before any kernel starts when a notebook or parameter is unknown,
    a value has the wrong type, the images cannot be loaded or the folder is in use, and
    WorkFailed at the first notebook that does not finish.
    """
    notebooks = choose_notebooks(folder, only)
    chosen = find_images(parameters.get("images", ""))
    parameters = {
        **parameters,
        "images": str(chosen.resolve()) if chosen else PORTRAITS,
        "run_dir": str(run_dir),
    }
    typed = check_parameters(notebooks, parameters)
    faces = load_faces(parameters["images"])
    with Lock(run_dir, log):
        log = _also_to(run_dir / "log.txt", log)
        log(f"{datetime.now():%Y-%m-%d %H:%M}  {', '.join(n.stem for n in notebooks)}")
        log(faces.describe())
        write_json(run_dir / "environment.json", environment())
        for notebook in notebooks:
            _run_one(notebook, typed[notebook], run_dir, faces, resume, log)
        page = write_results(run_dir)
    return page


def choose_notebooks(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The numbered notebooks of a folder, in order; raises InputError for another."""
    every = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise InputError(f"{folder}: holds no numbered notebooks")
    chosen = []
    for name in only:
        stem = Path(name).stem
        found = [n for n in every if n.stem == stem or n.stem.split("_")[0] == stem]
        if not found:
            names = ", ".join(n.stem for n in every)
            raise InputError(f"notebook {name!r}: unknown; use one of {names}")
        chosen += found
    return sorted(set(chosen)) or every


def declared_parameters(notebook: Path) -> dict[str, type]:
    """Name and type of each parameter that a notebook declares.

    Reads the one cell tagged `parameters`, whose lines are `name: type = literal`.
    Raises InputError when there is no such cell, or more than one.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(
            f"{notebook.name}: {len(tagged)} cells are tagged `parameters`; tag one"
        )
    declared = {}
    for line in ast.parse(tagged[0].source).body:
        if not (
            isinstance(line, ast.AnnAssign) and ast.unparse(line.annotation) in TYPES
        ):
            raise InputError(
                f"{notebook.name}: the parameter line `{ast.unparse(line)}` is not of "
                "the form `name: int = 1`"
            )
        declared[line.target.id] = TYPES[ast.unparse(line.annotation)]
    return declared


def check_parameters(
    notebooks: Sequence[Path], parameters: Mapping[str, str]
) -> dict[Path, dict]:
    """The typed parameters for each notebook, from text values.

    A parameter goes to every notebook that declares it. Raises InputError when none of
    them does, or a value is not of the declared type.
    """
    declared = {notebook: declared_parameters(notebook) for notebook in notebooks}
    known = {name for names in declared.values() for name in names}
    for name in parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else f"use {', '.join(sorted(known))}"
            )
            raise InputError(f"parameter {name!r}: unknown to the notebooks; {hint}")
    return {
        notebook: {
            name: _typed(name, value, declared[notebook][name])
            for name, value in parameters.items()
            if name in declared[notebook]
        }
        for notebook in notebooks
    }


class Lock:
    """One run at a time in a folder; the lock of a process that is gone is taken over."""

    def __init__(self, run_dir: Path, log: Callable[[str], None] = print):
        self.file, self.log = Path(run_dir) / ".lock", log

    def __enter__(self):
        if self.file.exists():
            holder = read_json(self.file)
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
            if _may_be_alive(holder):
                raise InputError(
                    f"{self.file.parent}: in use by {who}; wait for it, or choose "
                    f"another --run-dir (if it is gone, remove {self.file})"
                )
            self.log(f"taking over the run folder from {who}, which is gone")
        since = datetime.now().isoformat(timespec="seconds")
        mine = {"pid": os.getpid(), "host": platform.node(), "since": since}
        write_json(self.file, mine)
        return self

    def __exit__(self, *_):
        self.file.unlink(missing_ok=True)


def _may_be_alive(holder: dict) -> bool:
    return holder["host"] != platform.node() or psutil.pid_exists(holder["pid"])


def _also_to(file: Path, log: Callable[[str], None]) -> Callable[[str], None]:
    def both(line: str) -> None:
        log(line)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    return both


def _run_one(
    notebook: Path,
    parameters: dict,
    run_dir: Path,
    faces: FaceSet,
    resume: bool,
    log: Callable[[str], None],
) -> None:
    name = notebook.stem
    metrics, stamp = run_dir / name / "metrics.json", run_dir / name / ".inputs"
    inputs = _inputs_hash(notebook, parameters, faces)
    done = metrics.exists() and stamp.exists()
    if resume and done and stamp.read_text() == _stamp(inputs, metrics):
        log(f"{name:<20} unchanged, skipped")
        return
    metrics.unlink(missing_ok=True)
    started = time.perf_counter()
    executed = run_dir / "notebooks" / notebook.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    problem = _execute(notebook, executed, parameters)
    if not problem and not metrics.exists():
        problem = "ended without writing its metrics.json"
    if problem:
        raise WorkFailed(
            f"{name}: {problem}; see {executed}, then run again with --resume"
        )
    write_atomic(stamp, _stamp(inputs, metrics).encode())
    log(f"{name:<20} {time.perf_counter() - started:6.1f} s")


def _execute(notebook: Path, executed: Path, parameters: dict) -> str:
    """Run one notebook; returns what went wrong in one line, or nothing."""
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters,
            cwd=notebook.parent,
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=QUIET,
        )
    except PapermillExecutionError as error:
        lines = f"{error.ename}: {error.evalue}".strip().splitlines()
        return f"cell [{error.exec_count}] raised {lines[0]}"
    except (CellTimeoutError, DeadKernelError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def _inputs_hash(notebook: Path, parameters: dict, faces: FaceSet) -> str:
    """What a notebook's results depend on: code, helpers, parameters, data, versions."""
    cells = nbformat.read(notebook, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    helpers = [p.read_bytes() for p in sorted((PROJECT / "helpers").rglob("*.py"))]
    given = {name: value for name, value in parameters.items() if name != "run_dir"}
    versions = environment()["versions"]
    plain = json.dumps([code, given, faces.data_hash(), versions], sort_keys=True)
    return sha256(plain.encode(), *helpers)


def _stamp(inputs: str, metrics: Path) -> str:
    return f"{inputs} {sha256(metrics.read_bytes())}\n"


def _typed(name: str, value: str, kind: type):
    """A text value as the declared type; raises InputError when it is not one."""
    if kind is bool:
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
    else:
        try:
            return kind(value)
        except ValueError:
            pass
    raise InputError(f"parameter {name}={value!r}: must be of type {kind.__name__}")
