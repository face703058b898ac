import os
import re
import signal
import threading
import time
import zipfile

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.apps import runner
from helpers.data.faces import FaceSet
from helpers.experiments.run_folder import collect
from helpers.files import (
    InputError,
    WorkFailed,
    free_cores,
    read_json,
    run_lock,
    write_json,
)

PARAMETERS = "\n".join(
    [
        'profile: str = "quick"  # profile',
        'images: str = ""  # images',
        'run_dir: str = ""  # folder',
        'photograph: str = ""  # file',
        'faces_80: str = ""  # folder or zip',
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
    """A folder for small notebooks, with fake images, so that only kernels take time."""
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
    assert not (course.run_dir / ".holder.json").exists()


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


@pytest.fixture
def fake_kernel(course, monkeypatch):
    """Write the metrics without a kernel; papermill's inspection is not mocked."""

    def execute(notebook, executed, parameters, **options):
        metrics = {"notebook": notebook.stem, "networks": {}, "data": DATA}
        write_json(course.run_dir / notebook.stem / "metrics.json", metrics)

    monkeypatch.setattr(runner.papermill, "execute_notebook", execute)


def change_a_photograph(folder):
    (folder / "photograph.png").write_bytes(b"changed")


def change_an_image_and_keep_its_size_and_date(folder):
    file = folder / "faces_80" / "train" / "a.png"
    old = file.stat()
    file.write_bytes(b"A")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))


def add_an_image(folder):
    (folder / "faces_80" / "val" / "b.png").write_bytes(b"b")


def rename_an_image(folder):
    (folder / "faces_80/train/a.png").rename(folder / "faces_80/train/b.png")


def change_the_weights(folder):
    (folder / "weights" / "colorizer.safetensors").write_bytes(b"changed")


def add_weights(folder):
    (folder / "weights" / "classifier.safetensors").write_bytes(b"new")


CHANGES = [
    change_a_photograph,
    change_an_image_and_keep_its_size_and_date,
    add_an_image,
    rename_an_image,
    change_the_weights,
    add_weights,
]


@pytest.fixture
def side_files(course, tmp_path, monkeypatch):
    """Write the files that a notebook depends on; return the parameters naming them."""
    for name in (
        "photograph.png",
        "faces_80/train/a.png",
        "weights/colorizer.safetensors",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a")
    (tmp_path / "faces_80" / "val").mkdir()
    monkeypatch.setattr(runner, "WEIGHTS", tmp_path / "weights", raising=False)
    monkeypatch.chdir(tmp_path)
    return {"photograph": "photograph.png", "faces_80": str(tmp_path / "faces_80")}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_resume_runs_again_after_a_change_in_a_side_file(
    course, fake_kernel, side_files, tmp_path, change
):
    course.add("01_a").run(side_files)
    assert resumed(course, side_files) == []
    change(tmp_path)
    assert resumed(course, side_files) == ["01_a"]
    assert resumed(course, side_files) == []


def test_resume_runs_again_after_a_change_in_a_zip(course, fake_kernel, tmp_path):
    def zipped(content):
        with zipfile.ZipFile(tmp_path / "faces_80.zip", "w") as file:
            file.writestr("train/a.png", content)

    zipped("old")
    given = {"faces_80": str(tmp_path / "faces_80.zip")}
    course.add("01_a").run(given)
    assert resumed(course, given) == []
    zipped("new")
    assert resumed(course, given) == ["01_a"]


def test_resume_runs_again_after_a_change_in_the_file_of_a_default(
    course, fake_kernel, side_files, tmp_path
):
    changed = PARAMETERS.replace('photograph: str = ""', "photograph: str = 'p.png'")
    (tmp_path / "p.png").write_bytes(b"old")
    course.add("01_a", parameters=changed).run()
    assert resumed(course) == []
    (tmp_path / "p.png").write_bytes(b"new")
    assert resumed(course) == ["01_a"]


def test_resume_runs_again_after_a_change_in_the_long_runs(
    course, fake_kernel, monkeypatch, tmp_path
):
    folder = tmp_path / "reference"
    folder.mkdir()
    monkeypatch.setattr(runner, "REFERENCE", folder)
    course.add("01_a").run()
    assert resumed(course) == []
    (folder / "best.json").write_text("{}")
    assert resumed(course) == ["01_a"]


def test_an_unreadable_side_file_is_an_input_error(course, fake_kernel, monkeypatch):
    course.add("01_a")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runner.hashlib, "file_digest", refuse)
    with pytest.raises(InputError, match=r"cannot read \(Permission denied\)"):
        course.run()


def resumed(course, parameters=None):
    """Resume a run; return the notebooks that ran again."""
    course.lines.clear()
    course.run(parameters, resume=True)
    return [line.split()[0] for line in course.lines if line.endswith(" s")]


def test_a_relative_path_is_the_same_file_in_the_notebook(course, side_files):
    course.add("01_a", WRITE + "assert open(photograph).read() == 'a'\n")
    course.run({"photograph": "photograph.png"})
    assert course.metrics("01_a")


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


