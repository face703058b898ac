"""The demo page, built and served with gradio.

It is served to this computer only and sends no requests to others. A function that is
passed in does the colorizing.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path

from PIL import Image

from helpers.files import InputError

HOST = "127.0.0.1"
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

A small neural network estimates the colors of a photo from its light and dark tones. The
networks of this course were trained on photos of only 50 people, each facing the camera.
A similar portrait works best; on anything else, expect poor colors. Even on a face, the
colors are a guess: a gray photo does not show whether a coat was red or green.

You can use files of up to {MAX_MEGABYTES} MB and {MAX_MEGAPIXELS} megapixels.
Your photos never leave this computer.
"""
WAITING = "Drop a photo or choose an example."
CSS = """
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
# (photo, network's name, strength, output folder) -> (before, after, download)
Color = Callable[[Path, str, float, Path], tuple[Path, Path, Path]]


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


def build_page(gradio, names: list[str], examples: list[Path], color: Color):
    """Build the page (gradio.Blocks); every change on it colorizes the photo again."""
    with gradio.Blocks(
        title="Deep colorization",
        analytics_enabled=False,
        delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS),
    ) as page:
        chosen = gradio.State(None)  # the path of the photo
        gradio.Markdown(INTRO, elem_id="intro")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                photo = gradio.File(label="Photo", height=150)
                gallery = gradio.Dataset(
                    components=["image"],
                    samples=[[str(path)] for path in examples],
                    label="Examples (computer-drawn)",
                    type="index",
                    elem_id="examples",
                )
                network = gradio.Radio(
                    names, value=names[0], label="Network", visible=len(names) > 1
                )
                strength = gradio.Slider(0, 2, 1, step=0.05, label="Color strength")
            with gradio.Column(scale=3, min_width=280):
                pictures = gradio.ImageSlider(
                    label="Before and after",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="pictures",
                )
                status = gradio.Markdown(WAITING, elem_id="status")
                download = gradio.DownloadButton(
                    "Download as PNG", variant="primary", interactive=False
                )
        shared = {"api_visibility": "private", "show_progress_on": pictures}
        work = {
            "fn": partial(_update, gradio, color),
            "inputs": [chosen, network, strength],
            "outputs": [pictures, status, download],
            "concurrency_id": "color",  # only one photo in memory at a time
            "concurrency_limit": 1,
            **shared,
        }
        # Clear the field immediately, so that the next photo can be dropped on it.
        uploaded = photo.upload(
            lambda path: (path, None), photo, [chosen, photo], **shared
        )
        clicked = gallery.click(
            lambda index: str(examples[index]), gallery, chosen, **shared
        )
        uploaded.then(**work)
        clicked.then(**work)
        gradio.on([network.change, strength.change], trigger_mode="always_last", **work)
    return page


def _update(gradio, color: Color, path: str | None, name: str, strength: float):
    """Colorize the chosen photo; return (pictures, status, download) for the page."""
    disabled = gradio.DownloadButton(value=None, interactive=False)
    if (
        path is None
    ):  # the network or the strength was changed before a photo was chosen
        return None, WAITING, disabled
    start, path = time.perf_counter(), Path(path)
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    try:
        before, after, download = color(path, name, strength, folder)
    except InputError as error:
        return None, _plain_text(str(error)), disabled
    seconds = time.perf_counter() - start
    return (
        (str(before), str(after)),
        _plain_text(f"{path.name}: colored by {name} in {seconds:.1f} s."),
        gradio.DownloadButton(value=str(download), interactive=True),
    )


def launch(gradio, page, port: int) -> str:
    """Serve the page to this computer only, in other threads; return its address.

    Raises InputError if neither `port` (see `import_gradio`) nor a later port is free.
    """
    # read_photograph rejects images that are too large
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        page.launch(
            server_name=HOST,
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
            theme=_theme(gradio),
            css=CSS,
            js=ACCESSIBLE,
        )
    except OSError as error:
        raise InputError(
            f"--port {port}: in use, as are the next ports; give another port"
        ) from error
    return f"http://{HOST}:{page.server_port}"


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
