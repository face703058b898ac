"""Run the notebooks in order through papermill, and check that each one really finished.

A notebook counts as done if its kernel raised no error *and* it wrote its metrics.json in
this run. Papermill alone is not enough: it marks every cell "completed" after a timeout or
a dead kernel, and it accepts unknown parameters and wrong types.
"""

import difflib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from functools import partial
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers.data.faces import PORTRAITS, FaceSet, find_images, load_faces
from helpers.experiments.reference import REFERENCE
from helpers.experiments.run_folder import (
    check_values,
    environment,
    write_results,
)
from helpers.files import (
    PROJECT,
    InputError,
    WorkFailed,
    free_cores,
    run_lock,
    sha256,
    write_atomic,
    write_json,
)

NOTEBOOKS = PROJECT / "notebooks"
WEIGHTS = PROJECT / "weights"
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
# No message about TCP at each start, or about the interrupt that ends each kernel
QUIET = ["--IPKernelApp.log_level=50"]


def run_notebooks(
    run_dir: Path,
    parameters: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    resume: bool = False,
    cell_timeout: int = 0,
    jobs: int = 1,
    folder: Path = NOTEBOOKS,
    log: Callable[[str], None] = print,
) -> Path:
    """Run the course's notebooks in order; return the path of results.md.

    parameters  text values; they must match the types that the notebooks declare
    only        names or numbers of notebooks ("04", "04_regressor"); by default, all
    jobs        number of notebooks that run at the same time; they share the cores
    cell_timeout  seconds after which a cell is stopped; 0: never
    resume      skip a notebook if neither its inputs nor its results have changed

    Raises InputError before any kernel starts if a notebook or parameter is unknown, a
    value has the wrong type, the images cannot be loaded or the folder is in use. Raises
    WorkFailed at the first notebook that does not finish.
    """
    if "run_dir" in parameters:
        raise InputError("-p run_dir: give the folder with --run-dir")
    notebooks = choose_notebooks(folder, only)
    chosen = find_images(parameters.get("images", ""))
    parameters = {
        **parameters,
        "images": str(chosen.resolve()) if chosen else PORTRAITS,
        "run_dir": str(run_dir),
    }
    typed = check_parameters(notebooks, parameters)
    for values in typed.values():
        check_values(values)
    faces = load_faces(parameters["images"])
    with run_lock(run_dir, log):
        log = _also_to(run_dir / "log.txt", log)
        log(f"{datetime.now():%Y-%m-%d %H:%M}  {', '.join(n.stem for n in notebooks)}")
        log(faces.describe())
        machine = environment() | {"jobs": jobs}
        if jobs > 1:  # threads of two kernels on one core would wait for each other
            machine["threads"] = max(1, free_cores() // jobs)
            os.environ.setdefault("OMP_NUM_THREADS", str(machine["threads"]))
        write_json(run_dir / "environment.json", machine)
        how = {"resume": resume, "cell_timeout": cell_timeout, "log": log}
        _run_each(
            [
                partial(_run_one, notebook, typed[notebook], run_dir, faces, **how)
                for notebook in notebooks
            ],
            jobs,
        )
        return write_results(run_dir)


def choose_notebooks(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """Return the numbered notebooks in a folder in order: all, or those named in `only`.

    Raises InputError if there are none, or if a name is unknown.
    """
    every = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise InputError(f"{folder}: no numbered notebooks here; check the folder")
    chosen = []
    for name in only:
        stem = Path(name).stem
        found = [n for n in every if stem in (n.stem, n.stem.split("_")[0])]
        if not found:
            names = ", ".join(n.stem for n in every)
            raise InputError(f"notebook {name!r}: unknown; use one of {names}")
        chosen += found
    return sorted(set(chosen)) or every


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook; raise InputError if it is damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # a damaged one can raise nearly anything
        reason = str(error).splitlines()[0][:80]
        raise InputError(
            f"{path}: not a complete notebook ({reason}); restore it"
        ) from error


def declared_parameters(notebook: Path) -> dict[str, type]:
    """Return the name and type of each parameter that a notebook declares.

    Raises InputError unless exactly one cell is tagged `parameters` and each of its lines
    has the form `name: type = value`, with the type int, float, str or bool.
    """
    cells = read_notebook(notebook).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(
            f"{notebook.name}: {len(tagged)} cells are tagged `parameters`; tag one cell"
        )
    found = papermill.inspect_notebook(notebook)
    declared = {n: TYPES.get(p["inferred_type_name"]) for n, p in found.items()}
    lines = [line.strip() for line in tagged[0].source.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    names = [line.split(":")[0].strip() for line in lines]
    for name, line in zip(names, lines, strict=True):
        if not declared.get(name) or names.count(name) > 1:
            raise InputError(
                f"{notebook.name}: cannot read the parameter line `{line}`; write "
                "`name: int = 1` with one `=` and the type int, float, str or bool"
            )
    return declared


def check_parameters(
    notebooks: Sequence[Path], parameters: Mapping[str, str]
) -> dict[Path, dict]:
    """Convert text values to the typed parameters of each notebook.

    A parameter goes to every notebook that declares it. Raises InputError if no notebook
    declares it, or if a value does not match the declared type.
    """
    declared = {notebook: declared_parameters(notebook) for notebook in notebooks}
    known = sorted({name for names in declared.values() for name in names})
    for name in parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"
            option = " (--epochs)" if name == "num_epochs" else ""
            raise InputError(
                f"parameter {name!r}{option}: unknown to the notebooks; {hint}"
            )
    return {
        notebook: {
            name: _typed(name, value, types[name])
            for name, value in parameters.items()
            if name in types
        }
        for notebook, types in declared.items()
    }


def _typed(name: str, value: str, kind: type):
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return kind(value)
    except (ValueError, KeyError):
        message = f"parameter {name}={value!r}: must be of type {kind.__name__}"
        raise InputError(message) from None


def _also_to(file: Path, log: Callable[[str], None]) -> Callable[[str], None]:
    def both(line: str) -> None:
        log(line)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    return both


def _run_each(runs: Sequence[Callable[[], None]], jobs: int) -> None:
    """Call each function, `jobs` at a time; after an error, start no more of them."""
    if jobs == 1:
        for run in runs:
            run()
        return
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run) for run in runs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, WorkFailed):  # the others may finish
                for kernel in psutil.Process().children():
                    kernel.terminate()
            raise


def _run_one(
    notebook: Path,
    parameters: dict,
    run_dir: Path,
    faces: FaceSet,
    *,
    resume: bool,
    cell_timeout: int,
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
    problem = _execute(notebook, executed, parameters, cell_timeout)
    if not problem and not metrics.exists():
        problem = "ended without writing its metrics.json"
    if problem:
        raise WorkFailed(
            f"{name}: {problem}; see {executed}, then run again with --resume"
        )
    write_atomic(stamp, _stamp(inputs, metrics).encode())
    log(f"{name:<20} {time.perf_counter() - started:6.1f} s")


def _execute(
    notebook: Path, executed: Path, parameters: dict, cell_timeout: int
) -> str:
    """Run one notebook; return the problem in one line, or an empty string.

    The kernel starts in the current directory, so relative paths given as parameters refer
    to the same files here and in the notebook.
    """
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=cell_timeout or None,
            extra_arguments=QUIET,
        )
    except PapermillExecutionError as error:
        lines = f"{error.ename}: {error.evalue}".strip().splitlines()
        return f"cell [{error.exec_count}] raised {lines[0]}"
    except CellTimeoutError:
        return f"cell [{_running_cell(executed)}] took more than {cell_timeout} s"
    except DeadKernelError:
        return (
            f"its kernel died in cell [{_running_cell(executed)}], as after a shortage of "
            f"memory ({psutil.virtual_memory().available / 2**30:.1f} GiB are free now)"
        )
    except OSError as error:
        raise InputError(f"{executed}: cannot write ({error.strerror})") from error
    return ""


def _running_cell(executed: Path) -> int:
    """Return the number of the cell at which a notebook stopped, as Jupyter shows it."""
    cells = [cell for cell in read_notebook(executed).cells if cell.cell_type == "code"]
    return sum(bool(cell.metadata.papermill["start_time"]) for cell in cells)


def _inputs_hash(notebook: Path, parameters: dict, faces: FaceSet) -> str:
    """Return a hash of everything that a notebook's results depend on.

    These are its code and parameters, the images, the package, the versions, the trained
    networks in weights/, the long runs in reference/, RESULTS.md, and the content (not the
    date) of each file, or of all files in each folder, named by a string parameter or its
    default.
    """
    cells = read_notebook(notebook).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    given = {name: value for name, value in parameters.items() if name != "run_dir"}
    declared = papermill.inspect_notebook(notebook).items()
    named = {name: p["default"].strip("\"'") for name, p in declared} | given
    files = sorted((PROJECT / "helpers").rglob("*.py"))
    files += sorted(WEIGHTS.glob("*.safetensors"))
    files += [PROJECT / "RESULTS.md", *_files_of(str(REFERENCE))]
    for name, value in named.items():
        if isinstance(value, str) and name not in ("images", "run_dir"):
            files += _files_of(value)
    hashes = [(str(path), _file_hash(path)) for path in files]
    versions = environment()["versions"]
    inputs = [code, given, faces.data_hash(), versions, hashes]
    return sha256(json.dumps(inputs, sort_keys=True).encode())


def _files_of(value: str) -> list[Path]:
    """Return the file that `value` names, all files in the folder it names, or nothing."""
    if os.path.isdir(value):
        return sorted(path for path in Path(value).rglob("*") if path.is_file())
    return [Path(value)] if os.path.isfile(value) else []


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read ({error.strerror}); check its permissions"
        ) from error


def _stamp(inputs: str, metrics: Path) -> str:
    return f"{inputs} {sha256(metrics.read_bytes())}\n"
