import json
import re
import shutil
import subprocess
import textwrap
from itertools import combinations
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.apps import tour
from helpers.apps.tour import Film, read_script, record_tour, sections
from helpers.cli import main
from helpers.files import PROJECT, InputError, WorkFailed

SHORT = """# A short tour

The preface is not said.

## Load the Dataset

- open 01_load

Glob finds the files, and OpenCV reads them one after the other.
- run Read the files
All images become *one* tensor.

- show Far below

This heading stands far below the first one, so the page has moved.

## Picture

- picture Read the files

This is the picture that the cell has drawn, and the end of the tour.
"""


def missing_program() -> str:
    """Return why no film can be recorded here; "" if one can."""
    try:
        tour.find_browser()
    except InputError as error:
        return str(error)
    return ""


# The script --------------------------------------------------------------------------


def test_the_script_shows_each_stage_of_the_assignment():
    readme = (PROJECT / "README.md").read_text()
    table = readme.partition("## Map of the assignment")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    asked = {row[0].strip("| ").replace("\\", ""): row for row in rows[1:]}
    del asked["Report and video tour"]
    assert len(asked) == 11
    stages = {stage.title: stage for stage in read_script()}
    assert list(stages) == list(asked)
    notebook = ""
    for title, stage in stages.items():
        for step in stage.steps:
            notebook = step.text if step.action == "open" else notebook
        assert f"[{notebook}]" in asked[title][2], title
        used = {step.text for step in stage.steps if step.action in tour.ACTIONS}
        named = set(asked[title][3].split("; "))
        assert used & named, f"{title}: none of {named} is shown"


def test_the_script_runs_cells_in_each_stage_of_the_grading():
    for stage in read_script()[:8]:
        actions = [step.action for step in stage.steps]
        assert "run" in actions and actions.count("say") >= 3, stage.title


def test_the_script_can_be_said_in_five_to_seven_minutes(tmp_path):
    film, stages = Film(tmp_path, speech=False), read_script()
    sentences = [x.text for stage in stages for x in stage.steps if x.action == "say"]
    seconds = sum(map(film.say, sentences)) + len(stages) * tour.TITLE_SECONDS
    low, high = tour.MINUTES
    assert low * 60 - 60 < seconds < high * 60 - 60  # cells run for about a minute


