"""Our own errors take one line in a notebook; others keep their traceback."""

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

USE = (
    "from helpers.experiments.short_errors import use_short_errors\nuse_short_errors()"
)


def error_of(source):
    notebook = new_notebook(cells=[new_code_cell(USE), new_code_cell(source)])
    with pytest.raises(CellExecutionError):  # the cell fails for a runner, too
        NotebookClient(notebook, kernel_name="python3").execute()
    (error,) = [x for x in notebook.cells[1].outputs if x.output_type == "error"]
    return error


def test_our_own_errors_take_one_line():
    source = "from helpers.experiments import start_run\nstart_run('x', profile='fast')"
    error = error_of(source)
    (line,) = error.traceback
    assert line.startswith("error: profile 'fast': unknown; use one of quick")
    assert error.ename == "InputError"


def test_tb_still_shows_the_traceback():
    fail = "from helpers.experiments import start_run\nstart_run('x', profile='fast')"
    notebook = new_notebook(cells=[new_code_cell(s) for s in (USE, fail, "%tb")])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    shown = str(notebook.cells[2].outputs)
    assert "check_values" in shown and "profile 'fast'" in shown


def test_other_errors_keep_their_traceback():
    error = error_of("def f():\n    return 1 / 0\nf()")
    assert len("\n".join(error.traceback).splitlines()) > 3
    assert error.ename == "ZeroDivisionError"
