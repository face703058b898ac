"""Checks of committed notebooks; tests feed them notebooks that are known to be bad."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat

from helpers.apps.student import without_solution

MAX_BYTES = 1_000_000
MAX_CELL_LINES = 40
MAX_MEDIAN_LINES = 10
MAX_COLUMNS = 88
MIN_CHECKED = 5
MIN_EXERCISES = 3
CLOSING = ["## Checks", "## Summary", "## Exercises", "## References"]
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|work|mnt|data)/")


def problems_of(path: Path) -> list[str]:
    """Return all problems of one committed notebook, as short texts."""
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return [
        *_execution(notebook, code),
        *_parameters(code),
        *_cells(notebook, code),
        *_exercises(code),
        *_text(notebook),
        *(
            [f"is larger than {MAX_BYTES} bytes"]
            if path.stat().st_size > MAX_BYTES
            else []
        ),
    ]


def functions_of(path: Path) -> set[str]:
    """Return the names of the top-level functions and classes of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(c.source for c in cells if c.cell_type == "code")
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(source).body if isinstance(node, kinds)}


def _execution(notebook, code) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append("is not executed exactly once from top to bottom")
    if any(o.output_type == "error" for cell in code for o in cell.outputs):
        found.append("contains the output of an error")
    if any(o.get("name") == "stderr" for cell in code for o in cell.outputs):
        found.append("contains warnings (stderr)")
    checked = [c for c in code if "nbval-check-output" in c.metadata.get("tags", [])]
    if len(checked) < MIN_CHECKED:
        found.append(f"has only {len(checked)} cells whose output is compared")
    if any(not cell.outputs for cell in checked):
        found.append("has a compared cell without output")
    if any("image/png" in o.get("data", {}) for cell in checked for o in cell.outputs):
        found.append("has a compared cell with an image, which is never compared")
    if "papermill" in notebook.metadata:
        found.append("contains metadata of papermill")
    if any("execution" in cell.metadata for cell in code):
        found.append("contains execution times")
    return found


def _parameters(code) -> list[str]:
    tagged = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"has {len(tagged)} cells tagged parameters"]
    lines = tagged[0].source.splitlines()
    if not all(re.match(r"\w+: (int|float|str|bool) = .+  # .+", x) for x in lines):
        return ["has a parameter without a type, a value or a comment"]
    return []


def _cells(notebook, code) -> list[str]:
    found = []
    lengths = [len(cell.source.splitlines()) for cell in code]
    if max(lengths) > MAX_CELL_LINES:
        found.append(f"has a code cell of {max(lengths)} lines")
    if statistics.median(lengths) > MAX_MEDIAN_LINES:
        found.append(f"has code cells of {statistics.median(lengths)} lines (median)")
    if any(len(x) > MAX_COLUMNS for cell in code for x in cell.source.splitlines()):
        found.append(f"has a code line of more than {MAX_COLUMNS} columns")
    if any("plt." in c.source and not c.source.endswith("plt.show()") for c in code):
        found.append("has a plotting cell that does not end in plt.show()")
    kinds = "".join("c" if c.cell_type == "code" else "m" for c in notebook.cells)
    if (
        "ccc" in kinds[5:]
    ):  # the opening needs three: parameters, imports, start of the run
        found.append("has three code cells in a row")
    return found


def _exercises(code) -> list[str]:
    """Each exercise is a cell tagged solution, followed by one tagged exercise-check."""
    found = []
    kinds = [set(cell.metadata.get("tags", [])) for cell in code]
    solutions = [i for i, tags in enumerate(kinds) if "solution" in tags]
    if len(solutions) < MIN_EXERCISES:
        found.append(f"has only {len(solutions)} exercises with a solution")
    for number in solutions:
        if "exercise-check" not in set().union(*kinds[number + 1 : number + 2]):
            found.append("has a solution without a check after it")
        elif not re.search(r"assert [\s\S]+, \(?\s*f?\"", code[number + 1].source):
            found.append("has an exercise check that does not say what is wrong")
        if not is_valid(without_solution(code[number].source)):
            found.append("has a solution that cannot be taken out")
    return found


def is_valid(source: str) -> bool:
    """Return whether this is Python code, and not empty."""
    try:
        return bool(ast.parse(source).body)
    except SyntaxError:
        return False


def _text(notebook) -> list[str]:
    found = []
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    if not re.match(r"# \d\d \w.*\n\nIn this notebook you will\n", prose[0]):
        found.append("does not open with `# NN Title` and a list of goals")
    titles = re.findall(r"^## .+$", "\n".join(prose), flags=re.MULTILINE)
    if titles[-4:] != CLOSING:
        found.append(f"does not end with {', '.join(CLOSING)}")
    if ABSOLUTE_PATH.search(json.dumps(notebook)):
        found.append("contains an absolute path")
    return found
