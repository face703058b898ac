import json
import os
import platform
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.apps import runner
from helpers.data.faces import FaceSet
from helpers.files import InputError, WorkFailed, read_json

PARAMETERS = "\n".join(
    [
        'profile: str = "quick"  # profile',
        'images: str = ""  # images',
        'run_dir: str = ""  # folder',
        "lr: float = 0.1  # rate",
        "flag: bool = True  # a switch",
        "seed: int = 1  # seed",
    ]
)
WRITE = """
import json, pathlib
folder = pathlib.Path(run_dir) / NAME
folder.mkdir(parents=True, exist_ok=True)
given = {"lr": lr, "flag": flag, "seed": seed}
metrics = {"notebook": NAME, "given": given, "networks": {}, "data": DATA}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""
DATA = {
    "training_images": 18,
    "test_images": 2,
    "source": "here",
    "split": "random",
    "synthetic": True,
}


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder for small notebooks; photographs are faked, so that kernels are the cost."""
    import torch

    images = torch.zeros(20, 3, 2, 2, dtype=torch.uint8)
    faces = FaceSet(images, [f"{n}.jpg" for n in range(20)], source="here")
    monkeypatch.setattr(runner, "load_faces", lambda images: faces)
    return Course(tmp_path)


class Course:
    def __init__(self, folder):
        self.folder, self.run_dir, self.lines = folder / "notebooks", folder / "run", []
        self.folder.mkdir()

    def add(self, name, code=WRITE, parameters=PARAMETERS, tags=("parameters",)):
        code = f"NAME, DATA = {name!r}, {DATA!r}\n{code}"
        cells = [
            new_code_cell(parameters, metadata={"tags": list(tags)}),
            new_code_cell(code),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        return self

    def run(self, parameters=None, **options):
        options = {"folder": self.folder, "log": self.lines.append} | options
        return runner.run_notebooks(self.run_dir, parameters or {}, **options)

    def metrics(self, name):
        return read_json(self.run_dir / name / "metrics.json")


def test_notebooks_run_in_order_with_typed_parameters(course):
    course.add("02_b").add("01_a")
    page = course.run({"lr": "1e-3", "flag": "false", "seed": "7"})
    assert course.metrics("02_b")["given"] == {"lr": 1e-3, "flag": False, "seed": 7}
    done = [line.split()[0] for line in course.lines if line.endswith(" s")]
    assert done == ["01_a", "02_b"]
    assert page.exists()
    assert (course.run_dir / "notebooks/01_a.ipynb").exists()
    assert "01_a" in (course.run_dir / "log.txt").read_text()
    assert not (course.run_dir / ".lock").exists()


def test_resume_skips_what_is_unchanged_and_nothing_else(course):
    course.add("01_a").add("02_b").run()
    course.lines.clear()
    course.run(resume=True)
    assert [line for line in course.lines if "skipped" in line] == [
        f"{name:<20} unchanged, skipped" for name in ("01_a", "02_b")
    ]

    course.lines.clear()
    course.add("01_a", WRITE + "# changed")
    (course.run_dir / "02_b/metrics.json").write_text("{}")  # not what the run wrote
    course.run(resume=True)
    assert not any("skipped" in line for line in course.lines)

    course.lines.clear()
    course.run({"seed": "2"}, resume=True)
    assert not any("skipped" in line for line in course.lines)


def test_without_resume_everything_runs_again(course):
    course.add("01_a").run()
    course.lines.clear()
    course.run()
    assert not any("skipped" in line for line in course.lines)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sed": "1"}, "'sed': unknown.*did you mean seed"),
        ({"seed": "1.5"}, "seed='1.5': must be of type int"),
        ({"lr": "fast"}, "lr='fast': must be of type float"),
        ({"flag": "1"}, "flag='1': must be of type bool"),
    ],
    ids=str,
)
def test_a_wrong_parameter_stops_before_any_kernel(course, wrong, message):
    course.add("01_a")
    with pytest.raises(InputError, match=message):
        course.run(wrong)
    assert not course.run_dir.exists()


def test_a_missing_or_second_parameters_tag_is_refused(course):
    course.add("01_a", tags=())
    with pytest.raises(InputError, match="0 cells are tagged"):
        course.run()


def test_a_parameter_without_a_type_is_refused(course):
    course.add("01_a", parameters='images = ""')
    with pytest.raises(InputError, match=r"images = ''.*is not of the form"):
        course.run()


def test_an_unknown_notebook_is_named(course):
    course.add("01_a")
    with pytest.raises(InputError, match="notebook '09': unknown; use one of 01_a"):
        course.run(only=["09"])


def test_only_runs_what_is_asked(course):
    course.add("01_a").add("02_b").run(only=["02"])
    assert not (course.run_dir / "01_a").exists()
    assert course.metrics("02_b")


def test_an_error_names_notebook_cell_and_last_line_and_stops(course):
    course.add("01_a", "raise ValueError('no such color')").add("02_b")
    with pytest.raises(
        WorkFailed, match=r"01_a: cell \[\d\] raised ValueError: no such"
    ):
        course.run()
    assert (course.run_dir / "notebooks/01_a.ipynb").exists()
    assert not (course.run_dir / "02_b").exists()
    assert not (course.run_dir / ".lock").exists()


def test_a_dead_kernel_is_a_failure(course):
    course.add("01_a", WRITE.replace("import json", "import os, json") + "os._exit(1)")
    with pytest.raises(WorkFailed, match=r"01_a: .*[Kk]ernel died"):
        course.run()


@pytest.mark.parametrize("ending", ["import sys; sys.exit(0)", "pass"])
def test_a_stale_result_is_not_taken_for_a_new_one(course, ending):
    course.add("01_a").run()
    assert course.metrics("01_a")
    course.add("01_a", ending)
    with pytest.raises(WorkFailed, match="without writing its"):
        course.run()
    assert not (course.run_dir / "01_a/metrics.json").exists()


def test_a_second_run_in_the_folder_is_refused_and_a_stale_lock_taken_over(course):
    course.add("01_a")
    course.run_dir.mkdir()
    lock = course.run_dir / ".lock"
    holder = {"host": platform.node(), "since": "2026-01-01T00:00:00"}

    lock.write_text(json.dumps({"pid": os.getpid(), **holder}))
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        course.run()
    assert lock.exists()

    gone = subprocess.Popen(["true"])
    gone.wait()
    lock.write_text(json.dumps({"pid": gone.pid, **holder}))
    course.run()
    assert any("taking over" in line for line in course.lines)
    assert course.metrics("01_a")


def test_a_folder_that_cannot_be_written_stops_at_the_start(course, tmp_path):
    course.add("01_a")
    (tmp_path / "file").write_text("")
    course.run_dir = tmp_path / "file" / "run"
    with pytest.raises(InputError, match="cannot write"):
        course.run()
