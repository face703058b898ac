"""The demo's page, as gradio is told to build and to serve it.

It is served to this computer alone and asks nothing of any other. Here stands what is on
the page; what happens to a photograph is not known here.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path

from PIL import Image

from helpers.files import InputError

HOST = "127.0.0.1"
MAX_MEGABYTES = 100  # of a file that is dropped on the page
MAX_MEGAPIXELS = 64
KEPT_SECONDS = 3600  # files of the page are removed when older, all at the end
NO_NETWORK = {  # read by gradio and by what it brings along
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
INTRO = f"""# Color for an old photograph

A small network looks at how light and dark a picture is and guesses its colors. It
learned from small photographs of faces, in the end of 50 people seen from the front, and
knows no other pictures. Even on a face its colors are guesses: no gray picture tells
whether a coat was red or green.

Files of up to {MAX_MEGABYTES} MB and {MAX_MEGAPIXELS} megapixels.
Nothing leaves this computer.
"""
WAITING = "Drop a photograph or choose an example."
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
# A screen reader says what changes in a region with the role status.
SPOKEN = """() => {
    document.documentElement.lang = "en";
    document.getElementById("status").setAttribute("role", "status");
    document.querySelectorAll("#examples button").forEach(
        (button, i) => button.setAttribute("aria-label", `Example ${i + 1}`)
    );
}"""


# From a photograph's path, a network's name, a strength and a folder to write to: the
# pictures before and after, and the one to download. Raises InputError.
Color = Callable[[Path, str, float, Path], tuple[Path, Path, Path]]


def import_gradio():
    """The module gradio, told to ask nothing of the network; raises InputError."""
    os.environ.update(NO_NETWORK)  # gradio reads them while it is imported
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            'gradio is not installed; pip install -e ".[demo]" in the course\'s folder'
        ) from error
    return gradio


def build_page(gradio, names: list[str], examples: list[Path], color: Color):
    """The page, a gradio.Blocks; whatever is changed on it colors the photograph anew."""

    def answer(path: str | None, name: str, strength: float):
        """(pictures, status, download) for what the page now holds."""
        nothing = gradio.DownloadButton(value=None, interactive=False)
        if path is None:  # a network or a strength was chosen first
            return None, WAITING, nothing
        start, path = time.perf_counter(), Path(path)
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        try:
            before, after, download = color(path, name, strength, folder)
        except InputError as error:
            return None, _text(str(error)), nothing
        seconds = time.perf_counter() - start
        return (
            (str(before), str(after)),
            _text(f"{path.name}: colored by {name} in {seconds:.1f} s."),
            gradio.DownloadButton(value=str(download), interactive=True),
        )

    with gradio.Blocks(
        title="Deep colorization",
        analytics_enabled=False,
        delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS),
    ) as page:
        chosen = gradio.State(None)  # the path of the photograph
        gradio.Markdown(INTRO, elem_id="intro")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                photograph = gradio.File(label="Photograph", height=150)
                gallery = gradio.Dataset(
                    components=["image"],
                    samples=[[str(path)] for path in examples],
                    label="Examples, drawn for this page",
                    type="index",
                    elem_id="examples",
                )
                network = gradio.Radio(
                    names, value=names[0], label="Network", visible=len(names) > 1
                )
                strength = gradio.Slider(
                    0, 2, 1, step=0.05, label="Strength of the colors"
                )
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
            "fn": answer,
            "inputs": [chosen, network, strength],
            "outputs": [pictures, status, download],
            "concurrency_id": "color",  # one photograph in memory
            "concurrency_limit": 1,
            **shared,
        }
        # The field is emptied at once, so that the next photograph can be dropped there.
        photograph.upload(
            lambda path: (path, None), photograph, [chosen, photograph], **shared
        ).then(**work)
        gallery.click(
            lambda index: str(examples[index]), gallery, chosen, **shared
        ).then(**work)
        gradio.on([network.change, strength.change], trigger_mode="always_last", **work)
    return page


def launch(gradio, page, port: int) -> None:
    """Let threads of this process serve a page to this computer alone."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the page says it
    here = "localhost," + HOST  # gradio asks itself whether it is up; not by a proxy
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = here
    page.launch(
        server_name=HOST,
        server_port=port,
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
        js=SPOKEN,
    )


def _theme(gradio):
    """Calm colors and the fonts of the system, for none is at hand without a network."""
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


def _text(line: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-!|~$^" else escape(c) for c in line)