@pytest.fixture
def course(tmp_path):
    """A folder with one small notebook."""
    cells = [
        new_markdown_cell("# 01 Load\n\n## Read the files"),
        new_code_cell("x = 1"),
        new_code_cell("y = 2"),
        new_markdown_cell("end of the section\n\n## Next\n\n### Inside"),
        new_code_cell("z = 3"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_load.ipynb")
    return tmp_path


def script(folder, text):
    path = folder / "script.md"
    path.write_text(text)
    return path


def test_a_section_ends_at_the_next_heading(course):
    assert sections(course / "01_load.ipynb") == {
        "01 Load": (0, []),
        "Read the files": (0, [1, 2]),
        "Next": (3, []),
        "Inside": (3, [4]),
    }


def test_a_script_is_read_sentence_by_sentence(course):
    text = (
        "preface\n\n## One\n\n- open 01_load\n- run Inside\nIt runs\nhere. And ends.\n"
    )
    steps = ["open 01_load", "run Inside", "say It runs here.", "say And ends."]
    (stage,) = read_script(script(course, text), course)
    assert stage.title == "One"
    assert [f"{step.action} {step.text}" for step in stage.steps] == steps


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no stage", "an empty stage, or none"),
        ("## Empty\n", "an empty stage, or none"),
        ("## A\n\n- open 02_gone\n", "'open 02_gone': no such notebook"),
        ("## A\n\n- open 01_load\n- run Gone\n", "'run Gone': no such heading"),
        ("## A\n\n- open 01_load\n- shwo Next\n", "'shwo Next': not an action"),
        ("## A\n\n- show Next\n", "no notebook is open"),
        ("## A\n\nHello.\n", "no notebook is open"),
    ],
)
def test_a_bad_script_is_an_input_error(course, text, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        read_script(script(course, text), course)


def test_a_missing_script_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not a readable script"):
        read_script(tmp_path / "none.md")


def test_a_missing_program_is_an_input_error(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = CliRunner().invoke(main, ["tour", "-o", str(tmp_path / "film.mp4")])
    assert result.exit_code == 2 and "needs chromium, ffmpeg" in result.output


def test_a_film_is_replaced_only_if_forced(monkeypatch, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"the student's own film")
    monkeypatch.setattr(tour, "record_tour", lambda *x, **options: 6 * 60)
    result = CliRunner().invoke(main, ["tour", "-o", str(film)])
    assert result.exit_code == 2 and f"{film}: exists" in result.output
    assert film.read_bytes() == b"the student's own film"
    assert CliRunner().invoke(main, ["tour", "-o", str(film), "--force"]).exit_code == 0


# The film ----------------------------------------------------------------------------


def probe(path):
    """Return the video stream, the kinds of all streams and the chapters of a film."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams"]
    command += ["-show_format", "-show_chapters", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (video,) = [x for x in found["streams"] if x["codec_type"] == "video"]
    titles = [x["tags"]["title"] for x in found["chapters"]]
    return video, {x["codec_type"] for x in found["streams"]}, titles


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_frames_last_as_long_as_asked_and_stages_become_chapters(tmp_path):
    (tmp_path / "frames").mkdir()
    film = Film(tmp_path / "frames", speech=False)
    for level, seconds in ((0, 1.0), (0, 0.5), (250, 2.0)):
        film.chapters.append((film.seconds, f"level {level}"))
        picture = np.full((90, 160, 3), level, np.uint8)
        film.add(cv2.imencode(".jpg", picture)[1].tobytes(), seconds)
    assert len(film.frames) == 2 and film.seconds == 3.5
    film.spoken.append((1.0, np.full(tour.SPEECH_RATE // 2, 9000, np.int16)))
    film.write(tmp_path / "film.mp4")
    video, kinds, chapters = probe(tmp_path / "film.mp4")
    assert video["codec_name"] == "h264" and "audio" in kinds
    assert float(video["duration"]) == pytest.approx(3.5, abs=0.1)
    assert chapters == ["level 0", "level 0", "level 250"]
    frames = read_frames(tmp_path / "film.mp4", [0.2, 1.3, 1.7, 3.2])
    assert [round(frame.mean() / 250) for frame in frames] == [0, 0, 1, 1]


def read_frames(path: Path, seconds):
    capture = cv2.VideoCapture(str(path))
    frames = []
    for second in seconds:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * second)
        frames.append(capture.read()[1])
    return frames


class Page:
    """A page whose cell is done after a number of polls of ten seconds each."""

    def __init__(self, monkeypatch, polls):
        self.polls, self.seconds, self.clock = polls, 0.0, []
        monkeypatch.setattr(tour.time, "monotonic", lambda: self.seconds)

    def evaluate(self, function, argument=None):
        if function == "tour.done":
            self.seconds += 10 if self.polls else 0.01
            self.polls -= 1
            return self.polls < 0
        if "tour.clock" in function:
            self.clock.append(argument)
        return ""

    def screenshot(self, **options):
        return str(self.seconds).encode()


@pytest.mark.parametrize("polls", [0, 1, 6])
def test_long_runs_are_shown_faster_with_their_true_time(tmp_path, monkeypatch, polls):
    film, page = Film(tmp_path, speech=False), Page(monkeypatch, polls)
    tour.Player(page, "", tmp_path, film)._film_run(0)
    assert len(film.frames) == polls  # none if the cell is done at once
    assert page.clock == [*range(10, 10 * polls + 1, 10), 0]
    total = 10 * polls + 0.01  # the first frame is taken after the first ten seconds
    shown = (total - 10) * tour.MAX_RUN / total if polls else 0
    assert film.seconds == pytest.approx(shown)
    assert film.seconds < tour.MAX_RUN


@pytest.mark.skipif(bool(missing_program()), reason=missing_program())
def test_a_short_tour_is_filmed_and_shows_the_notebook(tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "01_load.ipynb").write_text(nbformat.writes(red_notebook()))
    film, path = tmp_path / "film.mp4", script(tmp_path, SHORT)
    seconds = record_tour(path, film, notebooks=notebooks, log=lambda line: None)
    video, kinds, chapters = probe(film)
    assert (video["codec_name"], video["width"], video["height"]) == (
        "h264",
        1920,
        1080,
    )
    assert 15 < seconds < 30
    assert float(video["duration"]) == pytest.approx(seconds, abs=0.2)
    assert ("audio" in kinds) == bool(shutil.which("espeak-ng"))
    assert chapters == ["Load the Dataset", "Picture"]
    frames = read_frames(film, [tour.TITLE_SECONDS / 2, 3, seconds - 1])
    title, notebook, end = frames
    assert title.mean() < 60  # white letters on a dark page
    assert notebook[:900].mean() > 200 and notebook[1000:].mean() < 80  # and a caption
    assert red(end) > 0.05 and red(notebook) < 0.01  # drawn while the film ran
    for one, other in combinations(frames, 2):
        assert np.abs(one.astype(int) - other).mean() > 5


def red_notebook():
    """A notebook whose cell takes three seconds and draws a red square."""
    code = """import time
    from IPython.display import Image, display
    import cv2, numpy as np
    time.sleep(3)
    square = np.full((400, 400, 3), (0, 0, 255), np.uint8)
    display(Image(cv2.imencode(".png", square)[1].tobytes()))"""
    filler = [new_markdown_cell("text") for _ in range(80)]
    cells = [
        new_markdown_cell("# 01 Load\n\n## Read the files"),
        new_code_cell(textwrap.dedent("    " + code)),
        *filler[:40],
        new_markdown_cell("## Far below"),
        *filler[40:],
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def red(frame):
    """Return the share of red pixels in a frame."""
    blue, green, red = np.moveaxis(frame.astype(int), 2, 0)
    return ((red > 200) & (green < 80) & (blue < 80)).mean()


@pytest.mark.skipif(bool(missing_program()), reason=missing_program())
def test_a_cell_that_fails_stops_the_tour_and_is_named(tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    notebook = red_notebook()
    notebook.cells[1].source = "1 / 0"
    (notebooks / "01_load.ipynb").write_text(nbformat.writes(notebook))
    path = script(tmp_path, "## A\n\n- open 01_load\n- run Read the files\n")
    with pytest.raises(WorkFailed, match=r"01_load.ipynb: cell 1 fails \(division"):
        record_tour(path, tmp_path / "film.mp4", notebooks=notebooks, log=print)
    assert not (tmp_path / "film.mp4").exists()
