"""Copies of the notebooks to work in: for students without solutions, or with them.

A solution is what stands between `### BEGIN SOLUTION` and `### END SOLUTION` in a cell
tagged `solution`; the next cell, tagged `exercise-check`, tests it. Copies with solutions
are source notebooks for nbgrader, too: their metadata mark the same cells.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers.apps.runner import NOTEBOOKS, choose_notebooks, read_notebook
from helpers.files import InputError, make_folder, user_path, write_atomic

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PLACE = "# your code here"
START = "00_start.ipynb"
POINTS = 1  # of each exercise, for nbgrader


def copy_notebooks(
    folder: Path,
    *,
    solutions: bool = False,
    keep: bool = False,
    source: Path = NOTEBOOKS,
    log: Callable[[str], None] = print,
) -> list[Path]:
    """Copy the notebooks and a start page into `folder`; return the paths of the copies.

    solutions  keep solutions and stored outputs; otherwise both are taken out
    keep       leave copies alone that exist already; otherwise they are an error

    Raises InputError if `folder` holds one of the notebooks already, or is a file.
    """
    notebooks = choose_notebooks(source)
    folder = user_path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder")
    if folder.resolve() == Path(source).resolve():
        raise InputError(f"{folder}: holds the originals; choose another folder")
    names = [START, *(path.name for path in notebooks)]
    existing = [name for name in names if (folder / name).exists()]
    if existing and not keep:
        raise InputError(
            f"{folder}: already holds {existing[0]}; choose a new folder, or use --keep"
        )
    make_folder(folder)
    copies = {path.name: read_notebook(path) for path in notebooks}
    titles = {name: _title(notebook) for name, notebook in copies.items()}
    for number, (name, notebook) in enumerate(copies.items()):
        if name in existing:
            continue
        prepare(notebook, solutions)
        _mend_links(notebook, folder, Path(source))
        _write(notebook, folder / name)
        log(f"{number + 1:>2} of {len(copies)}  {folder / name}")
    if START in existing:
        log(f"{folder / START} is unchanged; it does not list new notebooks")
    else:
        _write(_start_page(titles, solutions), folder / START)
    if count := len(set(existing) - {START}):
        log(f"{count} notebooks were there already and are unchanged")
    return [folder / name for name in (START, *copies)]


def prepare(notebook: NotebookNode, solutions: bool) -> None:
    """Mark the exercises for nbgrader; take solutions and outputs out, unless kept."""
    number = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        number += "solution" in tags
        if "solution" in tags:
            cell.metadata["nbgrader"] = _marks(f"exercise-{number}", solution=True)
            if not solutions:
                cell.source = without_solution(cell.source, PLACE)
        elif "exercise-check" in tags:
            marks = _marks(f"exercise-{number}-check", grade=True, locked=True)
            cell.metadata["nbgrader"] = {**marks, "points": POINTS}
        if not solutions:
            cell.outputs, cell.execution_count = [], None


def without_solution(source: str, place: str = "") -> str:
    """Return a cell with `place` instead of its solution; "" if it has none."""
    lines = source.splitlines()
    marks = [i for i, line in enumerate(lines) if line.strip() in (BEGIN, END)]
    if [lines[i].strip() for i in marks] != [BEGIN, END]:
        return ""
    first, last = marks
    indent = (
        lines[first][: -len(lines[first].lstrip())] if lines[first][0] == " " else ""
    )
    middle = [indent + place] if place else []
    return "\n".join(lines[:first] + middle + lines[last + 1 :])


def _marks(name: str, **kind: bool) -> dict:
    marks = {"grade": False, "locked": False, "solution": False, "task": False}
    return marks | kind | {"grade_id": name, "schema_version": 3}


def _mend_links(notebook: NotebookNode, folder: Path, source: Path) -> None:
    """Let links to files outside the notebooks' folder work from `folder`."""

    def mended(match: re.Match) -> str:
        target = os.path.relpath(source / match[1], folder.resolve())
        return f"]({Path(target).as_posix()}"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\.\./[^)#\s]+)", mended, cell.source)


def _title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _start_page(titles: dict[str, str], solutions: bool) -> NotebookNode:
    """Return a notebook with one markdown cell that leads to the others."""
    lines = [f"- [{title}]({name})" for name, title in titles.items()]
    exercises = "Exercises have a cell for your answer and a check cell below it."
    if solutions:
        exercises = "The exercises are solved. " + exercises
    text = [
        "# Deep colorization",
        "These are copies of the notebooks. You may change them as you like: the originals "
        "in `notebooks/` stay as they are. To get a fresh copy of a notebook, delete or "
        "rename it here and run the same command again: `make lab`, or `deepcolor student` "
        "with `--keep`.",
        "\n".join(lines),
        "Each notebook runs on its own, from top to bottom: *Run*, *Restart Kernel and Run "
        f"All Cells*. {exercises} The results are written to `outputs/`.",
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cell = new_markdown_cell("\n\n".join(text), id="start")
    return new_notebook(cells=[cell], metadata={"kernelspec": kernel})


def _write(notebook: NotebookNode, path: Path) -> None:
    write_atomic(path, nbformat.writes(notebook).encode())
