"""Checks of a submission as a whole: its notebooks, and whether its results are its own."""

from collections.abc import Iterator
from pathlib import Path

from helpers.apps.evidence import Finding
from helpers.apps.runner import read_notebook
from helpers.files import read_json, sha256


def notebooks(work) -> Iterator[Finding]:
    """Check that the notebooks were run, completely, as they are, and in this run."""
    paths = sorted(work.notebooks.glob("*.ipynb"))
    expected = (
        sorted(p.name for p in work.originals.glob("*.ipynb")) if work.originals else []
    )
    missing = [name for name in expected if name not in {p.name for p in paths}]
    yield Finding(
        "all notebooks are there",
        not missing and len(paths) > 0,
        f"{len(paths)} notebooks; missing: {', '.join(missing) or 'none'}",
    )
    for path in paths:
        notebook = read_notebook(path)
        if problem := _problem_of(notebook, path, work.originals):
            yield Finding(f"{path.stem} was run as it is", False, problem)
    if work.results:
        yield _from_this_run(work)


def _problem_of(notebook, path: Path, originals: Path | None) -> str:
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    if any(o.output_type == "error" for cell in code for o in cell.outputs):
        return "a cell raised an error"
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        return "its cells were not run once, from top to bottom"
    if originals and (originals / path.name).is_file():
        original = read_notebook(originals / path.name)
        injected = "injected-parameters"
        ran = [c.source for c in code if injected not in c.metadata.get("tags", [])]
        if ran != [
            c.source
            for c in original.cells
            if c.cell_type == "code" and c.source.strip()
        ]:
            return "its code is not that of notebooks/: its outputs are stale"
    return ""


def _from_this_run(work) -> Finding:
    """Compare results.json with the files that the notebooks wrote in this run."""
    wrong = []
    for name, metrics in work.results.items():
        file, stamp = (work.folder / name / x for x in ("metrics.json", ".inputs"))
        if not file.is_file() or read_json(file) != metrics:
            wrong.append(f"{name} differs from its metrics.json")
        elif not stamp.is_file() or sha256(file.read_bytes()) not in stamp.read_text():
            wrong.append(f"{name}/metrics.json was changed after the run")
    hashes = {
        m["data"]["hash"] for m in work.results.values() if m["notebook"][:2] != "09"
    }
    split = work.folder / "split.json"
    if not split.is_file() or hashes != {read_json(split)["hash"]}:
        wrong.append("results and split are of different images")
    return Finding(
        "results.json is of this run", not wrong, "; ".join(wrong) or "it is"
    )
