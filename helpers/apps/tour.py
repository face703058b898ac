"""The video tour: a script in Markdown, played in JupyterLab and filmed frame by frame.

The film has its own clock. A caption stays as long as it takes to read or to say, and a
cell that runs for longer than `MAX_RUN` is shown faster, with its true time on screen.
So the film is about as long on a slow machine as on a fast one.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from helpers.apps.runner import NOTEBOOKS, read_notebook
from helpers.apps.student import copy_notebooks
from helpers.files import PROJECT, InputError, WorkFailed, read_json, write_atomic

SCRIPT = PROJECT / "videotour" / "script.md"
FILM = PROJECT / "videotour" / "tour.mp4"
MINUTES = (5, 7)  # what the assignment asks for
ACTIONS = ("open", "show", "picture", "run")
WINDOW, SCALE = {"width": 1200, "height": 675}, 1.6  # the film is 1920 x 1080
FRAME_RATE = 12  # per second
WORDS_PER_SECOND = 2.5  # of a reader; espeak-ng speaks 160 words per minute
TITLE_SECONDS, PAUSE, MIN_CAPTION = 1.5, 0.4, 2.0
SCROLL_FRAMES, MIN_RUN, MAX_RUN = 6, 0.5, 2.0  # frames, seconds, seconds
SPEECH_RATE = 22050  # samples per second, as espeak-ng has it

TRACKER = b'{"windowingMode": "none"}'  # all cells are in the page from the start
PAGE = """() => {  // captions over the notebook, places in it, and running a cell
const panel = jupyterapp.shell.currentWidget, cells = panel.content.widgets;
const box = panel.node.querySelector('.jp-WindowedPanel-outer');
const top = node => node.getBoundingClientRect().top;
const place = node => box.scrollTop + top(node) - top(box) - 12;
const layer = style => {
  const node = document.body.appendChild(document.createElement('div'));
  node.style.cssText = `position: fixed; z-index: 9999; right: 0; bottom: 0; display: none;
    box-sizing: border-box; color: white; background: #14181ff0;
    font: 26px/1.35 sans-serif; text-align: center; ${style}`;
  return text => { node.style.display = text ? '' : 'none'; node.textContent = text; };
};
document.head.appendChild(document.createElement('style')).textContent =
  '.Toastify { display: none }';  // messages of JupyterLab
const clock = layer('bottom: auto; top: 90px; right: 30px; padding: 8px 18px');
const headings = '.jp-RenderedMarkdown :is(h1, h2, h3, h4)';
window.tour = {
  say: layer('left: 0; padding: 14px 80px; min-height: 98px'),
  card: layer('left: 0; top: 0; padding-top: 300px; font-size: 60px'),
  clock: seconds => clock(seconds > 1 ? `running: ${Math.round(seconds)} s` : ''),
  position: () => box.scrollTop,
  scroll: y => { box.scrollTop = y; },
  heading: text => place([...panel.node.querySelectorAll(headings)].find(
    x => x.textContent.replace('¶', '').trim() === text)),
  picture: n => place(cells.slice(n).map(
    x => x.node.querySelector('.jp-OutputArea img')).find(x => x)),
  cell: n => place(cells[n].node)  // its top; for a long cell, what is above the caption
    + Math.max(0, cells[n].node.offsetHeight - box.clientHeight + 130),
  clear: n => cells[n].model.clearExecution(),
  run: async n => {
    panel.content.activeCellIndex = n;
    await jupyterapp.commands.execute('notebook:run-cell');
  },
  start: n => { tour.done = false; tour.run(n).finally(() => { tour.done = true; }); },
  error: n => (cells[n].model.outputs?.toJSON() ?? []).find(
    x => x.output_type === 'error')?.evalue,
};
}"""


class Step(NamedTuple):
    """One line of the script: an action of `ACTIONS`, or "say" with a sentence."""

    action: str
    text: str


class Stage(NamedTuple):
    """One section of the script."""

    title: str
    steps: tuple[Step, ...]


def read_script(path: Path = SCRIPT, notebooks: Path = NOTEBOOKS) -> list[Stage]:
    """Read a script; each "## " starts a stage, and text above the first is a preface.

    "- open NOTEBOOK" and "- show HEADING" are actions; everything else is said. Raises
    InputError if the file is unreadable, or a notebook or heading does not exist.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable script ({error})") from error
    parts = [x.partition("\n") for x in re.split(r"^## ", text, flags=re.M)[1:]]
    stages = [Stage(title.strip(), tuple(_steps(body))) for title, _, body in parts]
    if not stages or not all(stage.steps for stage in stages):
        raise InputError(
            f"{path}: has an empty stage, or none; write '## Title' and steps"
        )
    headings = None
    for stage in stages:
        for step in stage.steps:
            where = f"{path}: {stage.title}: '{step.action} {step.text}'"
            file = Path(notebooks) / f"{step.text}.ipynb"
            if step.action not in ("say", *ACTIONS):
                raise InputError(f"{where}: not an action; use {', '.join(ACTIONS)}")
            if step.action == "open":
                if not file.is_file():
                    raise InputError(
                        f"{where}: no such notebook in {file.parent.name}/"
                    )
                headings = sections(file)
            elif headings is None:
                raise InputError(f"{where}: no notebook is open; '- open' one first")
            elif step.action != "say" and step.text not in headings:
                raise InputError(f"{where}: no such heading; it may have a new name")
    return stages


