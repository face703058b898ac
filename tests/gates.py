"""What a committed notebook must be; a test feeds the gate known-bad notebooks."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat

MAX_BYTES = 1_000_000
MAX_CELL_LINES = 40
MAX_MEDIAN_LINES = 10
MAX_COLUMNS = 88
MIN_CHECKED = 3
CLOSING = ["## Checks", "## Summary", "## Exercises", "## References"]
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|work|mnt|data)/")


def problems_of(path: Path) -> list[str]:
    """Everything that is wrong with one committed notebook, in words."""
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return [
        *_execution(notebook, code),
        *_parameters(code),
        *_cells(notebook, code),
        *_text(notebook),
        *(
            [f"larger than {MAX_BYTES} bytes"]
            if path.stat().st_size > MAX_BYTES
            else []
        ),
    ]


def functions_of(path: Path) -> set[str]:
    """Names of the functions and classes that a notebook defines at its top level."""
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(c.source for c in cells if c.cell_type == "code")
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(source).body if isinstance(node, kinds)}


def _execution(notebook, code) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append("not executed once from top to bottom")
    if any(o.output_type == "error" for cell in code for o in cell.outputs):
        found.append("holds the output of an error")
    if any(o.get("name") == "stderr" for cell in code for o in cell.outputs):
        found.append("holds warnings (stderr)")
    checked = [c for c in code if "nbval-check-output" in c.metadata.get("tags", [])]
    if len(checked) < MIN_CHECKED:
        found.append(f"only {len(checked)} cells whose output is compared")
    if any(not cell.outputs for cell in checked):
        found.append("a compared cell has no output to compare")
    if any("image/png" in o.get("data", {}) for cell in checked for o in cell.outputs):
        found.append("a compared cell shows a picture, which is never compared")
    if "papermill" in notebook.metadata:
        found.append("holds papermill's metadata")
    if any("execution" in cell.metadata for cell in code):
        found.append("holds the times of its execution")
    return found


def _parameters(code) -> list[str]:
    tagged = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells tagged parameters"]
    lines = tagged[0].source.splitlines()
    if not all(re.match(r"\w+: (int|float|str|bool) = .+  # .+", x) for x in lines):
        return ["a parameter without type, literal or comment"]
    return []


def _cells(notebook, code) -> list[str]:
    found = []
    lengths = [len(cell.source.splitlines()) for cell in code]
    if max(lengths) > MAX_CELL_LINES:
        found.append(f"a code cell of {max(lengths)} lines")
    if statistics.median(lengths) > MAX_MEDIAN_LINES:
        found.append(f"the median code cell has {statistics.median(lengths)} lines")
    if any(len(x) > MAX_COLUMNS for cell in code for x in cell.source.splitlines()):
        found.append(f"a code line of more than {MAX_COLUMNS} columns")
    if any("plt." in c.source and not c.source.endswith("plt.show()") for c in code):
        found.append("a drawing cell that does not end in plt.show()")
    kinds = "".join("c" if c.cell_type == "code" else "m" for c in notebook.cells)
    if "ccc" in kinds[5:]:  # the opening has parameters, imports and the start of a run
        found.append("three code cells in a row")
    return found


def _text(notebook) -> list[str]:
    found = []
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    if not re.match(r"# \d\d \w.*\n\nIn this notebook you will\n", prose[0]):
        found.append("does not open with `# NN Title` and what you will do")
    titles = re.findall(r"^## .+$", "\n".join(prose), flags=re.MULTILINE)
    if titles[-4:] != CLOSING:
        found.append(f"does not close with {', '.join(CLOSING)}")
    if ABSOLUTE_PATH.search(json.dumps(notebook)):
        found.append("holds an absolute path")
    return found
