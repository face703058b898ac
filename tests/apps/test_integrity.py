from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.apps.integrity import notebooks
from helpers.files import read_json, sha256, write_json


@pytest.fixture
def work(tmp_path):
    """Return a run of two notebooks, as the checks see it."""
    originals, folder = tmp_path / "originals", tmp_path / "run"
    for place in (originals, folder / "notebooks"):
        place.mkdir(parents=True)
        for name in ("04_one", "05_two"):
            cells = [new_code_cell(f"print('{name}')", execution_count=1)]
            nbformat.write(new_notebook(cells=cells), place / f"{name}.ipynb")
    results = {}
    for name in ("04_one", "05_two"):
        metrics = {"notebook": name, "data": {"hash": "abc"}, "networks": {"x": 1}}
        write_json(folder / name / "metrics.json", metrics)
        digest = sha256((folder / name / "metrics.json").read_bytes())
        (folder / name / ".inputs").write_text(f"inputs {digest}\n")
        results[name] = metrics
    write_json(folder / "split.json", {"hash": "abc"})
    return SimpleNamespace(
        folder=folder,
        notebooks=folder / "notebooks",
        originals=originals,
        results=results,
    )


def faults(work):
    return [f"{x.check}: {x.found}" for x in notebooks(work) if not x.holds]


def test_a_complete_run_has_no_fault(work):
    assert faults(work) == []


def test_stale_outputs_are_named(work):
    cells = [new_code_cell("print('changed since')", execution_count=1)]
    nbformat.write(new_notebook(cells=cells), work.originals / "05_two.ipynb")
    (fault,) = faults(work)
    assert fault.startswith("05_two was run as it is") and "stale" in fault


def test_a_missing_notebook_is_named(work):
    (work.notebooks / "04_one.ipynb").unlink()
    (fault,) = faults(work)
    assert "missing: 04_one.ipynb" in fault


def test_results_of_another_run_are_named(work):
    work.results["04_one"] = {**work.results["04_one"], "networks": {"x": 2}}
    assert faults(work) == [
        "results.json is of this run: 04_one differs from its metrics.json"
    ]


def test_a_figure_typed_into_both_files_is_named(work):
    path = work.folder / "04_one" / "metrics.json"
    metrics = {**read_json(path), "networks": {"x": 0}}
    write_json(path, metrics)
    work.results["04_one"] = metrics
    (fault,) = faults(work)
    assert "04_one/metrics.json was changed after the run" in fault


def test_a_split_of_other_images_is_named(work):
    write_json(work.folder / "split.json", {"hash": "other"})
    (fault,) = faults(work)
    assert "different images" in fault


def test_a_notebook_with_an_error_or_skipped_cells_is_named(work):
    path = work.notebooks / "04_one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].execution_count = 7
    nbformat.write(notebook, path)
    assert "not run once, from top to bottom" in faults(work)[0]
    output = nbformat.v4.new_output("error", ename="E", evalue="x", traceback=[])
    notebook.cells[0].outputs = [output]
    nbformat.write(notebook, path)
    assert "a cell raised an error" in faults(work)[0]