def _steps(body: str) -> Iterator[Step]:
    for block in re.split(r"\n\s*\n|^(- .*)$", body, flags=re.MULTILINE):
        block = " ".join((block or "").split())
        if found := re.fullmatch(r"- (\w+) (.+)", block):
            yield Step(*found.groups())
        elif block:
            sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", block)
            yield from (Step("say", sentence) for sentence in sentences)


def sections(notebook: Path) -> dict[str, tuple[int, list[int]]]:
    """Return for each heading its cell, and the code cells up to the next heading."""
    found, current = {}, (0, [])
    for number, cell in enumerate(read_notebook(notebook).cells):
        if cell.cell_type == "code":
            current[1].append(number)
            continue
        for heading in re.findall(r"^#+ (.+?)\s*$", cell.source, re.M):
            current = (number, [])
            found.setdefault(heading, current)
    return found


@dataclass
class Film:
    """Frames with their durations, speech and chapters; files are kept in `folder`."""

    folder: Path
    speech: bool
    frames: list[list] = field(default_factory=list)  # [file name, seconds]
    chapters: list[tuple[float, str]] = field(default_factory=list)
    spoken: list[tuple[float, np.ndarray]] = field(default_factory=list)
    seconds: float = 0.0  # length so far
    last: bytes = b""

    def add(self, picture: bytes, seconds: float) -> None:
        """Append a JPEG picture; the same one again only lasts longer."""
        if picture != self.last:
            self.frames.append([f"{len(self.frames):06}.jpg", 0.0])
            (self.folder / self.frames[-1][0]).write_bytes(picture)
            self.last = picture
        self.frames[-1][1] += seconds
        self.seconds += seconds

    def say(self, text: str) -> float:
        """Speak a sentence from now on; return how long its caption should stay."""
        if not self.speech:
            return max(MIN_CAPTION, len(text.split()) / WORDS_PER_SECOND + PAUSE)
        file = self.folder / "speech.wav"
        _call("espeak-ng", "-v", "en-us", "-s", "160", "-w", str(file), text)
        with wave.open(str(file)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        self.spoken.append((self.seconds, samples))
        return max(MIN_CAPTION, len(samples) / SPEECH_RATE + PAUSE)

    def write(self, output: Path) -> None:
        """Encode the film as H.264 with chapters, and write it atomically."""
        lines = [f"file {name}\nduration {length:.3f}" for name, length in self.frames]
        lines.append(f"file {self.frames[-1][0]}")  # the last duration needs it
        (self.folder / "frames.txt").write_text("\n".join(lines))
        ends = [start for start, _ in self.chapters[1:]] + [self.seconds]
        marks = ";FFMETADATA1\n"
        for (start, title), end in zip(self.chapters, ends, strict=True):
            times = f"TIMEBASE=1/1000\nSTART={1000 * start:.0f}\nEND={1000 * end:.0f}"
            marks += f"[CHAPTER]\n{times}\ntitle={title}\n"
        (self.folder / "marks.txt").write_text(marks)
        inputs = ["-f", "concat", "-i", "frames.txt", "-i", "marks.txt"]
        if self.spoken:
            self._write_speech()
            inputs += ["-i", "speech.wav", "-map", "2:a", "-c:a", "aac", "-b:a", "64k"]
        _call(
            "ffmpeg", "-v", "error", "-y", *inputs, "-map", "0:v", "-map_chapters", "1",
            "-vf", f"fps={FRAME_RATE},format=yuv420p", "-c:v", "libx264",
            "-preset", "veryfast", "-crf", "24", "-t", f"{self.seconds:.3f}",
            "-movflags", "+faststart", "film.mp4", folder=self.folder,
        )  # fmt: skip
        write_atomic(output, (self.folder / "film.mp4").read_bytes())

    def _write_speech(self) -> None:
        track = np.zeros(round((self.seconds + 1) * SPEECH_RATE), np.int16)
        for start, samples in self.spoken:
            place = track[round(start * SPEECH_RATE) :]
            place[: len(samples)] = samples[: len(place)]
        with wave.open(str(self.folder / "speech.wav"), "wb") as sound:
            sound.setparams((1, 2, SPEECH_RATE, 0, "NONE", ""))
            sound.writeframes(track.tobytes())


def _call(*command: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkFailed(f"{command[0]}: failed ({last}); try again")


class Player:
    """Plays stages in a browser page with JupyterLab, and films them."""

    def __init__(self, page, address: str, folder: Path, film: Film):
        self.page, self.address, self.folder, self.film = page, address, folder, film
        self.sections, self.ran = {}, -1  # of the open notebook; last cell that ran
        self.until = 0.0  # when the sentence has been said

    def play(self, stage: Stage) -> None:
        """Open the notebook, show the title over it, and play the other steps."""
        opens = stage.steps[0].action == "open"
        if opens:
            self.open(stage.steps[0].text)
        self.film.chapters.append((self.film.seconds, stage.title))
        self._tour("card", stage.title)
        self.shoot(TITLE_SECONDS)
        self._tour("card", "")
        for step in stage.steps[opens:]:
            if step.action != "run":  # cells run while the sentence is said
                self.shoot(self.until - self.film.seconds)
            getattr(self, step.action)(step.text)
        self.shoot(self.until - self.film.seconds)

    def shoot(self, seconds: float) -> None:
        """Film the page as it is now."""
        if seconds > 0:
            self.film.add(self._picture(), seconds)

    def _picture(self) -> bytes:
        return self.page.screenshot(type="jpeg", quality=92)

    def say(self, text: str) -> None:
        """Show a sentence as the caption, and start to speak it."""
        text = re.sub(r"[*`]", "", text)
        self._tour("say", text)
        self.until = self.film.seconds + self.film.say(text)

    def open(self, name: str) -> None:
        """Open a notebook with a new kernel; not filmed."""
        if self.sections:
            self.page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        self.sections, self.ran = sections(self.folder / f"{name}.ipynb"), -1
        self.page.goto(self.address.format(f"{name}.ipynb"))
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content")
        for ready in ("context.ready", "sessionContext.ready", "revealed"):
            self.page.evaluate(
                f"jupyterapp.shell.currentWidget.{ready}.then(() => null)"
            )
        self.page.evaluate(PAGE)
        self.page.wait_for_timeout(1000)  # until formulas and pictures have their sizes

    def show(self, heading: str) -> None:
        """Scroll to a heading."""
        self._scroll("heading", heading)

    def picture(self, heading: str) -> None:
        """Scroll to the first picture below a heading."""
        self._scroll("picture", self.sections[heading][0])

    def run(self, heading: str) -> None:
        """Run the cells of a section; those above that have not run are not filmed."""
        cell, code = self.sections[heading]
        for number in range(self.ran + 1, cell):
            self._tour("run", number)
            self._check(number)
        for number in code:
            self._tour("clear", number)
        self.show(heading)
        for number in code:
            self._scroll("cell", number)
            self._film_run(number)
            self._scroll("cell", number)
            self.shoot(MIN_RUN)

    def _film_run(self, number: int) -> None:
        self._tour("start", number)
        start, shots = time.monotonic(), []
        while not self.page.evaluate("tour.done"):
            shots.append((time.monotonic() - start, self._picture()))
            self._tour("clock", time.monotonic() - start)
        total = time.monotonic() - start
        self._tour("clock", 0)
        self._check(number)
        ends = [*(elapsed for elapsed, _ in shots), total][1:]  # none for a fast cell
        for (elapsed, picture), end in zip(shots, ends, strict=True):
            self.film.add(picture, (end - elapsed) * min(1, MAX_RUN / total))

    def _check(self, number: int) -> None:
        self.ran = max(self.ran, number)
        if error := self._tour("error", number):
            name = self.page.evaluate("jupyterapp.shell.currentWidget.context.path")
            raise WorkFailed(
                f"{name}: cell {number} fails ({error}); run it in JupyterLab"
            )

    def _scroll(self, function: str, target: str | int) -> None:
        start, end = self._tour("position"), self._tour(function, target)
        for frame in range(1, SCROLL_FRAMES + 1) if abs(end - start) > 2 else ():
            x = frame / SCROLL_FRAMES
            self._tour("scroll", start + (end - start) * x * x * (3 - 2 * x))
            self.shoot(1 / FRAME_RATE)

    def _tour(self, function: str, argument: str | float | None = None) -> object:
        return self.page.evaluate(f"x => tour.{function}(x)", argument)


@contextmanager
def jupyterlab(folder: Path, own: Path) -> Iterator[str]:
    """Serve the notebooks in `folder`; yield the address, {} for the file name."""
    settings = own / "JUPYTERLAB_SETTINGS" / "@jupyterlab" / "notebook-extension"
    write_atomic(settings / "tracker.jupyterlab-settings", TRACKER)
    names = ("JUPYTER_CONFIG", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS")
    names += ("JUPYTERLAB_WORKSPACES", "DEEPCOLOR_RUN")
    environment = os.environ | {f"{x}_DIR": str(own / x) for x in names}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder}"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env=environment, **silent)
    try:
        while not (files := list((own / "JUPYTER_RUNTIME").glob("jpserver-*.json"))):
            if server.poll() is not None:
                raise WorkFailed("jupyterlab: does not start; try `make lab`")
            time.sleep(0.2)
        info = read_json(files[0])
        yield f"{info['url']}doc/tree/{{}}?token={info['token']}"
    finally:
        server.terminate()
        server.wait()


def find_browser() -> str:
    """Return the path of Chromium; raise InputError if something is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if not (browser and shutil.which("ffmpeg") and find_spec("playwright")):
        raise InputError("tour: needs chromium, ffmpeg and playwright; install them")
    return browser


def record_tour(
    script: Path = SCRIPT,
    output: Path = FILM,
    *,
    notebooks: Path = NOTEBOOKS,
    speech: bool = True,
    log: Callable[[str], None] = print,
) -> float:
    """Play a script and write the film to `output` (MP4); return its length in seconds.

    speech  speak the captions if espeak-ng is installed

    Raises InputError for a bad script or a missing program, WorkFailed if a cell fails.
    """
    stages, browser = read_script(script, notebooks), find_browser()
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as temporary, sync_playwright() as playwright:
        copies, frames = Path(temporary, "notebooks"), Path(temporary, "frames")
        frames.mkdir()
        film = Film(frames, speech and shutil.which("espeak-ng") is not None)
        copy_notebooks(copies, solutions=True, source=notebooks, log=lambda _: None)
        with jupyterlab(copies, Path(temporary)) as address:
            chromium = playwright.chromium.launch(executable_path=browser)
            page = chromium.new_page(viewport=WINDOW, device_scale_factor=SCALE)
            page.set_default_timeout(600_000)
            player = Player(page, address, copies, film)
            for number, stage in enumerate(stages, 1):
                player.play(stage)
                log(
                    f"{number:>2} of {len(stages)}  {film.seconds:4.0f} s  {stage.title}"
                )
            chromium.close()
        film.write(output)
        return film.seconds