def test_a_missing_parameters_tag_is_refused(course):
    course.add("01_a", tags=())
    with pytest.raises(InputError, match="0 cells are tagged"):
        course.run()


def test_two_parameters_tags_are_refused(course):
    course.add("01_a")
    path = course.folder / "01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata = {"tags": ["parameters"]}
    nbformat.write(notebook, path)
    with pytest.raises(InputError, match="2 cells are tagged"):
        course.run()


@pytest.mark.parametrize(
    "line",
    [
        'name = ""',
        "size: list = [1]",
        "size: int | None = 1",
        "size: int",
        "print(1)",
    ],
)
def test_a_parameter_line_without_a_known_type_is_refused(course, line):
    course.add("01_a", parameters=f"{PARAMETERS}\n{line}")
    with pytest.raises(InputError, match=f"01_a.ipynb: .* line `{re.escape(line)}`"):
        course.run()


def test_a_parameter_line_that_papermill_cannot_read_is_refused(course):
    course.add("01_a", parameters='name: str = ""  # a=1 or b=2')
    with pytest.raises(InputError, match="cannot read the parameter line `name"):
        course.run()


def test_a_parameter_that_is_declared_twice_is_refused(course):
    course.add("01_a", parameters=f"{PARAMETERS}\nseed: int = 2")
    with pytest.raises(InputError, match="cannot read the parameter line `seed"):
        course.run()


def test_declared_parameters_have_names_and_types(course):
    course.add("01_a", parameters=f"# comment\n\n{PARAMETERS}")
    declared = runner.declared_parameters(course.folder / "01_a.ipynb")
    texts = dict.fromkeys(
        ["profile", "images", "run_dir", "photograph", "faces_80"], str
    )
    assert declared == {**texts, "lr": float, "flag": bool, "seed": int}


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
    with run_lock(course.run_dir, course.lines.append):
        assert "taking over" not in course.lines[-1]


def test_a_dead_kernel_is_a_failure(course):
    course.add("01_a", WRITE.replace("import json", "import os, json") + "os._exit(1)")
    with pytest.raises(
        WorkFailed, match=r"01_a: its kernel died in cell \[3\].*memory"
    ):
        course.run()


def test_a_cell_that_takes_too_long_is_stopped_and_named(course):
    course.add("01_a", "import time; time.sleep(60)")
    with pytest.raises(WorkFailed, match=r"01_a: cell \[3\] took more than 1 s"):
        course.run(cell_timeout=1)


@pytest.mark.parametrize("ending", ["import sys; sys.exit(0)", "pass"])
def test_a_stale_result_is_not_taken_for_a_new_one(course, ending):
    course.add("01_a").run()
    assert course.metrics("01_a")
    course.add("01_a", ending)
    with pytest.raises(WorkFailed, match="without writing its"):
        course.run()
    assert not (course.run_dir / "01_a/metrics.json").exists()


def test_a_second_run_in_the_folder_is_refused(course):
    course.add("01_a")
    with (
        run_lock(course.run_dir),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
    ):
        course.run()
    assert not (course.run_dir / "01_a").exists()


def test_a_folder_that_cannot_be_written_stops_at_the_start(course, tmp_path):
    course.add("01_a")
    (tmp_path / "file").write_text("")
    course.run_dir = tmp_path / "file" / "run"
    with pytest.raises(InputError, match="cannot write or lock"):
        course.run()


def test_two_at_a_time_give_the_same_results(course, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("01_a", "02_b", "03_c"):
        course.add(name)
    course.run(jobs=2)
    assert os.environ["OMP_NUM_THREADS"] == str(max(1, free_cores() // 2))
    assert {line.split()[0] for line in course.lines if line.endswith(" s")} == {
        "01_a",
        "02_b",
        "03_c",
    }
    assert len(collect(course.run_dir)["notebooks"]) == 3


def test_of_two_at_a_time_the_one_that_fails_is_named_and_no_other_starts(course):
    course.add("01_a", "import time; time.sleep(1); raise ValueError('no color')")
    for name in ("02_b", "03_c", "04_d", "05_e", "06_f"):
        course.add(name)
    with pytest.raises(WorkFailed, match=r"01_a: .* raised ValueError: no color"):
        course.run(jobs=2)
    assert not (course.run_dir / "06_f").exists()


def test_ctrl_c_ends_the_kernels_of_both(course):
    pid = "import os, pathlib; pathlib.Path({!r}).write_text(str(os.getpid()))"
    files = [course.folder / name for name in ("a.pid", "b.pid")]
    for name, file in zip(("01_a", "02_b"), files, strict=True):
        course.add(name, f"{pid.format(str(file))}; import time; time.sleep(300)")

    def interrupt():
        while not all(file.exists() and file.read_text() for file in files):
            time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        course.run(jobs=2)
    pids = [int(file.read_text()) for file in files]
    end = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(psutil.pid_exists(pid) for pid in pids)
