import nbformat
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.preprocessors import CheckCellMetadata, ClearSolutions, LockCells

from helpers.apps.runner import NOTEBOOKS
from helpers.apps.student import copy_notebooks, prepare, without_solution
from helpers.cli import main
from helpers.files import PROJECT, InputError

SOLUTION = """def double(x):
    \"\"\"Return twice x.\"\"\"
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION"""
CHECK = 'assert double(3) == 6, f"double(3) is 6, not {double(3)}"\nprint("correct")'


@pytest.fixture
def course(tmp_path):
    """Return a folder with one notebook that has one exercise."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = [
        new_markdown_cell("# 01 Test\n\n[Results](../RESULTS.md), [next](02_b.ipynb)"),
        new_code_cell(SOLUTION, metadata={"tags": ["solution"]}),
        new_code_cell(CHECK, metadata={"tags": ["exercise-check"]}),
    ]
    notebook = new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, folder / "01_test.ipynb")
    return folder


def read(path):
    return nbformat.read(path, as_version=4)


def run(notebook):
    return NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()


def test_a_student_copy_has_no_solution_and_its_check_says_what_is_wrong(course):
    folder = course.parent / "copy"
    copy_notebooks(folder, source=course)
    notebook = read(folder / "01_test.ipynb")
    nbformat.validate(notebook)
    solution, check = notebook.cells[1:]
    assert "return" not in solution.source and "# your code here" in solution.source
    assert not check.outputs and check.execution_count is None
    (error,) = run(notebook).cells[2].outputs
    assert error.evalue == "double(3) is 6, not None"
    solution.source += "\n    return x + x"
    (printed,) = run(notebook).cells[2].outputs
    assert printed.text == "correct\n"


def test_a_copy_with_solutions_keeps_them_and_its_outputs(course):
    folder = course.parent / "copy"
    copy_notebooks(folder, solutions=True, source=course)
    notebook = read(folder / "01_test.ipynb")
    assert notebook.cells[1].source == SOLUTION
    assert notebook.cells[2].outputs[0].text == "correct\n"


def test_links_still_lead_to_their_files(course):
    (course.parent / "RESULTS.md").touch()
    folder = course.parent / "a" / "b"
    copy_notebooks(folder, source=course)
    text = read(folder / "01_test.ipynb").cells[0].source
    assert "[next](02_b.ipynb)" in text and "(../../RESULTS.md)" in text
    assert (folder / "../../RESULTS.md").is_file()


def test_the_start_page_links_every_notebook(course):
    start, copy = copy_notebooks(course.parent / "copy", source=course)
    assert f"[01 Test]({copy.name})" in read(start).cells[0].source


def test_own_work_is_never_overwritten(course):
    folder = course.parent / "copy"
    start, copy = copy_notebooks(folder, source=course)
    for file in (start, copy):
        file.write_text("mine")
    with pytest.raises(InputError, match=r"already holds 00_start.ipynb; .* --keep"):
        copy_notebooks(folder, source=course)
    start.rename(folder / "mine.ipynb")
    with pytest.raises(InputError, match=r"already holds 01_test.ipynb; .* --keep"):
        copy_notebooks(folder, source=course)
    (folder / "mine.ipynb").rename(start)
    copy_notebooks(folder, keep=True, source=course)
    assert copy.read_text() == start.read_text() == "mine"
    with pytest.raises(InputError, match="holds the originals"):
        copy_notebooks(course, keep=True, source=course)
    with pytest.raises(InputError, match="is a file"):
        copy_notebooks(copy, source=course)
    with pytest.raises(InputError, match="cannot be created"):
        copy_notebooks(copy / "inside", source=course)


@pytest.mark.parametrize(
    "path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem
)
def test_nbgrader_accepts_every_notebook(path):
    notebook, resources = read(path), {}
    prepare(notebook, solutions=True)
    count = sum("nbgrader" in cell.metadata for cell in notebook.cells)
    for step in (CheckCellMetadata(), LockCells(), ClearSolutions()):
        notebook, resources = step.preprocess(notebook, resources)
    stubs = [c for c in notebook.cells if "raise NotImplementedError" in c.source]
    assert len(stubs) == count / 2
    copy = read(path)
    prepare(copy, solutions=False)
    CheckCellMetadata().preprocess(copy, {})


def test_a_real_student_copy_fails_its_checks_with_a_helpful_line(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPCOLOR_RUN_DIR", str(tmp_path))
    notebook = read(NOTEBOOKS / "02_augment.ipynb")
    prepare(notebook, solutions=False)
    checks = [i for i, c in enumerate(notebook.cells) if _is(c, "exercise-check")]
    notebook = NotebookClient(
        notebook, kernel_name="python3", allow_errors=True, timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()  # fmt: skip
    for number, cell in enumerate(notebook.cells):
        errors = [x for x in cell.get("outputs", []) if x.output_type == "error"]
        assert len(errors) == (number in checks), cell.source
        assert all(x.ename == "AssertionError" and x.evalue for x in errors)


def _is(cell, tag):
    return tag in cell.metadata.get("tags", [])


def test_without_solution_refuses_what_is_not_marked():
    assert without_solution("x = 1") == ""
    assert without_solution("### END SOLUTION\n### BEGIN SOLUTION") == ""
    assert without_solution(SOLUTION, "# here").splitlines()[2] == "    # here"


def test_the_command_copies_the_course(tmp_path):
    result = CliRunner().invoke(main, ["student", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "mine").iterdir())
    originals = sorted(path.name for path in (PROJECT / "notebooks").glob("*.ipynb"))
    assert names == ["00_start.ipynb", *originals]
    again = CliRunner().invoke(main, ["student", str(tmp_path / "mine")])
    assert again.exit_code == 2 and "already holds" in again.output
