"""The demo page, built and served with gradio.

It is served to this computer only and sends no requests to others. A function that is
passed in does the colorizing.
"""

import os
import socket
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Protocol

from PIL import Image

from helpers.apps.page_canvas import CANVAS_CSS, Canvas
from helpers.files import InputError

HOST = "127.0.0.1"
ANY_HOST = "0.0.0.0"  # every network of this computer
USER = "guest"
NUM_PORTS = 100  # number of ports to try, starting at --port
MAX_MEGABYTES = 100  # limit for an uploaded file
MAX_MEGAPIXELS = 64
KEPT_SECONDS = 3600  # the page's older files are deleted; at the end, all of them are
OFFLINE = {  # read by gradio and its dependencies
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    # gradio requests its own page once; this request must not go through a proxy
    "NO_PROXY": f"localhost,{HOST}",
    "no_proxy": f"localhost,{HOST}",
}
INTRO = f"""# Add color to an old photo

A small neural network estimates the colors of a photo from its light and dark tones. It
was trained on photos of faces, so portraits work best. Even on a face, the colors are a
guess: a gray photo does not show whether a coat was red or green. If you know a color,
choose it and click where it belongs.

You can use files of up to {MAX_MEGABYTES} MB and {MAX_MEGAPIXELS} megapixels.
Your photos are processed by the computer that serves this page, and sent nowhere else.
"""
WAITING = "Drop a photo or choose an example."
CSS = """
@media (max-width: 640px) {#columns {flex-direction: column-reverse}}
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
#intro h1 {font-weight: 600; letter-spacing: -0.01em}
#status {min-height: 1.5em}
#status p {overflow-wrap: anywhere}
#examples > .gallery {display: grid; grid-template-columns: repeat(4, 1fr)}
#examples .gallery-item, #examples .gallery-item * {
    display: block; width: 100%; max-width: none; height: 100%; max-height: none;
}
#examples .gallery-item {aspect-ratio: 1}
"""
# Screen readers announce changes in a region with the role "status".
ACCESSIBLE = """() => {
    document.documentElement.lang = "en";
    document.getElementById("status").setAttribute("role", "status");
    document.querySelectorAll("#examples button").forEach(
        (button, i) => button.setAttribute("aria-label", `Example ${i + 1}`)
    );
}"""
LIVELINESS = ("natural", "lively")


@dataclass(frozen=True)
class Settings:
    """What a visitor has chosen on the page.

    network   name of the network
    strength  0 to 2; lively  whether the colors are made livelier
    faces     whether small faces are colorized separately
    points    hints: (x, y, color), x and y in 0..1 of the width and the height
    boxes     faces marked by hand: (left, top, right, bottom), in 0..1 likewise
    jpeg      whether the download is a JPEG, not a PNG
    """

    network: str
    strength: float = 1.0
    lively: bool = False
    faces: bool = True
    points: tuple[tuple[float, float, str], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    jpeg: bool = False


class Worker(Protocol):
    """What the page needs to colorize; see `demo.Painter`."""

    def paint(
        self, paths: Sequence[Path], settings: Settings, folder: Path
    ) -> tuple[list[Path], list[str]]:
        """Return the previews before, after and to click on, and the download.

        Also return a line for each photo that could not be read.
        """

    def touch(self, path: Path, settings: Settings, folder: Path) -> Path:
        """Return only the preview to click on, quickly."""


def import_gradio(port: int):
    """Import gradio, configured to stay offline and use the first free port from `port`.

    Raises InputError if it is not installed.
    """
    os.environ |= OFFLINE | {  # read when gradio is imported
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_NUM_PORTS": str(min(NUM_PORTS, 2**16 - port)),
    }
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            'gradio is not installed; run pip install -e ".[demo]" in the course\'s folder'
        ) from error
    return gradio


def build_page(gradio, names: list[str], examples: list[Path], worker: Worker):
    """Build the page (gradio.Blocks); every change on it colorizes the photo again."""
    with gradio.Blocks(
        title="Deep colorization",
        analytics_enabled=False,
        delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS),
    ) as page:
        paths, marks = gradio.State([]), gradio.State([])
        gradio.Markdown(INTRO, elem_id="intro")
        with gradio.Row():
            photo = gradio.File(label="Photos", height=150, file_count="multiple")
            gallery = gradio.Dataset(
                components=["image"],
                samples=[[str(path)] for path in examples],
                label="Examples",
                type="index",
                elem_id="examples",
            )
        with gradio.Row(elem_id="columns"):
            with gradio.Column(scale=2, min_width=280):
                settings = _settings(gradio, names)
            with gradio.Column(scale=3, min_width=280):
                pictures, status, download = _results(gradio)
                canvas = Canvas(gradio)
        shared = {"api_visibility": "private", "show_progress_on": pictures}
        work = {
            "fn": partial(_update, gradio, worker),
            "inputs": [paths, marks, *settings],
            "outputs": [pictures, canvas.picture, status, download],
            "concurrency_id": "color",  # only one photo in memory at a time
            "concurrency_limit": 1,
            **shared,
        }
        fresh = [marks, *settings[1:]]
        # Clear the field immediately, so that the next photo can be dropped on it.
        uploaded = photo.upload(
            lambda files: (files, None, *_defaults()),
            photo,
            [paths, photo, *fresh],
            **shared,
        )
        clicked = gallery.click(
            lambda index: ([str(examples[index])], *_defaults()),
            gallery,
            [paths, *fresh],
            **shared,
        )
        uploaded.then(**work)
        clicked.then(**work)
        changes = [setting.input for setting in settings]
        gradio.on(changes, trigger_mode="always_last", **work)
        for event in canvas.connect(partial(_touch, worker), paths, marks, settings):
            event.then(**work)
    return page


