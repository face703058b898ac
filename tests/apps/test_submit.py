import os
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner

from helpers.apps import submit as module
from helpers.apps.submit import submit
from helpers.cli import main
from helpers.files import InputError, WorkFailed, write_json

PICTURE = "colorized/train/one.png"
FINDING = {"check": "a check", "holds": True, "found": "it holds"}
MISSING = {"check": "a written report", "holds": False, "found": "none"}


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """Return a small run folder whose grade is good, but for report and tour."""
    folder = tmp_path / "quick"
    write_results(folder, {"images": "portraits", "seed": 4})
    write_json(folder / "04_regressor" / "metrics.json", {})
    (folder / "colorized" / "train").mkdir(parents=True)
    for name in ("one.png", "of_an_earlier_run.png"):
        (folder / "colorized" / "train" / name).write_bytes(b"png")
    (folder / "04_regressor" / "checkpoint.pt").write_bytes(b"not handed in")
    grade_as(monkeypatch, folder, FINDING)
    return folder


def write_results(folder, parameters):
    content = {"parameters": parameters, "networks": {}, "artifacts": [PICTURE]}
    write_json(folder / "results.json", {"notebooks": {"04_regressor": content}})


def grade_as(monkeypatch, folder, finding):
    graded = {
        "components": [
            {"title": "Training", "findings": [finding]},
            {"title": "Report and video tour", "findings": [MISSING]},
        ],
        "whole": [FINDING],
    }
    write = lambda run_dir, log: write_json(folder / "grade.json", graded)  # noqa: E731
    monkeypatch.setattr(module, "grade", write)


def names_in(file):
    return set(zipfile.ZipFile(file).namelist())


def test_the_zip_holds_what_the_assignment_asks_for(run_dir, tmp_path):
    file = submit(run_dir, tmp_path / "a.zip", log=lambda line: None)
    names = names_in(file)
    assert {
        "HAND_IN.md",
        "Makefile",
        "requirements.lock",
        "helpers/cli/commands.py",
        "examples/test.png",  # README shows it
    } <= names
    assert {"notebooks/01_load.ipynb", "weights/colorizer.safetensors"} <= names
    assert "outputs/quick/colorized/train/one.png" in names
    assert not [x for x in names if "earlier_run" in x]
    assert not [x for x in names if "__pycache__" in x or x.endswith(".pt")]
    assert not [x for x in names if x.startswith("/") or ".." in x]
    guide = zipfile.ZipFile(file).read("HAND_IN.md").decode()
    assert (
        "missing: `deepcolor report` writes it" in guide and "missing: `make t" in guide
    )


def test_a_fault_is_named_and_nothing_is_written(run_dir, tmp_path, monkeypatch):
    grade_as(monkeypatch, run_dir, {**FINDING, "holds": False, "found": "a leak"})
    with pytest.raises(
        WorkFailed, match=r"not handed in: a check \(a leak\); 1 faults"
    ):
        submit(run_dir, tmp_path / "a.zip", log=lambda line: None)
    assert not list(tmp_path.glob("*.zip"))


def test_a_film_is_included_or_linked(run_dir, tmp_path):
    (run_dir / "videotour").mkdir()
    (run_dir / "videotour" / "tour.mp4").write_bytes(b"film")
    quiet = {"log": lambda line: None}
    file = submit(run_dir, tmp_path / "a.zip", **quiet)
    assert "videotour/tour.mp4" in names_in(file)
    address = "https://example.com/tour"
    file = submit(run_dir, file, tour_link=address, force=True, **quiet)
    assert "videotour/tour.mp4" not in names_in(file)
    assert address in zipfile.ZipFile(file).read("HAND_IN.md").decode()
    with pytest.raises(WorkFailed, match="MB, more than 1; give --tour-link"):
        submit(run_dir, tmp_path / "b.zip", max_megabytes=1, **quiet)
    assert not list(tmp_path.glob("*b.zip*"))
    before = file.read_bytes()
    with pytest.raises(WorkFailed, match="MB, more than 1"):
        submit(run_dir, file, max_megabytes=1, force=True, **quiet)
    assert file.read_bytes() == before
    with pytest.raises(InputError, match="is a file; give the run folder"):
        submit(file, tmp_path / "c.zip", **quiet)


def test_a_file_from_before_1980_is_included(run_dir, tmp_path):
    picture = run_dir / "colorized" / "train" / "one.png"
    os.utime(picture, (0, 0))
    file = submit(run_dir, tmp_path / "a.zip", log=lambda line: None)
    assert "outputs/quick/colorized/train/one.png" in names_in(file)


def test_photographs_are_included_only_if_asked(run_dir, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"jpg")
    write_results(run_dir, {"images": str(photos)})
    quiet = {"log": lambda line: None}
    assert "face_images/me.jpg" not in names_in(
        submit(run_dir, tmp_path / "a.zip", **quiet)
    )
    file = submit(run_dir, tmp_path / "b.zip", with_images=True, **quiet)
    assert "face_images/me.jpg" in names_in(file)


def test_an_existing_file_is_kept(run_dir, tmp_path):
    file = tmp_path / "a.zip"
    file.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        submit(run_dir, file)
    result = CliRunner().invoke(main, ["submit", str(run_dir), "-o", str(file)])
    assert result.exit_code == 2 and file.read_text() == "mine"
    with pytest.raises(InputError, match="no such folder"):
        submit(run_dir, tmp_path / "none" / "a.zip")


def test_the_unpacked_program_runs(run_dir, tmp_path):
    file = submit(run_dir, tmp_path / "a.zip", log=lambda line: None)
    place = tmp_path / "bare"
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place)
    code = "import helpers, sys; from helpers.cli import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0 and "chrominance" in done.stdout