def _settings(gradio, names: list[str]) -> list:
    """Create the settings, in the order of `_chosen`'s arguments."""
    return [
        gradio.Radio(names, value=names[0], label="Network", visible=len(names) > 1),
        gradio.Slider(0, 2, 1, step=0.05, label="Color strength"),
        gradio.Radio(LIVELINESS, value=LIVELINESS[0], label="Colors"),
        gradio.Checkbox(True, label="Color small faces separately"),
        gradio.Radio(["PNG", "JPEG"], value="PNG", label="Download as"),
    ]


def _defaults() -> tuple:
    """Return no marks and the first value of each setting but the network."""
    return [], 1, LIVELINESS[0], True, "PNG"


def _results(gradio) -> tuple:
    pictures = gradio.ImageSlider(
        label="Before and after",
        type="filepath",
        interactive=False,
        buttons=["fullscreen"],
        elem_id="pictures",
    )
    status = gradio.Markdown(WAITING, elem_id="status")
    download = gradio.DownloadButton("Download", variant="primary", interactive=False)
    return pictures, status, download


def _chosen(marks, network, strength, lively, faces, form) -> Settings:
    is_lively = lively == LIVELINESS[1]
    points = tuple(mark for mark in marks if len(mark) == 3)
    boxes = tuple(mark for mark in marks if len(mark) == 4)
    return Settings(network, strength, is_lively, faces, points, boxes, form == "JPEG")


def _touch(worker: Worker, paths, marks, *chosen) -> str | None:
    """Return the first photo's picture to click on, or None if it cannot be read."""
    if not paths:
        return None
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    try:
        return str(worker.touch(Path(paths[0]), _chosen(marks, *chosen), folder))
    except InputError:  # the full result shows the reason
        return None


def _update(gradio, worker: Worker, paths: list[str], marks, *chosen):
    """Colorize the chosen photos; return (pictures, canvas, status, download)."""
    disabled = gradio.DownloadButton(value=None, interactive=False)
    if not paths:  # a setting was changed before a photo was chosen
        return None, None, WAITING, disabled
    start, settings = time.perf_counter(), _chosen(marks, *chosen)
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    try:
        given = [Path(path) for path in paths]
        files, unreadable = worker.paint(given, settings, folder)
    except InputError as error:
        return None, None, _plain_text(str(error)), disabled
    before, after, canvas, download = map(str, files)
    seconds, name = time.perf_counter() - start, Path(paths[0]).name
    said = f"{name}: colored by the network {settings.network} in {seconds:.1f} s."
    if len(paths) > 1:
        done = len(paths) - len(unreadable)
        said += f" The download contains {done} of {len(paths)} photos. "
        said += " ".join(unreadable)
    button = gradio.DownloadButton(value=download, interactive=True)
    return (before, after), canvas, _plain_text(said), button


def launch(gradio, page, port: int, host: str = HOST, password: str = "") -> str:
    """Serve the page in other threads; return its address.

    host      HOST serves this computer only
    password  asked from visitors, with the user name USER; "" asks for none

    Raises InputError if `host` is no address of this computer, or if neither `port` (see
    `import_gradio`) nor a later port is free.
    """
    if ":" in host:
        raise InputError(f"--host {host}: give an IPv4 address, for example {ANY_HOST}")
    try:
        socket.create_server((host, 0)).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise InputError(
            f"--host {host}: cannot be used here ({reason}); leave it out to "
            "serve this computer only"
        ) from error
    # read_photograph rejects images that are too large
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        page.launch(
            server_name=host,
            auth=(USER, password) if password else None,
            root_path="",
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_MEGABYTES * 2**20,
            app_kwargs=_only_this_host() if host == HOST else None,
            theme=_theme(gradio),
            css=CSS + CANVAS_CSS,
            js=ACCESSIBLE,
        )
    except OSError as error:
        raise InputError(
            f"--port {port}: in use, as are the next ports; give another port"
        ) from error
    name = socket.gethostname() if host == ANY_HOST else host
    return f"http://{name}:{page.server_port}"


def _only_this_host() -> dict:
    """Refuse requests under another host name: a web page could point its own here."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = [HOST, "localhost"]
    return {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]}


def _theme(gradio):
    """Return a theme with calm colors and system fonts: web fonts need the network."""
    return gradio.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        slider_color="*primary_700",
        checkbox_background_color_selected="*primary_700",
        checkbox_border_color_selected="*primary_700",
    )


def _plain_text(line: str) -> str:
    """Escape plain text, so that Markdown shows it unchanged."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-!|~$^" else escape(c) for c in line)
